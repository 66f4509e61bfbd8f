"""``[index]``: how vectors are found again."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from sunpipe.setting_types import STRICT, Count, Positive


@dataclass(frozen=True, config=STRICT)
class IndexSettings:
    """``[index]``: the FAISS index.

    `kind` is ``auto`` (measured on a held-out sample: exact, inverted lists, or
    compressed codes with exact re-ranking), or one of them. It must reach `recall`
    of the true 10 nearest within `memory_gb` of main memory. Whole numbers of
    vectors are read and added `block` at a time.
    """

    metric: Literal["cosine", "euclidean"] = "cosine"
    kind: Literal["auto", "flat", "ivf", "fastscan"] = "auto"
    recall: Annotated[float, Field(gt=0, le=1)] = 0.99
    memory_gb: Positive = 32.0
    block: Count = 65_536
