"""A request of ``[query]`` as JSOC record sets: one per batch of time and of HARPs."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from itertools import product

from preprocess.acquire.conditions import Condition, parse_condition, where_clause
from preprocess.times import jsoc_time, parse_time, scale_of, span_s
from sunpipe.errors import ConfigError
from sunpipe.query_settings import QueryRequest, QuerySettings

HARPS_PER_BATCH = 100
NOAA_PER_BATCH = 30
LONGEST_SET = 3500  # characters; JSOC takes 4096, as part of a URL
_NATIVE = re.compile(r"_(\d+)([smh])(?:_nrt)?$")


def prime_keys(series: str) -> tuple[str, ...]:
    """Prime keys of the kinds of series that requests are made for.

    The query compares them with what the series says of itself.
    """
    if series.startswith("aia."):
        return "T_REC", "WAVELNTH"
    return ("HARPNUM", "T_REC") if "sharp" in series else ("T_REC", "CAMERA")


def native_cadence_s(series: str) -> int | None:
    """Seconds between records, as the names of SDO series end with them."""
    match = _NATIVE.search(series)
    return span_s(match[1] + match[2]) if match else None


def series_of(request: QueryRequest) -> str:
    """Series of a request, however it is written."""
    return request.series or request.record_set.partition("[")[0]


def time_span(request: QueryRequest) -> tuple[datetime, datetime] | None:
    """Start and end in TAI; None for a record set."""
    if request.record_set:
        return None
    scale = scale_of(request.series)
    start, end = parse_time(request.start, scale), parse_time(request.end, scale)
    if end <= start:
        raise ConfigError(f"query.requests: end {request.end} is not after start {request.start}")
    return start, end


def check_keys(request: QueryRequest) -> None:
    """Refuse regions of a series without them, and a full-disk series of all wavelengths."""
    keys = prime_keys(series_of(request))
    if (request.harps or request.noaa) and "HARPNUM" not in keys:
        raise ConfigError(f"query.requests: {request.series} has no HARPs and no NOAA regions")
    if request.wavelengths and "WAVELNTH" not in keys:
        raise ConfigError(f"query.requests: {request.series} has no wavelengths")


def batches(request: QueryRequest, settings: QuerySettings) -> Iterator[tuple[datetime, int]]:
    """Start (TAI) and seconds of each batch of time.

    Batches end on whole cadences after the start, so that the slots are those of
    the undivided span; a leap second is a second like all others.
    """
    span = time_span(request)
    assert span is not None
    start, end = span
    step = cadence_s(request)
    total = math.ceil((end - start).total_seconds())
    length = settings.batch_days * 86400
    if step:
        slots = max(1, settings.batch_slots // max(1, len(request.wavelengths)))
        length = max(step, min(length, step * slots) // step * step)
    for done in range(0, total, length):
        yield start + timedelta(seconds=done), min(length, total - done)


def cadence_s(request: QueryRequest) -> int | None:
    """Seconds between the slots that are asked for."""
    return span_s(request.cadence) if request.cadence else native_cadence_s(series_of(request))


def _groups(numbers: Sequence[int], size: int) -> list[list[int]]:
    """Numbers in order, `size` at a time; one empty group of none."""
    ordered = sorted(set(numbers))
    return [ordered[at : at + size] for at in range(0, len(ordered), size)] or [[]]


def _not_too_long(found: list[str]) -> list[str]:
    if (longest := max(map(len, found), default=0)) > LONGEST_SET:
        raise ConfigError(f"query.requests: a record set has {longest} characters, JSOC takes"
                          f" {LONGEST_SET}; use fewer conditions or shorter lists")  # fmt: skip
    return found


def record_sets(
    request: QueryRequest, settings: QuerySettings, conditions: Sequence[Condition] | None = None
) -> list[str]:
    """Record sets that JSOC is asked for, without segments.

    Parameters
    ----------
    conditions : sequence of Condition, optional
        Those of the request, spelled as the series spells them.

    Raises
    ------
    ConfigError
        For times, conditions or keys that do not fit.
    """
    check_keys(request)
    if request.record_set:
        return _not_too_long([request.record_set])
    if conditions is None:
        conditions = [parse_condition(text) for text in request.where]
    keys, scale = prime_keys(request.series), scale_of(request.series)
    groups = _groups(request.harps, HARPS_PER_BATCH)
    regions = _groups(request.noaa, NOAA_PER_BATCH)
    found = []
    for start, seconds in batches(request, settings):
        slots = f"@{request.cadence}" if request.cadence else ""
        when = f"[{jsoc_time(start, scale)}/{seconds}s{slots}]"
        which = ",".join(map(str, sorted(set(request.wavelengths))))
        for group, noaa in product(groups, regions):
            brackets = {
                "HARPNUM": f"[{','.join(map(str, group))}]",
                "T_REC": when,
                "WAVELNTH": f"[{which}]" if which else "",
                "CAMERA": "",
            }
            text = "".join(brackets[key] for key in keys)
            found.append(request.series + text + where_clause(conditions, noaa))
    return _not_too_long(found)
