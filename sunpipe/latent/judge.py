"""How good a direction is, beside its controls, on held-out samples."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sunpipe.latent import labels
from sunpipe.latent.bootstrap import bootstrap_planes, joined, learned_from
from sunpipe.latent.components import component_name, component_vectors
from sunpipe.latent.direction import Floats, angle, random_directions, unit
from sunpipe.latent.prepare import Prepared
from sunpipe.latent.ranks import spearman
from sunpipe.latent.ridge import fit_ridges, normal_scores
from sunpipe.latent.svm import Planes, accuracy, project, solve_planes

RANDOM_JUDGES = 64  # random directions whose accuracy is averaged
LEARNERS = ("svm", "svr")


def rivals(p: Prepared, names: list[str]) -> dict[str, dict[str, Planes]]:
    """The SVM and the support vector regression of every quantity, in one batched solve.

    Parameters
    ----------
    p : Prepared
    names : list of str
        Of ``p.names``.

    Returns
    -------
    dict
        Quantity to learner (``svm``, ``svr``) to one plane.
    """
    if not names:
        return {}
    asked = [(name, learner) for name in names for learner in LEARNERS]
    problems = joined([learned_from(p, name, learner) for name, learner in asked])
    found = solve_planes(p.x, problems, p.scale, p.settings.solver, p.axes.movable)
    planes: dict[str, dict[str, Planes]] = {name: {} for name in names}
    for at, (name, learner) in enumerate(asked):
        planes[name][learner] = Planes(found.normals[[at]], found.intercepts[[at]])
    return planes


def _placed(x: Floats, directions: Floats, train: NDArray[np.int8]) -> Planes:
    """Directions (K, D) oriented and placed half-way between the training extremes."""
    score = project(x, directions)
    top, bottom = score[train == 1].mean(axis=0), score[train == -1].mean(axis=0)
    sign = np.where(top >= bottom, 1.0, -1.0)
    return Planes(directions * sign[:, None], -sign * (top + bottom) / 2)


def _best_component(p: Prepared, values: Floats, train: NDArray[np.int8]) -> tuple[int, Planes]:
    """Number and plane of the principal component that ranks the training samples best."""
    vectors = component_vectors(p)
    found = spearman(project(p.x, vectors), values, ~p.test)
    number = 0 if found is None else int(np.abs(found).argmax())
    return number, _placed(p.x, vectors[[number]], train)


def _mean(found: list[float | None]) -> float | None:
    known = [each for each in found if each is not None]
    return float(np.mean(known)) if known else None


def judge(
    p: Prepared,
    name: str,
    refits: Planes | None = None,
    planes: dict[str, Planes] | None = None,
) -> dict[str, Any]:
    """Scores of one walked direction, its rivals and its controls, on held-out samples.

    Parameters
    ----------
    p : Prepared
    name : str
        One of ``p.names``.
    refits : Planes, optional
        This quantity's `sunpipe.latent.bootstrap.bootstrap_planes`.
    planes : dict, optional
        This quantity's `rivals`. What is not given is fitted here, alone.

    Returns
    -------
    dict
        JSON-able. ``accuracy``: the walked plane and random directions; ``svm``, ``svr``,
        ``ridge`` (on values), ``ridge_ranks`` (on normal scores) and ``component`` (the
        principal component that ranks the training samples best; None without
        components): ``accuracy_extremes``, ``accuracy_middle``, ``spearman`` of the score
        with the value, ``cosine`` of the normal with the walked one's; ``random``: means
        over random directions; ``bootstrap_angle_deg``.
    """
    values, marks = p.samples.column(name), p.extreme[name]
    place = p.names.index(name)
    plane = Planes(p.planes.normals[[place]], p.planes.intercepts[[place]])
    train = np.where(p.test, 0, marks)
    judged = [np.where(p.test, marks, 0), np.where(p.test, labels.middle(values, marks), 0)]

    def scores(*contenders: Planes) -> list[dict[str, Any]]:
        every = Planes(*(np.concatenate(each) for each in zip(*contenders, strict=True)))
        score = every.score(p.x)
        ranked = spearman(score, values, p.test)
        return [
            {
                "accuracy_extremes": accuracy(score[:, at], judged[0]),
                "accuracy_middle": accuracy(score[:, at], judged[1]),
                "spearman": None if ranked is None else float(ranked[at]),
                "cosine": float(normal @ plane.normals[0]),
            }
            for at, normal in enumerate(every.normals)
        ]

    planes = rivals(p, [name])[name] if planes is None else planes
    targets = np.stack([values, normal_scores(values)])
    ridges = fit_ridges(p.x, targets, p.test, p.scale, p.axes.movable)
    contenders = {"walked": plane, **planes}
    contenders.update(zip(("ridge", "ridge_ranks"), (each.plane for each in ridges), strict=True))
    number = None
    if p.settings.components:
        number, contenders["component"] = _best_component(p, values, train)
    blind = _placed(p.x, random_directions(RANDOM_JUDGES, p.x.shape[1], p.seed), train)
    found = scores(*contenders.values(), blind)
    told = dict(zip(contenders, found, strict=False))
    chance = {key: _mean([each[key] for each in found[len(contenders) :]])
              for key in ("accuracy_extremes", "accuracy_middle", "spearman")}  # fmt: skip
    for key, ridge in zip(("ridge", "ridge_ranks"), ridges, strict=True):
        told[key] = {"r2": ridge.r2, "penalty": ridge.penalty, **told[key]}
    if number is not None:
        told["component"] = {"name": component_name(number), **told["component"]}
    walked = told.pop("walked")
    about: dict[str, Any] = {
        "learner": p.settings.learner,
        "intercept": float(plane.intercepts[0]),
        "accuracy": {
            "extremes": walked["accuracy_extremes"], "middle": walked["accuracy_middle"],
            "spearman": walked["spearman"],
            "random_extremes": chance["accuracy_extremes"],
            "random_middle": chance["accuracy_middle"],
            "train_count": int(np.count_nonzero(train)),
            "extremes_count": int(np.count_nonzero(judged[0])),
            "middle_count": int(np.count_nonzero(judged[1])),
        },
        "component": None, **told, "random": chance,
    }  # fmt: skip
    if refits is None:
        refits = bootstrap_planes(p, [name]).get(name)
    if refits is not None:
        metric = p.root @ p.root
        turned = angle(unit(refits.normals @ metric), unit(plane.normals @ metric))
        about["bootstrap_angle_deg"] = {
            "median": float(np.median(turned)), "p95": float(np.percentile(turned, 95)),
            "normal_median": float(np.median(angle(refits.normals, plane.normals))),
            "replicates": len(refits.normals),
        }  # fmt: skip
    return about
