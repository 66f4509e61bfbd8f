"""Distances of generated from real images that need no downloaded weights.

torch and scipy load on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from sunpipe.evaluate.metrics import METRICS, Metric, metric

if TYPE_CHECKING:
    from sunpipe.evaluate.block import FeatureBlock
    from sunpipe.evaluate.lens import Lens
    from sunpipe.evaluate.reference import Reference, compare
    from sunpipe.evaluate.sheet import contact_sheet


_HOMES = {
    "FeatureBlock": "block",
    "Lens": "lens",
    "Reference": "reference",
    "compare": "reference",
    "contact_sheet": "sheet",
}

__all__ = [
    "METRICS",
    "FeatureBlock",
    "Lens",
    "Metric",
    "Reference",
    "compare",
    "contact_sheet",
    "metric",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
