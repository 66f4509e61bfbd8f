"""A convolution layer of StyleGAN2 as one function that keeps only its input and output.

::

    y = clamp(lrelu(scale * conv(style * x, gain * weight) + strength * noise + bias))

Modulating the weights (eq. 1 of arXiv:1912.04958) equals scaling the input
channels, and demodulating them (eq. 3) scaling the output channels: one
convolution for the whole batch. Written with torch's operations this keeps
``x``, ``style * x``, the convolution's result and every step to y. Here only x
and y are kept, and y is x of the next layer: ``style * x`` is computed again,
the slope is read off y, and because lrelu is homogeneous, the sums that the
gradient of `scale` needs come from y as well. The gradient is written in
operations that can be differentiated, so that second derivatives (path length,
R1) are those of the formula above.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

from sunpipe.models.geometry import Geometry
from sunpipe.models.striped import convolve, transpose, weight_gradient
from sunpipe.models.stripes import Stripes

Tensor = torch.Tensor
NoiseMap = Callable[[], Tensor]


class Layer(NamedTuple):
    """What a convolution layer does beside its tensors.

    Attributes
    ----------
    at : Geometry
    gain : float
        Of the weight (equalised learning rate, arXiv:1710.10196 section 4.1).
    slope : float
        Of the leaky ReLU below 0; 1 for none. Its usual factor sqrt(2) belongs to
        `gain` or `scale`, `bias` and `strength`.
    clamp : float
        Bound of the absolute value; 0 for none. A bounded value has no gradient.
    dtype : torch.dtype, optional
        Of the result; that of x by default.
    recompute : bool
        In a gradient that will be differentiated, keep only what comes in.
    """

    at: Geometry = Geometry()
    gain: float = 1.0
    slope: float = 0.2
    clamp: float = 0.0
    dtype: torch.dtype | None = None
    recompute: bool = False


_weights_wanted = True


@contextmanager
def without_weight_gradients() -> Iterator[None]:
    """Gradients taken inside leave out the parameters of convolution layers.

    For ``torch.autograd.grad`` with respect to w or an image: a function written
    in Python is not told which gradients are asked for. Not thread-local, because
    torch runs backward passes in threads of its own.
    """
    global _weights_wanted
    before, _weights_wanted = _weights_wanted, False
    try:
        yield
    finally:
        _weights_wanted = before


def convolution_layer(
    x: Tensor,
    weight: Tensor,
    layer: Layer,
    *,
    bias: Tensor | None = None,
    style: Tensor | None = None,
    scale: Tensor | None = None,
    strength: Tensor | None = None,
    noise: NoiseMap | None = None,
    kernel: Tensor | None = None,
    stripes: Stripes | None = None,
) -> Tensor:
    """Compute one layer, see the formula above.

    Parameters
    ----------
    x : Tensor, shape (B, I, H, W)
        Its type is that of the convolution; the small tensors are float32, their
        gradients too, and are rounded to the type of x where they meet it.
    weight : Tensor, shape (O, I, K, K)
    bias : Tensor, shape (O,), optional
    style : Tensor, shape (B, I), optional
    scale : Tensor, shape (B, O), optional
        Demodulation; with `layer.slope` above 0, never 0.
    strength : Tensor, shape (1,), optional
    noise : callable, optional
        Returns the map, (B, 1, H', W') or (H', W'), the same at every call.
    kernel : Tensor, shape (4, 4), optional
        Taps of the filter, see `sunpipe.models.geometry.convolve`.
    stripes : Stripes, optional
        x, the noise and the result are this rank's rows; all else is whole.

    Returns
    -------
    Tensor, shape (B, O, H', W')
    """
    if stripes is not None:
        weight, bias, strength = stripes.share_given(weight, bias, strength)
        style, scale = stripes.share_given(style, scale)
    return _ConvolutionLayer.apply(
        x, weight, bias, style, scale, strength, kernel, noise, layer, stripes
    )


def _ready(weight: Tensor, layer: Layer, x: Tensor) -> Tensor:
    return (weight if layer.gain == 1.0 else weight * layer.gain).to(x.dtype)


def _sums(x: Tensor) -> Tensor:
    """Sums (B, C) of (B, C, H, W), added up in float32 at least."""
    wide = torch.promote_types(x.dtype, torch.float32)
    if x.is_cuda:
        return x.sum(dim=(2, 3), dtype=wide)
    # a CPU adds up in float32 too, but would convert all of x first if told the type
    return x.sum(dim=(2, 3)).to(wide)


def _sums_with(x: Tensor, noise: Tensor) -> Tensor:
    """Sums (B, C) of (B, C, H, W) times a map (B, 1, H, W) or (H, W), without the product."""
    noise = noise.to(x.dtype).reshape(-1, *x.shape[2:]).expand(len(x), -1, -1)
    return torch.einsum("bchw,bhw->bc", x, noise).to(torch.promote_types(x.dtype, torch.float32))


def _times(x: Tensor, factor: Tensor | None) -> Tensor:
    """``x * factor`` per sample and channel, in the type of x.

    The factor is rounded too: operations on two types are several times slower.
    """
    return x if factor is None else x * factor.to(x.dtype)[:, :, None, None]


def _finish_(
    u: Tensor, bias: Tensor | None, scale: Tensor | None, noise: Tensor | None, layer: Layer
) -> Tensor:
    """In place: scale, add noise and bias, bend, clamp."""
    parts = [noise, None if bias is None else bias[:, None, None]]
    addends = [part.to(u.dtype) for part in parts if part is not None]
    if scale is not None:
        factor = scale.to(u.dtype)[:, :, None, None]
        if addends:
            torch.addcmul(addends.pop(0), u, factor, out=u)
        else:
            u.mul_(factor)
    for part in addends:
        u.add_(part)
    if layer.slope != 1.0:
        F.leaky_relu_(u, layer.slope)
    if layer.clamp:
        u.clamp_(-layer.clamp, layer.clamp)
    return u


class _ConvolutionLayer(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, style: Tensor | None,
        scale: Tensor | None, strength: Tensor | None, kernel: Tensor | None,
        noise: NoiseMap | None, layer: Layer, stripes: Stripes | None,
    ) -> Tensor:  # fmt: skip
        ready = _ready(weight, layer, x)
        # a convolution adds the bias for nothing, where both have one type
        free = None
        if bias is not None and bias.dtype == x.dtype and scale is None and layer.at.mode != "up":
            free = bias
        out = convolve(_times(x, style), ready, kernel, layer.at, free, stripes)
        out = out.to(layer.dtype or x.dtype)
        moved = None if noise is None or strength is None else noise() * strength
        out = _finish_(out, bias if free is None else None, scale, moved, layer)
        bent = layer.slope != 1.0 or layer.clamp or scale is not None
        ctx.save_for_backward(x, weight, bias, style, scale, strength, out if bent else None)
        ctx.kernel, ctx.noise, ctx.layer, ctx.stripes = kernel, noise, layer, stripes
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        x, weight, bias, style, scale, strength, out = ctx.saved_tensors
        wanted = list(ctx.needs_input_grad[:6])
        if not _weights_wanted:
            wanted[1] = wanted[2] = wanted[5] = False
        inputs = (gradient, x, weight, bias, style, scale, strength, out)
        rest = (ctx.kernel, ctx.noise, ctx.layer, ctx.stripes, tuple(wanted))
        if ctx.layer.recompute and torch.is_grad_enabled():
            found = checkpoint(
                _gradients, *inputs, *rest, use_reentrant=False, preserve_rng_state=False
            )
        else:
            found = _gradients(*inputs, *rest)
        return *found, None, None, None, None


def _gradients(
    gradient: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, style: Tensor | None,
    scale: Tensor | None, strength: Tensor | None, out: Tensor | None, kernel: Tensor | None,
    noise: NoiseMap | None, layer: Layer, stripes: Stripes | None, wanted: tuple[bool, ...],
) -> tuple[Tensor | None, ...]:  # fmt: skip
    """Gradients of x, weight, bias, style, scale, strength; None where not wanted."""
    of_x, of_weight, of_bias, of_style, of_scale, of_strength = wanted
    gradient = gradient.to(x.dtype)
    if layer.clamp:
        assert out is not None
        gradient = gradient.masked_fill(out.abs() >= layer.clamp, 0.0)
    # Scaled before it is bent, so that a second derivative keeps one tensor less.
    before = _times(gradient, scale)
    if layer.slope != 1.0:
        before = torch.ops.aten.leaky_relu_backward(before, out, layer.slope, True)

    noisy = strength is not None and noise is not None
    sums = noise_sums = scale_gradient = None
    if of_bias or (of_scale and bias is not None):
        sums = _unscaled(_sums(before), scale)
    if noisy and (of_strength or of_scale):
        assert noise is not None
        noise_sums = _unscaled(_sums_with(before, noise()), scale)
    if of_scale:
        assert out is not None
        assert scale is not None
        # With y = lrelu(z): dL/dz conv = (dL/dz z - dL/dz noise - dL/dz bias) / scale,
        # and dL/dz z = dL/dy y, because lrelu is homogeneous.
        total = _sums(gradient * out)
        if bias is not None and sums is not None:
            total = total - sums * bias
        if strength is not None and noise_sums is not None:
            total = total - noise_sums * strength
        scale_gradient = total / scale
    bias_gradient = sums.sum(dim=0) if of_bias and sums is not None else None
    strength_gradient = None
    if of_strength and noise_sums is not None:
        strength_gradient = noise_sums.sum().reshape(1)

    found = weights = style_gradient = None
    ready = _ready(weight, layer, x)
    if of_x or of_style:
        found = transpose(before, ready, kernel, layer.at, stripes)
        if of_style:
            style_gradient = _sums(found * x)
        found = _times(found, style) if of_x else None
    if of_weight:
        weights = weight_gradient(before, _times(x, style), ready, kernel, layer.at, stripes)
        weights = weights.to(weight.dtype)
        weights = weights if layer.gain == 1.0 else weights * layer.gain
    return found, weights, bias_gradient, style_gradient, scale_gradient, strength_gradient


def _unscaled(sums: Tensor, scale: Tensor | None) -> Tensor:
    return sums if scale is None else sums / scale
