"""How the local JSOC reads record sets, and the shapes of its answers to queries."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Collection
from functools import cache
from typing import Any

from astropy.time import Time

from preprocess.archive import parse_record
from tests.jsoc_archive import PRIME, SEGMENTS, Archive

SPAN_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}
LONGEST_SET = 4096
EPOCH = Time("2000-01-01T00:00:00", scale="tai", format="isot")
SLOT_S = 7  # T_REC of AIA lies within its 12 s slot
PSEUDO = ("*size*", "*online*", "*archive*", "*sunum*")


class Refused(Exception):
    """A record set that JSOC does not understand."""


def split_sets(text: str) -> list[tuple[str, list[str] | None]]:
    """Record sets of a comma list, each with the segments in its braces; one series only."""
    if len(text) > LONGEST_SET:
        raise Refused("too long")
    one = r"([a-zA-Z0-9_.]+(?:\[[^\]]*\])*)(?:\{([^{}]*)\})?"
    if not re.fullmatch(rf"{one}(,{one})*", text):
        raise Refused(text)
    parts = re.findall(rf"{one}(?:,|$)", text)
    if len({name.partition("[")[0].lower() for name, _ in parts}) > 1:
        raise Refused("only one series")
    return [(name, names.split(",") if names else None) for name, names in parts]


def _time(text: str) -> float:
    """Seconds of TAI since 2000; a time without zone is UTC."""
    shape = r"(\d{4})[-.](\d\d)[-.](\d\d)(?:[T_](\d\d):(\d\d)(?::(\d\d(?:\.\d+)?))?)?(_TAI|_UTC|Z)?"
    match = re.fullmatch(shape, text)
    if match is None:
        raise Refused(text)
    *day, hour, minute, second, zone = match.groups()
    clock = f"{'-'.join(day)}T{hour or '00'}:{minute or '00'}:{second or '00'}"
    try:  # astropy's leap seconds, not those of the code under test
        time = Time(clock, scale="tai" if zone == "_TAI" else "utc", format="isot").tai
    except ValueError:
        raise Refused(text) from None
    days, rest = time.jd1 - EPOCH.jd1, time.jd2 - EPOCH.jd2
    return round(86400 * (float(days) + float(rest)), 3)


@cache
def _record_time(text: str) -> float:
    return _time(text)


def _times(text: str, values: dict[str, float]) -> set[str]:
    """Records whose time is in a bracket: a list, ``t1-t2`` or ``t/span@cadence``."""
    body, _, cadence = text.partition("@")
    first, slash, span = body.partition("/")
    if slash:
        start = _time(first)
        end = start + int(span[:-1]) * SPAN_S[span[-1]]
        found = {name for name, when in values.items() if start <= when < end}
    elif match := re.fullmatch(r"(.+_TAI|.+Z)-(.+_TAI|.+Z)", body):
        start, end = _time(match[1]), _time(match[2])
        found = {name for name, when in values.items() if start <= when <= end}
    else:
        return {n for n, when in values.items() if when in [_time(t) for t in body.split(",")]}
    if cadence:
        step = int(cadence[:-1]) * SPAN_S[cadence[-1]]

        def off(name: str) -> float:
            return (values[name] - start + SLOT_S) % step

        found = {name for name in found if off(name) <= 2 * SLOT_S}
    return found


def _numbers(text: str) -> set[int]:
    found: set[int] = set()
    for part in text.split(","):
        low, dash, high = part.partition("-")
        if not low.isdigit() or (dash and not high.isdigit()):
            raise Refused(text)
        found |= set(range(int(low), int(high or low) + 1))
    return found


def _where(clause: str, archive: Archive, records: Collection[str]) -> set[str]:
    """A where clause is SQL, so SQL answers it."""
    names = sorted({key for record in records for key in archive.keywords[record]})
    table = sqlite3.connect(":memory:")
    try:
        columns = ", ".join(f'"{name}"' for name in names)
        table.execute(f"CREATE TABLE t (record, {columns})")
        rows = [[r, *(archive.keywords[r].get(name) for name in names)] for r in records]
        marks = ", ".join("?" * (len(names) + 1))
        table.executemany(f"INSERT INTO t VALUES ({marks})", rows)
        return {row[0] for row in table.execute(f"SELECT record FROM t WHERE {clause}")}
    except sqlite3.Error as error:
        raise Refused(str(error)) from None
    finally:
        table.close()


def select(archive: Archive, record_set: str) -> list[str]:
    """Records of one record set, in the order of their names."""
    series = next(name for name in PRIME if name.lower() == record_set.partition("[")[0].lower())
    found = {r for r in archive.keywords if parse_record(r).series == series}
    keys = list(PRIME[series])
    for text in re.findall(r"\[([^\]]*)\]", record_set):
        if text.startswith("?"):
            found = _where(text.strip("? "), archive, found)
            continue
        if not keys:
            raise Refused(record_set)
        key = keys.pop(0)
        if key == "T_REC" and text:
            found &= _times(text, {r: _record_time(archive.keywords[r]["T_REC"]) for r in found})
        elif text:
            wanted = _numbers(text)
            found = {r for r in found if archive.keywords[r][key] in wanted}
    return sorted(found, key=lambda r: parse_record(r).order)


def kind(name: str, value: Any) -> str:
    """Type of a keyword, as series_struct tells it."""
    if name in ("T_REC", "T_OBS", "DATE__OBS", "DATE"):
        return "time"
    if isinstance(value, int):
        return "int"
    return "double" if isinstance(value, float) else "string"


def text_of(name: str, value: Any) -> str:
    """A value as rs_list prints it."""
    if name == "QUALITY":
        return f"0x{int(value) & 0xFFFFFFFF:08x}"
    return "MISSING" if value is None or value != value else str(value)


def struct(archive: Archive, series: str) -> dict[str, Any]:
    """Answer to series_struct."""
    first = next(v for r, v in archive.keywords.items() if parse_record(r).series == series)
    return {
        "note": "a series \u00c5", "retention": 60, "unitsize": 1, "archive": 1, "tapegroup": 1,
        "primekeys": list(PRIME[series]), "dbindex": list(PRIME[series]),
        "keywords": [{"name": name, "type": kind(name, value), "recscope": "variable",
                      "defval": "", "units": "", "note": ""} for name, value in first.items()],
        "links": [],
        "segments": [{"name": name, "type": "int", "units": unit, "protocol": "fits",
                      "dims": "VARxVAR", "note": ""} for name, unit in SEGMENTS[series].items()],
        "Interval": {"FirstRecord": "NA", "FirstRecnum": 1, "LastRecord": "NA", "LastRecnum": 9,
                     "MaxRecnum": 9},
        "status": 0,
    }  # fmt: skip
