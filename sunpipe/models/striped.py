"""Convolutions of striped features, and their transposes.

Like the functions of `sunpipe.models.geometry`, of which each calls one twice: on
the own rows and on a strip of the edges; without stripes, once.
"""

from __future__ import annotations

import torch

from sunpipe.models import exchange, geometry
from sunpipe.models.geometry import Geometry
from sunpipe.models.stripes import Stripes, between

Tensor = torch.Tensor


def reach(at: Geometry) -> int:
    """Rows of a neighbour that are exchanged, see `Stripes.apply`."""
    if at.mode == "same":
        return at.size // 2
    return 1 if at.mode == "up" else 2


def edge(at: Geometry) -> int:
    """Rows of the result that a neighbour's rows may change."""
    return {"same": reach(at), "up": 2 * reach(at), "down": reach(at) // 2}[at.mode]


def _edges(gradient: Tensor, rows: int) -> Tensor:
    top, bottom = gradient[:, :, :rows], gradient[:, :, -rows:]
    zeros = torch.zeros_like(top)
    return torch.cat([zeros, top, bottom, zeros], dim=2)


def convolve(
    x: Tensor,
    weight: Tensor,
    kernel: Tensor | None,
    at: Geometry,
    bias: Tensor | None = None,
    stripes: Stripes | None = None,
) -> Tensor:
    """`geometry.convolve` of whole images, or of own rows (B, I, h, W)."""
    if stripes is None or not reach(at):
        return geometry.convolve(x, weight, kernel, at, bias)
    x, halo = exchange.halo(x, stripes, reach(at))
    strip = geometry.convolve(between(halo), weight, kernel, at)
    edges = strip[:, :, edge(at) : 3 * edge(at)]
    return exchange.add_edges(geometry.convolve(x, weight, kernel, at, bias), edges)


def transpose(
    gradient: Tensor,
    weight: Tensor,
    kernel: Tensor | None,
    at: Geometry,
    stripes: Stripes | None = None,
) -> Tensor:
    """Transpose of `convolve` in x: `geometry.transpose` of whole images, or of own rows."""
    found = geometry.transpose(gradient, weight, kernel, at)
    if stripes is None or not reach(at):
        return found
    strip = geometry.transpose(_edges(gradient, edge(at)), weight, kernel, at)
    halo = torch.cat([strip[:, :, : reach(at)], strip[:, :, -reach(at) :]], dim=2)
    return exchange.give_back(found, halo, stripes, reach(at), True)


def weight_gradient(
    gradient: Tensor,
    x: Tensor,
    weight: Tensor,
    kernel: Tensor | None,
    at: Geometry,
    stripes: Stripes | None = None,
) -> Tensor:
    """`geometry.weight_gradient` of whole images, or the part that own rows of the result have."""
    if stripes is None or not reach(at):
        return geometry.weight_gradient(gradient, x, weight, kernel, at)
    x, halo = exchange.halo(x, stripes, reach(at))
    own = geometry.weight_gradient(gradient, x, weight, kernel, at)
    strip = _edges(gradient, edge(at))
    return own + geometry.weight_gradient(strip, between(halo), weight, kernel, at)
