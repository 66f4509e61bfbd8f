"""One quantity from its plane to what was measured on its walks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from sunpipe.latent.calibrate import curve
from sunpipe.latent.direction import (
    Floats,
    conditional,
    random_directions,
    unit,
)
from sunpipe.latent.judge import judge
from sunpipe.latent.prepare import Prepared
from sunpipe.latent.walks import Walk

RANDOM = "random"
Walker = Callable[..., Walk]


@dataclass(frozen=True)
class Fitted:
    """One quantity's scores, vectors (plain, conditional, normal) and walks.

    The random control has a walk alone.
    """

    name: str
    about: dict[str, Any]
    vectors: dict[str, Floats]
    walks: list[Walk]


def fit_quantity(
    p: Prepared, name: str, walker: Walker, layers: list[dict[str, Any]] | None = None
) -> Fitted:
    """Judge one quantity's direction, make the conditional one, walk both.

    Parameters
    ----------
    p : Prepared
    name : str
        One of ``p.names``.
    walker : callable
        ``walker(moves, target=, kind=)`` to `Walk`.
    layers : list of dict, optional
        Its table of `sunpipe.latent.layers`.
    """
    place = p.names.index(name)
    normal = p.planes.normals[place]
    others = [other for other in p.names if other != name]
    plain = conditional(normal, normal[:0].reshape(0, len(normal)), p.root)
    assert plain is not None  # a normal is never in the span of nothing
    moves = {"plain": plain}
    about: dict[str, Any] = {
        "unit": p.samples.units[p.samples.names.index(name)],
        **judge(p, name),
        "conditional_against": others,
        "layers": layers or [],
    }
    rest = conditional(normal, np.delete(p.planes.normals, place, axis=0), p.root)
    if not others:
        about["no_conditional"] = "it is the only quantity"
    elif rest is None:
        about["no_conditional"] = "its direction is a combination of the others'"
    else:
        moves["conditional"] = rest
        about["cosine_conditional"] = float(plain @ rest)
    about["sigma"] = {kind: p.axes.sigma(v) for kind, v in moves.items()}
    about["effort"] = {kind: p.axes.effort(v) for kind, v in {**moves, "normal": normal}.items()}
    walks = [
        walker(vector * about["sigma"][kind], target=name, kind=kind)
        for kind, vector in moves.items()
    ]
    about["calibration"] = {found.kind: curve(found.steps, found.column(name)) for found in walks}
    return Fitted(name, about, {**moves, "normal": normal}, walks)


def fit_random(p: Prepared, walker: Walker) -> Fitted:
    """Walk the control: every base along a random direction of its own."""
    drawn = random_directions(len(p.base_rows), p.x.shape[1], p.seed + 1)
    directions = unit(drawn @ p.root)
    moves = directions * np.array([[p.axes.sigma(each)] for each in directions])
    return Fitted(RANDOM, {}, {}, [walker(moves, target=RANDOM, kind=RANDOM)])
