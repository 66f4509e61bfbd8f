"""``[retrieval]``: the scorecard of the search."""

from __future__ import annotations

from pydantic.dataclasses import dataclass

from sunpipe.setting_types import STRICT, Count, NonNegative


@dataclass(frozen=True, config=STRICT)
class RetrievalSettings:
    """``[retrieval]``: the scorecard of the search.

    `queries` real patches and as many generated ones ask; `k` answers are looked
    at; records of one HARP closer than `exclude_hours` count as the same moment;
    `bootstrap` replicates over HARPs give the intervals.
    """

    queries: Count = 1000
    k: Count = 10
    exclude_hours: NonNegative = 24.0
    bootstrap: Count = 1000
