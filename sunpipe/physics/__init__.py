"""SHARP keywords, mirrors and geometry of vector magnetograms (lazy: torch loads on first use)."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from sunpipe.physics.geometry import pixel_size_cm
from sunpipe.physics.quantities import CONVENTIONS, QUANTITIES, Quantity

if TYPE_CHECKING:
    from sunpipe.physics.keywords import SharpKeywords, sharp_keywords, sharp_keywords_los
    from sunpipe.physics.mask import estimate_mask, sharp_mask
    from sunpipe.physics.measurement import measure
    from sunpipe.physics.ragged import measure_patches
    from sunpipe.physics.symmetry import (
        flip_horizontal,
        flip_vertical,
        reverse_polarity,
        rotate90,
    )

# A submodule must not carry the name of a function here: importing it would hide the function.
_HOMES = {
    "SharpKeywords": "keywords",
    "sharp_keywords": "keywords",
    "sharp_keywords_los": "keywords",
    "estimate_mask": "mask",
    "sharp_mask": "mask",
    "measure": "measurement",
    "measure_patches": "ragged",
    "flip_horizontal": "symmetry",
    "flip_vertical": "symmetry",
    "reverse_polarity": "symmetry",
    "rotate90": "symmetry",
}

__all__ = [
    "CONVENTIONS",
    "QUANTITIES",
    "Quantity",
    "SharpKeywords",
    "estimate_mask",
    "flip_horizontal",
    "flip_vertical",
    "measure",
    "measure_patches",
    "pixel_size_cm",
    "reverse_polarity",
    "rotate90",
    "sharp_keywords",
    "sharp_keywords_los",
    "sharp_mask",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
