"""``[search]``: what generated patches ask of the archive."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from sunpipe.setting_types import STRICT, Count


@dataclass(frozen=True, config=STRICT)
class SearchSettings:
    """``[search]``: `queries` generated patches are looked up, `k` answers each.

    `fold` says what one answer is: a ``harp`` (of whole disks: a day), a ``record``, or with
    ``none`` a tile. `where` is a condition on the metadata, as of ``sunpipe index search``.
    """

    k: Count = 10
    queries: Count = 200
    fold: Literal["harp", "record", "none"] = "harp"
    where: Annotated[str, Field(pattern=r"\S")] | None = None
