"""What the finished parts of a fit say together: the tables that are published."""

from __future__ import annotations

from typing import Any

import numpy as np

from sunpipe.latent.calibrate import finite, response
from sunpipe.latent.components import components
from sunpipe.latent.direction import Floats
from sunpipe.latent.directions import SUFFIX
from sunpipe.latent.fit import RANDOM, Fitted
from sunpipe.latent.leakage import leaks, natural
from sunpipe.latent.prepare import Prepared
from sunpipe.latent.walks import Walk


def _responses(fitted: Fitted, control: Fitted, deviation: float) -> dict[str, float | None]:
    """Median change per step in natural standard deviations; of random ones, its magnitude."""
    found: dict[str, float | None] = {}
    for each in (*fitted.walks, *control.walks):
        slopes = response(each.steps, each.column(fitted.name)) / deviation
        slopes = np.abs(slopes) if each.kind == RANDOM else slopes
        slopes = slopes[np.isfinite(slopes)]
        found[each.kind] = float(np.median(slopes)) if len(slopes) else None
    return found


def _component_response(walk: Walk, deviations: Floats) -> dict[str, float | None]:
    """Median change of every quantity per step along a component, natural standard deviations."""
    changes = response(walk.steps, walk.values) / deviations
    found: dict[str, float | None] = {}
    for name, column in zip(walk.names, changes.T, strict=True):
        defined = column[np.isfinite(column)]
        found[name] = float(np.median(defined)) if len(defined) else None
    return found


def gather(p: Prepared, results: list[Fitted], control: Fitted, about: dict[str, Any]) -> Any:
    """Join the results of all that was walked: arguments of `write_directions` after the folder."""
    deviations = natural(p.samples.values)
    quantities, vectors, leakage, walks = {}, {}, [], []
    table = {row["name"]: row for row in components(p)}
    for fitted in results:
        if fitted.name in table:
            vectors[fitted.name] = fitted.vectors["plain"]
            walks += fitted.walks
            table[fitted.name]["response"] = _component_response(fitted.walks[0], deviations)
            continue
        place = p.samples.names.index(fitted.name)
        values = p.samples.values[:, place]
        defined = values[np.isfinite(values)]
        responses = _responses(fitted, control, deviations[place])
        quantities[fitted.name] = {
            **fitted.about,
            "sign": 1 if (responses["plain"] or 0.0) > 0 else -1,
            "response": responses,
            "natural_std": finite(deviations[[place]])[0],
            "median": float(np.median(defined)),
            "undefined": int(len(values) - len(defined)),
        }
        for kind, vector in fitted.vectors.items():
            vectors[fitted.name + SUFFIX[kind]] = vector
        for each in fitted.walks:
            leakage += leaks(each, deviations, p.seed)
            walks.append(each)
    about = {**about, "quantities": quantities, "left_out": p.left_out,
             "components": list(table.values())}  # fmt: skip
    return about, vectors, leakage, walks + control.walks
