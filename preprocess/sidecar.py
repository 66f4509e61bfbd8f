"""``keywords.json`` beside segments that came as stored, without keywords in their headers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sunpipe.errors import DataError
from sunpipe.files import read_json

SIDECAR = 1


def sidecar(record: str, keywords: dict[str, Any], units: dict[str, str]) -> dict[str, Any]:
    """Content of a record's ``keywords.json``: keywords, and the unit of each segment."""
    return {"schema": SIDECAR, "record": record, "keywords": keywords, "units": units}


def read_sidecar(path: Path, segments: Sequence[str]) -> dict[str, Any]:
    """Keywords for what the headers of a record's segments lack.

    BUNIT is given when the `segments` share one unit.

    Raises
    ------
    DataError
        When the file is damaged or of another version.
    """
    data = read_json(path)
    if not isinstance(data, Mapping) or data.get("schema") != SIDECAR:
        raise DataError(f"{path} is not a keywords file of version {SIDECAR}")
    units = {data["units"].get(segment) for segment in segments}
    keywords = dict(data["keywords"])
    if len(units) == 1 and None not in units:
        keywords["BUNIT"] = units.pop()
    return keywords
