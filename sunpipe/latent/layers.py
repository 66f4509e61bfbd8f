"""Which layer of w_plus tells a quantity: a linear SVM on each layer alone."""

from __future__ import annotations

from typing import Any

import numpy as np

from sunpipe.latent import labels
from sunpipe.latent.prepare import Prepared
from sunpipe.latent.svm import Scale, accuracy, fit_svm


def layer_tables(p: Prepared, names: list[str]) -> dict[str, list[dict[str, Any]]]:
    """For each quantity, a row per layer: its held-out accuracies, JSON-able; none outside w_plus.

    All quantities are fitted in one batched solve per layer. A layer that cannot tell
    high from low is at 0.5, whatever the others do.
    """
    if p.space.name != "w_plus" or not names:
        return {name: [] for name in names}
    layers = p.space.layers or tuple(range(p.space.num_ws))
    marks = np.stack([p.extreme[name] for name in names])
    train = np.where(p.test, 0, marks)
    judged = [
        (np.where(p.test, row, 0), np.where(p.test, labels.middle(p.samples.column(name), row), 0))
        for name, row in zip(names, marks, strict=True)
    ]
    tables: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for layer in layers:
        columns = slice(layer * p.space.w_dim, (layer + 1) * p.space.w_dim)
        x = p.x[:, columns]
        scale = Scale(p.scale.mean[columns], p.scale.std[columns])
        score = fit_svm(x, train, p.settings.svm_c, scale, p.settings.solver).score(x)
        for place, name in enumerate(names):
            tables[name].append({
                "layer": layer,
                "extremes": accuracy(score[:, place], judged[place][0]),
                "middle": accuracy(score[:, place], judged[place][1]),
            })  # fmt: skip
    return tables
