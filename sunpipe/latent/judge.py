"""How good a direction is, beside its controls, on held-out samples."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sunpipe.latent import labels
from sunpipe.latent.direction import Floats, angle, random_directions, unit
from sunpipe.latent.prepare import Prepared
from sunpipe.latent.ridge import fit_ridge, normal_scores
from sunpipe.latent.svm import Planes, accuracy, bootstrap_weights, fit_svm
from sunpipe.shards.order import generator_seed

RANDOM_JUDGES = 64  # random directions whose accuracy is averaged


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

    def control(continuous: Floats) -> dict[str, Any]:
        ridge = fit_ridge(p.samples.w, continuous, p.test, p.scale)
        found = ridge.plane.score(p.samples.w)[:, 0]
        return {
            "r2": ridge.r2, "penalty": ridge.penalty,
            "accuracy_extremes": accuracy(found, judged[0]),
            "accuracy_middle": accuracy(found, judged[1]),
            "cosine": float(plane.normals[0] @ ridge.plane.normals[0]),
        }  # fmt: skip

    about = {
        "intercept": float(plane.intercepts[0]),
        "accuracy": {
            "extremes": accuracy(score, judged[0]), "middle": accuracy(score, judged[1]),
            "random_extremes": random_extremes, "random_middle": random_middle,
            "train_count": int(np.count_nonzero(train)),
            "extremes_count": int(np.count_nonzero(judged[0])),
            "middle_count": int(np.count_nonzero(judged[1])),
        },
        "ridge": control(values),
        "ridge_ranks": control(normal_scores(values)),
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
