"""``keywords.json`` beside segments that came as stored, without keywords in their headers."""

from __future__ import annotations

import re
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


_SHARP = re.compile(r"[^\[]+\[(\d+)\]\[([^\]]+)\]")


def _check_record(path: Path, data: Mapping[str, Any], record: str | None) -> None:
    """Refuse keywords of another record than the one asked for, or than they say themselves."""
    stated = data.get("record")
    if not isinstance(stated, str):
        raise DataError(f"{path} does not say of which record it is")
    if record is not None and stated != record:
        raise DataError(f"{path} holds the keywords of {stated}, not of {record}")
    if match := _SHARP.fullmatch(stated):
        for key, value in (("HARPNUM", int(match[1])), ("T_REC", match[2])):
            if data["keywords"].get(key, value) not in (value, None):
                raise DataError(f"{path} is of {stated} and says {key} ="
                                f" {data['keywords'][key]!r}")  # fmt: skip


def read_sidecar(path: Path, segments: Sequence[str], record: str | None = None) -> dict[str, Any]:
    """Keywords for what the headers of a record's segments lack.

    BUNIT is given when the `segments` share one unit.

    Parameters
    ----------
    path : Path
    segments : sequence of str
    record : str, optional
        Record-set string of which the keywords must be.

    Raises
    ------
    DataError
        When the file is damaged, of another version or of another record.
    """
    data = read_json(path)
    if not isinstance(data, Mapping) or data.get("schema") != SIDECAR:
        raise DataError(f"{path} is not a keywords file of version {SIDECAR}")
    if not all(isinstance(data.get(part), Mapping) for part in ("keywords", "units")):
        raise DataError(f"{path} lacks its keywords or units")
    for key, value in data["keywords"].items():
        if not isinstance(value, str | int | float | None):
            raise DataError(f"{path}: keyword {key} is a {type(value).__name__}, not one value")
    for segment, unit in data["units"].items():
        if not isinstance(unit, str | None):
            raise DataError(f"{path}: the unit of {segment} is {unit!r}, not a word")
    _check_record(path, data, record)
    units = {data["units"].get(segment) for segment in segments}
    keywords = dict(data["keywords"])
    if len(units) == 1 and None not in units:
        keywords["BUNIT"] = units.pop()
    return keywords


def keywords_beside(
    path: Path, segments: Sequence[str], record: str | None = None
) -> dict[str, Any]:
    """`read_sidecar` of the file beside a segment; nothing when there is none."""
    if not path.is_file():  # reading it will say so; "." has no name to stand beside
        return {}
    beside = path.with_name(NAME)
    return read_sidecar(beside, segments, record) if beside.is_file() else {}
