"""Invertible normalisation between physical units and the network's range.

A value x of a channel becomes ``zero + (1 - zero) f(x / scale) / f(limit / scale)``
with f one of asinh, sign(x) log(1 + abs(x)), and the identity. Nothing is clipped:
what lies beyond `limit` maps beyond 1 and comes back.
"""

from __future__ import annotations

import functools

import torch

from sunpipe.normalize_settings import NormalizeSettings

# Unit roundoff and half the least subnormal (IEEE 754-2019, table 3.5; bfloat16 has 8 bits).
ROUNDOFF = {torch.float16: (2.0**-11, 2.0**-25), torch.bfloat16: (2.0**-8, 2.0**-134),
            torch.float32: (2.0**-24, 2.0**-150)}  # fmt: skip


def _bend(x: torch.Tensor, kind: str) -> torch.Tensor:
    if kind == "asinh":
        return torch.asinh(x)
    if kind == "signed_log":
        return torch.sign(x) * torch.log1p(torch.abs(x))
    return x


def _unbend(x: torch.Tensor, kind: str) -> torch.Tensor:
    if kind == "asinh":
        return torch.sinh(x)
    if kind == "signed_log":
        return torch.sign(x) * torch.expm1(torch.abs(x))
    return x


def _top(scale: float, limit: float, kind: str) -> float:
    """``f(limit / scale)``."""
    return float(_bend(torch.tensor(limit / scale, dtype=torch.float64), kind))


@functools.lru_cache(maxsize=64)
def _parameters(
    settings: NormalizeSettings, dtype: torch.dtype, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Scale, zero and gain ``(1 - zero) / f(limit / scale)``, shaped (C, 1, 1) or ()."""
    count = settings.channels
    columns = [
        value if isinstance(value, tuple) else (value,) * (count or 1)
        for value in (settings.scale, settings.limit, settings.zero)
    ]
    scale, _, zero = columns
    gain = [(1 - z) / _top(s, m, settings.kind) for s, m, z in zip(*columns, strict=True)]
    shape = () if count is None else (count, 1, 1)
    with torch.inference_mode(False):  # they are kept, and may be met by autograd later
        made = [
            torch.tensor(values, dtype=torch.float64).reshape(shape).to(device=device, dtype=dtype)
            for values in (scale, zero, gain)
        ]
    return made[0], made[1], made[2]


def _fitting(
    image: torch.Tensor, settings: NormalizeSettings
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    count = settings.channels
    if count is not None and (image.ndim < 3 or image.shape[-3] != count):
        raise ValueError(
            f"normalize lists {count} channels; the images are of shape {tuple(image.shape)}"
        )
    # Half-precision images are computed in float32: sinh loses all of float16 otherwise.
    dtype = torch.float64 if image.dtype == torch.float64 else torch.float32
    return _parameters(settings, dtype, image.device)


def encode(field: torch.Tensor, settings: NormalizeSettings) -> torch.Tensor:
    """Physical units to network range.

    Parameters
    ----------
    field : tensor (..., C, H, W)
        Gauss or DN/s; of any shape when `settings` lists no channels.
    settings : NormalizeSettings

    Returns
    -------
    tensor
        float32, or float64 for float64. 0 maps to ``zero``, ``limit`` to 1.

    Raises
    ------
    ValueError
        When the lists of `settings` do not fit the channels.
    """
    scale, zero, gain = _fitting(field, settings)
    return zero + gain * _bend(field.to(scale.dtype) / scale, settings.kind)


def decode(image: torch.Tensor, settings: NormalizeSettings) -> torch.Tensor:
    """Inverse of `encode`: network range, in any precision, back to physical units."""
    scale, zero, gain = _fitting(image, settings)
    return _unbend((image.to(scale.dtype) - zero) / gain, settings.kind) * scale


def rounding_error(
    field: torch.Tensor, settings: NormalizeSettings, dtype: torch.dtype = torch.float16
) -> torch.Tensor:
    """Largest error of ``decode(encode(field).to(dtype))``, in the unit of `field`.

    Rounding the network value y moves it by at most ``e = u abs(y) + s`` (u unit
    roundoff, s half the least subnormal), and x by ``abs(dx/dy) e`` with the
    largest slope within reach:

    - asinh: ``scale / gain * cosh(abs(b) + e / gain) * e``,
    - signed log: ``scale / gain * exp(abs(b) + e / gain) * e``,
    - linear: ``scale / gain * e``,

    where b is the bent value. The float32 arithmetic on both sides is in `e` as
    well, as four roundings of values no larger than ``1 + abs(y)``.

    Parameters
    ----------
    field : tensor
        Physical values.
    settings : NormalizeSettings
    dtype : torch.dtype
        float16, bfloat16 or float32.
    """
    field = field.to(torch.float64)
    scale, zero, gain = _fitting(field, settings)
    roundoff, least = ROUNDOFF[dtype]
    bent = _bend(field / scale, settings.kind)
    image = zero + gain * bent
    move = roundoff * image.abs() + least + 4 * 2.0**-24 * (1 + image.abs())
    reach = bent.abs() + move / gain
    if settings.kind == "asinh":
        slope = torch.cosh(reach)
    elif settings.kind == "signed_log":
        slope = torch.exp(reach)
    else:
        slope = torch.ones_like(reach)
    arithmetic = 4 * 2.0**-24 * field.abs() * (1 + (reach if settings.kind != "linear" else 0.0))
    return scale / gain * slope * move + arithmetic


def describe(settings: NormalizeSettings, unit: str = "") -> str:
    """One line for people, such as ``asinh, bends at 100 G, 3000 G to 1, 0 to 0``."""

    def words(value: float | tuple[float, ...]) -> str:
        listed = value if isinstance(value, tuple) else (value,)
        return " / ".join(f"{one:g}" for one in listed) + (f" {unit}" if unit else "")

    zero = settings.zero if isinstance(settings.zero, tuple) else (settings.zero,)
    bend = "" if settings.kind == "linear" else f", bends at {words(settings.scale)}"
    to = " / ".join(f"{one:g}" for one in zero)
    return f"{settings.kind}{bend}, {words(settings.limit)} to 1, 0 to {to}"
