"""``[retrieval]``: the scorecard of the search."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from sunpipe.setting_types import STRICT, Count, NonNegative


@dataclass(frozen=True, config=STRICT)
class RetrievalSettings:
    """``[retrieval]``: the scorecard of the search.

    `queries` real patches (of the test split, or of ``all``) and as many generated
    ones ask; `k` answers are looked at; records of one HARP closer in time than
    `exclude_hours` count as the same moment; `bootstrap` replicates over HARPs give
    the intervals. Up to `archive` tiles may answer, spread evenly over HARPs and
    times, which bounds time and memory.
    """

    queries: Count = 1000
    split: Literal["test", "all"] = "test"
    archive: Annotated[int, Field(ge=2)] = 50_000
    k: Count = 10
    exclude_hours: NonNegative = 24.0
    bootstrap: Annotated[int, Field(ge=100)] = 1000
