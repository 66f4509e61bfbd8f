"""The fused convolution layer against the papers' formulas in float64, gradients included."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from sunpipe.models.filters import Mode, Resample, binomial, filtered, transposed
from sunpipe.models.geometry import Geometry
from sunpipe.models.modulated import Layer, convolution_layer, without_weight_gradients
from sunpipe.models.ops import SQRT2, minibatch_std

Tensor = torch.Tensor
GEOMETRIES = [Geometry("same", 3), Geometry("same", 1), Geometry("up", 3), Geometry("down", 3),
              Geometry("down", 1)]  # fmt: skip


def kernel_of(at: Geometry) -> Tensor | None:
    taps = {"same": None, "up": binomial(4.0), "down": binomial()}[at.mode]
    return None if taps is None else taps.double()


def tensors(at: Geometry, batch: int = 2, inputs: int = 2, outputs: int = 3, size: int = 4) -> dict:
    torch.manual_seed(0)
    out = {"same": size, "up": 2 * size, "down": size // 2}[at.mode]
    made = {
        "x": torch.randn(batch, inputs, size, size), "weight":
        torch.randn(outputs, inputs, at.size, at.size), "bias": torch.randn(outputs),
        "style": torch.randn(batch, inputs), "scale": 0.5 + torch.rand(batch, outputs),
        "strength": torch.randn(1),
    }  # fmt: skip
    leaves: dict[str, Any] = {name: t.double().requires_grad_() for name, t in made.items()}
    return leaves | {"noise": torch.randn(batch, 1, out, out).double()}


def fused(t: dict[str, Any], layer: Layer) -> Tensor:
    return convolution_layer(
        t["x"], t["weight"], layer, bias=t["bias"], style=t["style"], scale=t["scale"],
        strength=t["strength"], noise=lambda: t["noise"], kernel=kernel_of(layer.at),
    )  # fmt: skip


def plain(t: dict[str, Any], layer: Layer) -> Tensor:
    """Every step by itself; zero insertion instead of a transposed convolution."""
    x, at, taps = t["x"] * t["style"][:, :, None, None], layer.at, kernel_of(layer.at)
    weight, pad = t["weight"] * layer.gain, at.size // 2

    def blurred(x: Tensor, stride: int, padding: int) -> Tensor:
        assert taps is not None
        kernel = taps.expand(x.shape[1], 1, 4, 4)
        return F.conv2d(x, kernel, stride=stride, padding=padding, groups=x.shape[1])

    if at.mode == "up":
        batch, channels, height, width = x.shape
        wide = x.new_zeros(batch, channels, 2 * height + 1, 2 * width + 1)
        places = torch.zeros_like(wide, dtype=torch.bool)
        places[:, :, 1:-1:2, 1:-1:2] = True
        wide = wide.masked_scatter(places, x)
        x = blurred(F.conv2d(wide, weight.flip(2, 3), padding=1), 1, 1)
    elif at.mode == "down" and at.size == 3:
        x = F.conv2d(blurred(x, 1, 2), weight, stride=2)
    elif at.mode == "down":
        x = F.conv2d(blurred(x, 2, 1), weight)
    else:
        x = F.conv2d(x, weight, padding=pad)
    x = x * t["scale"][:, :, None, None] + t["noise"] * t["strength"] + t["bias"][:, None, None]
    x = torch.where(x > 0, x, layer.slope * x)
    return x.clamp(-layer.clamp, layer.clamp) if layer.clamp else x


def derivatives(y: Tensor, leaves: list[Tensor], *, skip: bool = False) -> list[Tensor]:
    """First gradients of x and style, and what a penalty on them gives to every leaf."""
    direction = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).reshape(y.shape)
    wanted = [leaves[0], leaves[3]]
    if skip:
        with without_weight_gradients():
            first = torch.autograd.grad((y * direction).sum(), wanted, create_graph=True)
    else:
        first = torch.autograd.grad((y * direction).sum(), wanted, create_graph=True)
    penalty = sum(((g - 0.3) ** 3).sum() for g in first)
    second = torch.autograd.grad(penalty, leaves, allow_unused=True, materialize_grads=True)
    return [*first, *second]


NAMES = ["x", "weight", "bias", "style", "scale", "strength"]


@pytest.mark.parametrize("at", GEOMETRIES)
@pytest.mark.parametrize(("slope", "clamp"), [(0.2, 0.0), (0.2, 0.8), (1.0, 0.0), (1.0, 0.8)])
def test_layer_equals_its_formula_to_second_derivatives(
    at: Geometry, slope: float, clamp: float
) -> None:
    t, layer = tensors(at, size=6), Layer(at, 0.7, slope, clamp)
    leaves = [t[name] for name in NAMES]
    ours, theirs = fused(t, layer), plain(t, layer)
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)
    direction = torch.randn_like(ours)
    for one, two in zip(torch.autograd.grad(ours, leaves, direction, retain_graph=True),
                        torch.autograd.grad(theirs, leaves, direction, retain_graph=True),
                        strict=True):  # fmt: skip
        torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-11)
    expected = derivatives(theirs, leaves)
    for skip in (False, True):
        for one, two in zip(derivatives(fused(t, layer), leaves, skip=skip), expected, strict=True):
            torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("at", GEOMETRIES)
@pytest.mark.parametrize("recompute", [False, True])
def test_layer_passes_gradgradcheck(at: Geometry, recompute: bool) -> None:
    t, layer = tensors(at, inputs=1, outputs=2), Layer(at, 0.7, 0.2, 0.9, recompute=recompute)
    leaves = [t[name] for name in NAMES]

    def call(*values: Tensor) -> Tensor:
        return fused({**dict(zip(NAMES, values, strict=True)), "noise": t["noise"]}, layer)

    assert torch.autograd.gradcheck(call, leaves, fast_mode=True)
    assert torch.autograd.gradgradcheck(call, leaves, fast_mode=True)


@pytest.mark.parametrize("name", NAMES)
def test_one_input_alone_may_want_a_gradient(name: str) -> None:
    at = Geometry("up")
    t, layer = tensors(at), Layer(at, clamp=1.0)
    other = {key: value.detach() for key, value in t.items()}
    other[name].requires_grad_()
    y = fused(other, layer)
    (alone,) = torch.autograd.grad(y.square().sum(), other[name], create_graph=True)
    (among,) = torch.autograd.grad(fused(t, layer).square().sum(), t[name])
    torch.testing.assert_close(alone, among)
    assert torch.autograd.gradgradcheck(
        lambda value: fused({**other, name: value}, layer), other[name], fast_mode=True
    )


@pytest.mark.parametrize("left_out", ["bias", "style", "scale", "noise"])
def test_parts_may_be_left_out(left_out: str) -> None:
    at = Geometry("same")
    t, layer = tensors(at), Layer(at)
    neutral = {"bias": t["bias"] * 0, "style": t["style"] * 0 + 1, "scale": t["scale"] * 0 + 1}
    given = {name: None if name == left_out else t[name] for name in NAMES}
    ours = convolution_layer(
        given["x"], given["weight"], layer, bias=given["bias"], style=given["style"],
        scale=given["scale"], strength=None if left_out == "noise" else t["strength"],
        noise=None if left_out == "noise" else lambda: t["noise"],
    )  # fmt: skip
    same = {**t, **({left_out: neutral[left_out]} if left_out in neutral else {})}
    if left_out == "noise":
        same["noise"] = t["noise"] * 0
    theirs = plain(same, layer)
    torch.testing.assert_close(ours, theirs)
    for one, two in zip(torch.autograd.grad(ours.square().sum(), [t["x"], t["weight"]]),
                        torch.autograd.grad(theirs.square().sum(), [t["x"], t["weight"]]),
                        strict=True):  # fmt: skip
        torch.testing.assert_close(one, two)


def test_modulation_equals_one_weight_per_sample() -> None:
    """Equations 1 and 3 of arXiv:1912.04958, taken literally."""
    t = tensors(Geometry("same"))
    energy = t["weight"].square().sum((2, 3))
    scale = (t["style"].square() @ energy.t() + 1e-8).rsqrt()
    ours = convolution_layer(
        t["x"], t["weight"], Layer(slope=1.0), style=t["style"], scale=scale
    )  # fmt: skip
    expected = []
    for sample, style in zip(t["x"], t["style"], strict=True):
        weight = t["weight"] * style[None, :, None, None]
        weight = weight / (weight.square().sum((1, 2, 3), keepdim=True) + 1e-8).sqrt()
        expected.append(F.conv2d(sample[None], weight, padding=1)[0])
    torch.testing.assert_close(ours, torch.stack(expected))


@pytest.mark.parametrize("mode", ["same", "up", "down"])
def test_filter_has_its_transpose_and_second_derivatives(mode: Mode) -> None:
    x = torch.randn(2, 2, 8, 8).double().requires_grad_()
    kernel = torch.outer(*2 * [torch.tensor([1.0, 3, 3, 1]).double() / 8])
    torch.testing.assert_close(binomial().double(), kernel)
    y = filtered(x, kernel, mode, (1, 2))
    g = torch.randn_like(y)
    back = transposed(g, kernel, mode, (1, 2))
    torch.testing.assert_close((g * y).sum(), (back * x).sum())  # <A x, g> = <x, A' g>
    assert torch.autograd.gradgradcheck(
        lambda x: filtered(x, kernel, mode, (1, 2)).square(), x, fast_mode=True
    )


def test_resampling_keeps_a_constant_inside() -> None:
    x = torch.full((1, 2, 8, 8), 3.0)
    up, down = Resample("up")(x), Resample("down")(x)
    assert up.shape[2:] == (16, 16)
    assert down.shape[2:] == (4, 4)
    torch.testing.assert_close(up[:, :, 2:-2, 2:-2], torch.full((1, 2, 12, 12), 3.0))
    torch.testing.assert_close(down[:, :, 1:-1, 1:-1], torch.full((1, 2, 2, 2), 3.0))


def test_minibatch_std_is_twice_differentiable_and_its_formula() -> None:
    x = torch.randn(4, 2, 3, 3).double().requires_grad_()
    expected = torch.zeros(4).double()
    for first in (0, 1):  # group g holds samples g and g + 2
        pair = x.detach()[first::2]
        spread = ((pair - pair.mean(0)).square().mean(0) + 1e-8).sqrt().mean()
        expected[first::2] = spread
    torch.testing.assert_close(minibatch_std(x, 2)[:, 2, 0, 0], expected)
    assert torch.autograd.gradgradcheck(lambda x: minibatch_std(x, 2), x, fast_mode=True)


def kept_bytes(call: Callable[[], Tensor], given: list[Tensor]) -> int:
    known = {t.untyped_storage().data_ptr() for t in given}
    kept: dict[int, int] = {}

    def pack(t: Tensor) -> Tensor:
        storage = t.untyped_storage()
        if storage.data_ptr() not in known:
            kept[storage.data_ptr()] = storage.nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        y = call()
    assert y.requires_grad
    return sum(kept.values())


@pytest.mark.parametrize("at", GEOMETRIES)
def test_layer_keeps_its_output_only(at: Geometry) -> None:
    t, layer = tensors(at, inputs=8, outputs=8, size=16), Layer(at, clamp=256.0)
    given = [value for value in t.values() if isinstance(value, Tensor)]
    output = fused(t, layer).untyped_storage().nbytes()
    assert kept_bytes(lambda: fused(t, layer), given) == output
    assert kept_bytes(lambda: plain(t, layer), given) > 3 * output


@pytest.mark.parametrize("at", GEOMETRIES)
@pytest.mark.parametrize("slope", [0.2, 1.0])
def test_bfloat16_is_within_a_hundredth(at: Geometry, slope: float) -> None:
    t, layer = tensors(at, inputs=16, outputs=16, size=16), Layer(at, 1 / (4 * at.size), slope)
    t["strength"].data *= 0.1  # as after training: noise is small beside the features
    leaves = [t[name] for name in NAMES]
    small = {name: t[name].detach().float().requires_grad_() for name in NAMES[1:]}
    half = {**small, "x": t["x"].detach().bfloat16().requires_grad_(), "noise": t["noise"].float()}
    exact, rough = fused(t, layer), fused(half, layer)
    direction = torch.randn_like(exact)
    pairs = [(exact, rough), *zip(
        torch.autograd.grad(exact, leaves, direction),
        torch.autograd.grad(rough, [half[name] for name in NAMES], direction.bfloat16()),
        strict=True,
    )]  # fmt: skip
    for name, (one, two) in zip(["y", *NAMES], pairs, strict=True):
        assert two.dtype == (torch.bfloat16 if name in ("y", "x") else torch.float32)
        if slope != 1.0 and name != "y":
            continue  # near 0 rounding takes a value over the kink: another slope, no error
        # gradients of small tensors are sums that nearly cancel here
        bound = 1e-2 if name in ("y", "x", "weight") else 3e-2
        assert float((one - two).detach().norm() / one.detach().norm()) < bound, name


def test_factor_of_the_leaky_relu_may_be_taken_inside() -> None:
    z = torch.randn(100)
    torch.testing.assert_close(F.leaky_relu(SQRT2 * z, 0.2), SQRT2 * F.leaky_relu(z, 0.2))
