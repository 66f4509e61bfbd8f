"""``[query]`` and ``[fetch]``: what to ask the archive for, and how it is brought."""

from __future__ import annotations

import os
import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field
from pydantic.dataclasses import dataclass

from sunpipe.setting_types import STRICT, Count, CountOrNone, NonNegative, Positive

Segment = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]{0,31}$")]
Series = Annotated[str, Field(pattern=r"^([a-z][a-z0-9]{0,15}\.[A-Za-z0-9_]{1,63})?$")]
Number = Annotated[int, Field(ge=1, le=9_999_999)]
Cadence = Annotated[str, Field(pattern=r"^([1-9]\d{0,5}[smhd])?$")]
When = Annotated[
    str,
    Field(
        pattern=r"^(\d{4}[-.]\d\d[-.]\d\d([T_ ]\d\d:\d\d(:\d\d)?)?(_TAI|_UTC|Z)?)?$",
    ),
]
Email = Annotated[
    str, Field(pattern=r"^([A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+)?$")
]
EMAIL_VARIABLES = ("SUNPIPE_JSOC_EMAIL", "JSOC_EMAIL")


def _record_set(text: str) -> str:
    """Refuse what is no record set, and one without prime keys: that would be all of a series."""
    if not text:
        return text
    shape = r"[a-z][a-z0-9]{0,15}\.[A-Za-z0-9_]{1,63}((?:\[[^\[\]{}\x00-\x1f]*\])+)"
    match = re.fullmatch(shape, text)
    brackets = re.findall(r"\[([^\]]*)\]", match.group(1)) if match else []
    if not any(inner.strip() and inner.strip()[0] not in "?!" for inner in brackets):
        raise ValueError(
            "a record set is a series with prime keys and without segments, such as"
            " hmi.sharp_cea_720s[377][2011.02.15_02:00:00_TAI]"
        )
    return text


RecordSet = Annotated[str, AfterValidator(_record_set)]


@dataclass(frozen=True, config=STRICT)
class QueryRequest:
    """``[[query.requests]]``: records of one series.

    Either `record_set`, a JSOC record set without segment braces, or `series`
    with `start` and `end`. A time without a zone is in the scale of the series'
    own T_REC: TAI for HMI, UTC for AIA; ``_TAI``, ``_UTC`` and ``Z`` say
    otherwise. Records with start <= T_REC < end are meant. `cadence` such as
    ``6h`` picks slots from `start` on, nothing means every record. `harps`,
    `noaa` (SHARP) and `wavelengths` (AIA) narrow it, and so do the conditions of
    `where`, ``KEYWORD < NUMBER`` or ``KEYWORD = 'TEXT'``, which all must hold.
    More than `max_records` records are refused.
    """

    segments: tuple[Segment, ...]
    series: Series = ""
    start: When = ""
    end: When = ""
    cadence: Cadence = ""
    harps: tuple[Number, ...] = ()
    noaa: tuple[Number, ...] = ()
    wavelengths: tuple[Number, ...] = ()
    where: tuple[str, ...] = ()
    record_set: RecordSet = ""
    max_records: Count = 1_000_000

    def __post_init__(self) -> None:
        if not self.segments:
            raise ValueError("segments is empty; name at least one, for example Br, Bt, Bp")
        if self.record_set:
            if any((self.series, self.start, self.end, self.cadence, self.harps, self.noaa,
                    self.wavelengths, self.where)):  # fmt: skip
                raise ValueError("a request with record_set has segments and max_records besides,"
                                 " nothing else")  # fmt: skip
        elif not (self.series and self.start and self.end):
            raise ValueError("a request needs series, start and end, or a record_set")


@dataclass(frozen=True, config=STRICT)
class QuerySettings:
    """``[query]``: what the archive is asked for.

    A long time span is asked in batches of at most `batch_days` days and
    `batch_slots` time slots.
    """

    requests: tuple[QueryRequest, ...] = ()
    batch_days: Annotated[int, Field(ge=1, le=31)] = 31
    batch_slots: Annotated[int, Field(ge=1, le=10_000)] = 1000


@dataclass(frozen=True, config=STRICT)
class FetchSettings:
    """``[fetch]``: where FITS files come from and how they are brought.

    `source` is ``sample`` (bundled) or ``jsoc``, whose web interface has its
    root at `url`; `connections` transfers run at one time. A transfer that fails
    is tried again `retries` times after `retry_wait_s`, twice that, and so on.
    `email`, registered with JSOC, lets files on tape be ordered as exports,
    `export_records` at a time; a run asks for them every `export_poll_s` or less
    often, for `export_wait_s` in all. `decoders` processes check what arrived.
    """

    source: Literal["sample", "jsoc"] = "sample"
    url: Annotated[str, Field(pattern=r"^https?://[A-Za-z0-9.:-]+/?$")] = (
        "http://jsoc.stanford.edu/"
    )
    connections: Annotated[int, Field(ge=1, le=16)] = 1
    decoders: Annotated[int, Field(ge=1, le=64)] = 1
    timeout_s: Positive = 60.0
    retries: CountOrNone = 4
    retry_wait_s: NonNegative = 30.0
    email: Email = ""
    export_records: Annotated[int, Field(ge=1, le=1000)] = 50
    export_poll_s: Positive = 10.0
    export_wait_s: NonNegative = 6 * 3600.0


def registered_email(settings: FetchSettings) -> str:
    """`fetch.email`, else that of the environment, else nothing."""
    return settings.email or next(filter(None, map(os.environ.get, EMAIL_VARIABLES)), "") or ""
