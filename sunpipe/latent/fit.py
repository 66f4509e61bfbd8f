"""One quantity from its plane to what was measured on its walks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from sunpipe.latent.bootstrap import bootstrap_planes
from sunpipe.latent.calibrate import curve
from sunpipe.latent.components import component_vectors
from sunpipe.latent.direction import (
    Floats,
    conditional,
    random_directions,
    unit,
)
from sunpipe.latent.judge import judge, rivals
from sunpipe.latent.layers import layer_tables
from sunpipe.latent.prepare import Prepared
from sunpipe.latent.svm import Planes
from sunpipe.latent.walks import Walk

RANDOM = "random"
Walker = Callable[..., Walk]


@dataclass(frozen=True)
class Fitted:
    """One quantity's scores, vectors (plain, conditional, normal) and walks.

    A principal component has one vector and one walk, the random control a walk alone.
    """

    name: str
    about: dict[str, Any]
    vectors: dict[str, Floats]
    walks: list[Walk]


class Together(NamedTuple):
    """What is solved for many quantities at once, by quantity.

    Attributes
    ----------
    refits : dict
        Of `sunpipe.latent.bootstrap.bootstrap_planes`.
    rivals : dict
        Of `sunpipe.latent.judge.rivals`.
    layers : dict
        Of `sunpipe.latent.layers.layer_tables`.
    """

    refits: dict[str, Planes]
    rivals: dict[str, dict[str, Planes]]
    layers: dict[str, list[dict[str, Any]]]

    @classmethod
    def of(cls, p: Prepared, names: list[str]) -> Together:
        """Solve for these quantities."""
        return cls(bootstrap_planes(p, names), rivals(p, names), layer_tables(p, names))


def fit_quantity(p: Prepared, name: str, walker: Walker, together: Together) -> Fitted:
    """Judge one quantity's direction, make the conditional one, walk both.

    Parameters
    ----------
    p : Prepared
    name : str
        One of ``p.names``.
    walker : callable
        ``walker(moves, target=, kind=)`` to `Walk`.
    together : Together
        Holds `name`.
    """
    place = p.names.index(name)
    normal = p.planes.normals[place]
    others = [other for other in p.names if other != name]
    plain = conditional(normal, normal[:0].reshape(0, len(normal)), p.root)
    assert plain is not None  # a normal is never in the span of nothing
    moves = {"plain": plain}
    about: dict[str, Any] = {
        "unit": p.samples.units[p.samples.names.index(name)],
        **judge(p, name, together.refits.get(name), together.rivals[name]),
        "conditional_against": others,
        "layers": together.layers[name],
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


def fit_component(p: Prepared, number: int, name: str, walker: Walker) -> Fitted:
    """Walk principal component `number`, from 0."""
    vector = component_vectors(p)[number]
    walked = walker(vector * p.axes.sigma(vector), target=name, kind="plain")
    return Fitted(name, {}, {"plain": vector}, [walked])


def fit_random(p: Prepared, walker: Walker) -> Fitted:
    """Walk the control: every base along a random direction of its own."""
    drawn = random_directions(len(p.base_rows), p.x.shape[1], p.seed + 1)
    directions = unit(drawn @ p.root)
    moves = directions * np.array([[p.axes.sigma(each)] for each in directions])
    return Fitted(RANDOM, {}, {}, [walker(moves, target=RANDOM, kind=RANDOM)])
