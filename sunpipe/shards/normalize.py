"""Invertible normalisation between physical units and the network's range."""

from __future__ import annotations

import torch

from sunpipe.settings import NormalizeSettings


def _bend(x: torch.Tensor, kind: str) -> torch.Tensor:
    if kind == "asinh":
        return torch.asinh(x)
    if kind == "signed_log":
        return torch.sign(x) * torch.log1p(torch.abs(x))
    return x


def encode(field: torch.Tensor, settings: NormalizeSettings) -> torch.Tensor:
    """Physical units to network range: ``f(x / scale) / f(limit / scale)``.

    `f` is asinh, sign(x) log(1 + abs(x)), or the identity. Zero stays zero and
    ``limit`` becomes 1.
    """
    scaled = _bend(field / settings.scale, settings.kind)
    top = _bend(torch.tensor(settings.limit / settings.scale, dtype=torch.float64), settings.kind)
    return scaled / float(top)


def decode(image: torch.Tensor, settings: NormalizeSettings) -> torch.Tensor:
    """Inverse of `encode`: network range back to physical units."""
    top = _bend(torch.tensor(settings.limit / settings.scale, dtype=torch.float64), settings.kind)
    bent = image * float(top)
    if settings.kind == "asinh":
        return torch.sinh(bent) * settings.scale
    if settings.kind == "signed_log":
        return torch.sign(bent) * torch.expm1(torch.abs(bent)) * settings.scale
    return bent * settings.scale
