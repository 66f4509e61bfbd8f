"""From samples to directions: learn, judge, and walk each quantity."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sunpipe.errors import DataError
from sunpipe.latent import labels
from sunpipe.latent.calibrate import curve
from sunpipe.latent.direction import (
    Floats,
    angle,
    conditional,
    effort,
    random_directions,
    root_covariance,
    spread,
    unit,
)
from sunpipe.latent.ridge import fit_ridge
from sunpipe.latent.samples import Samples
from sunpipe.latent.svm import Planes, Scale, accuracy, bootstrap_weights, fit_svm
from sunpipe.latent.walks import Walk
from sunpipe.settings import DirectionsSettings
from sunpipe.shards.order import generator_seed

RANDOM = "random"
RANDOM_JUDGES = 64  # random directions whose accuracy is averaged
Walker = Callable[..., Walk]


@dataclass(frozen=True)
class Prepared:
    """What every quantity's fit shares; the same in every array task.

    Attributes
    ----------
    samples : Samples
    settings : DirectionsSettings
    seed : int
    test : ndarray of bool, shape (N,)
        Held-out samples.
    scale : Scale
        Standardisation from the training samples.
    extreme : dict
        Quantity to its labels (N,), for those that can be fitted.
    left_out : dict
        Quantity to the reason why it cannot.
    planes : Planes
        One per quantity in `extreme`, in that order.
    root : ndarray, shape (D, D)
        Square root of the metric in which w moves.
    """

    samples: Samples
    settings: DirectionsSettings
    seed: int
    test: NDArray[np.bool_]
    scale: Scale
    extreme: dict[str, NDArray[np.int8]]
    left_out: dict[str, str]
    planes: Planes
    root: Floats

    @property
    def names(self) -> list[str]:
        """Quantities that get a direction."""
        return list(self.extreme)

    @property
    def base_rows(self) -> NDArray[np.int64]:
        """Samples the walks start from: held out, so that no direction was trained on them."""
        return np.flatnonzero(self.test)[: self.settings.traverse_count].astype(np.int64)


@dataclass(frozen=True)
class Fitted:
    """One quantity's scores, vectors (plain, conditional, normal) and walks.

    The random control has a walk alone.
    """

    name: str
    about: dict[str, Any]
    vectors: dict[str, Floats]
    walks: list[Walk]


def prepare(samples: Samples, settings: DirectionsSettings, seed: int) -> Prepared:
    """Choose held-out samples, label extremes, and fit all plain directions at once.

    Raises
    ------
    DataError
        When no quantity can be fitted; every reason is named.
    """
    unmeasured = [name for name in settings.quantities if name not in samples.names]
    if unmeasured:
        raise DataError(
            f"{', '.join(unmeasured)} not measured in the samples; add to sample.quantities and"
            " run sunpipe sample again"
        )
    if len(samples) < 4:
        raise DataError(f"{len(samples)} samples are too few; raise sample.count")
    test = labels.held_out(len(samples), settings.test_share, seed)
    extreme: dict[str, NDArray[np.int8]] = {}
    left_out: dict[str, str] = {}
    for name in settings.quantities:
        values = samples.column(name)
        marks = labels.extremes(values, settings.extremes)
        why = labels.unfit(values, marks, test, samples.w.shape[1], settings.max_undefined)
        if why is None:
            extreme[name] = marks
        else:
            left_out[name] = why
    if not extreme:
        reasons = "; ".join(f"{name}: {why}" for name, why in left_out.items())
        raise DataError(f"no direction can be fitted: {reasons}")
    scale = Scale.of(samples.w[~test])
    weights = np.where(test, 0, np.stack(list(extreme.values())))
    planes = fit_svm(samples.w, weights, settings.svm_c, scale, settings.solver)
    isotropic = settings.metric == "euclidean"
    root = np.eye(samples.w.shape[1]) if isotropic else root_covariance(samples.w)
    return Prepared(samples, settings, seed, test, scale, extreme, left_out, planes, root)


def _random_accuracy(p: Prepared, train: NDArray[np.int8], judged: list[NDArray[np.int8]]) -> Any:
    """Mean accuracy of random directions, each oriented and placed by the training extremes."""
    directions = random_directions(RANDOM_JUDGES, p.samples.w.shape[1], p.seed)
    score = np.asarray(p.samples.w, np.float64) @ directions.T
    top, bottom = score[train == 1].mean(axis=0), score[train == -1].mean(axis=0)
    score = (score - (top + bottom) / 2) * np.where(top >= bottom, 1.0, -1.0)
    found = [[accuracy(column, marks) for column in score.T] for marks in judged]
    return [None if row[0] is None else float(np.mean([x or 0.0 for x in row])) for row in found]


def judge(p: Prepared, name: str) -> dict[str, Any]:
    """Scores of one plain direction and of its controls, on held-out samples; JSON-able."""
    values, marks = p.samples.column(name), p.extreme[name]
    place = p.names.index(name)
    plane = Planes(p.planes.normals[[place]], p.planes.intercepts[[place]])
    train = np.where(p.test, 0, marks)
    judged = [np.where(p.test, marks, 0), np.where(p.test, labels.middle(values, marks), 0)]
    score = plane.score(p.samples.w)[:, 0]
    random_extremes, random_middle = _random_accuracy(p, train, judged)
    ridge = fit_ridge(p.samples.w, values, p.test, p.scale)
    ridge_score = ridge.plane.score(p.samples.w)[:, 0]
    about = {
        "intercept": float(plane.intercepts[0]),
        "accuracy": {
            "extremes": accuracy(score, judged[0]), "middle": accuracy(score, judged[1]),
            "random_extremes": random_extremes, "random_middle": random_middle,
            "train_count": int(np.count_nonzero(train)),
            "extremes_count": int(np.count_nonzero(judged[0])),
            "middle_count": int(np.count_nonzero(judged[1])),
        },
        "ridge": {
            "r2": ridge.r2, "penalty": ridge.penalty,
            "accuracy_extremes": accuracy(ridge_score, judged[0]),
            "accuracy_middle": accuracy(ridge_score, judged[1]),
            "cosine": float(plane.normals[0] @ ridge.plane.normals[0]),
        },
    }  # fmt: skip
    if p.settings.bootstrap:
        seed = generator_seed(p.seed, 0, 0, f"bootstrap {name}")
        weights = bootstrap_weights(train, p.settings.bootstrap, seed)
        refits = fit_svm(p.samples.w, weights, p.settings.svm_c, p.scale, p.settings.solver)
        turned = angle(
            unit(refits.normals @ p.root @ p.root), unit(plane.normals @ p.root @ p.root)
        )
        about["bootstrap_angle_deg"] = {
            "median": float(np.median(turned)), "p95": float(np.percentile(turned, 95)),
            "normal_median": float(np.median(angle(refits.normals, plane.normals))),
            "replicates": p.settings.bootstrap,
        }  # fmt: skip
    return about


def fit_quantity(p: Prepared, name: str, walker: Walker) -> Fitted:
    """Judge one quantity's direction, make the conditional one, walk both.

    Parameters
    ----------
    p : Prepared
    name : str
        One of ``p.names``.
    walker : callable
        ``walker(moves, target=, kind=)`` to `Walk`.
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
    }
    rest = conditional(normal, np.delete(p.planes.normals, place, axis=0), p.root)
    if not others:
        about["no_conditional"] = "it is the only quantity"
    elif rest is None:
        about["no_conditional"] = "its direction is a combination of the others'"
    else:
        moves["conditional"] = rest
        about["cosine_conditional"] = float(plain @ rest)
    covariance = root_covariance(p.samples.w)
    about["sigma"] = {kind: float(spread(p.samples.w, v)) for kind, v in moves.items()}
    about["effort"] = {
        kind: effort(v, covariance) for kind, v in {**moves, "normal": normal}.items()
    }
    walks = [
        walker(vector * about["sigma"][kind], target=name, kind=kind)
        for kind, vector in moves.items()
    ]
    about["calibration"] = {found.kind: curve(found.steps, found.column(name)) for found in walks}
    return Fitted(name, about, {**moves, "normal": normal}, walks)


def fit_random(p: Prepared, walker: Walker) -> Fitted:
    """Walk the control: every base along a random direction of its own."""
    drawn = random_directions(len(p.base_rows), p.samples.w.shape[1], p.seed + 1)
    directions = unit(drawn @ p.root)
    moves = directions * spread(p.samples.w, directions)[:, None]
    return Fitted(RANDOM, {}, {}, [walker(moves, target=RANDOM, kind=RANDOM)])
