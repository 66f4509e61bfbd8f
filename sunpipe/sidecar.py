"""``keywords.json`` beside segments that came as stored, without keywords in their headers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sunpipe.errors import DataError
from sunpipe.files import read_json

NAME = "keywords.json"
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
    if not all(isinstance(data.get(part), Mapping) for part in ("keywords", "units")):
        raise DataError(f"{path} lacks its keywords or units")
    units = {data["units"].get(segment) for segment in segments}
    keywords = dict(data["keywords"])
    if len(units) == 1 and None not in units:
        keywords["BUNIT"] = units.pop()
    return keywords


def keywords_beside(path: Path, segments: Sequence[str]) -> dict[str, Any]:
    """`read_sidecar` of the file beside a segment; nothing when there is none."""
    if not path.is_file():  # reading it will say so; "." has no name to stand beside
        return {}
    beside = path.with_name(NAME)
    return read_sidecar(beside, segments) if beside.is_file() else {}
