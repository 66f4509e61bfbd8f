"""What a request found against what its cadence lets expect: gaps, duplicates, empty records."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preprocess.acquire.jsoc import Found
from preprocess.acquire.request import prime_keys
from preprocess.archive import RecordName
from preprocess.times import from_tai_seconds, jsoc_time, seconds_of, tai_seconds
from sunpipe.errors import DataError

LONGEST = 5
COUNTS = ("duplicates", "no_image", "known_bytes", "unknown_size", "new")


@dataclass
class Tally:
    """Sums over the records of one request, batch by batch."""

    names: dict[str, RecordName] = field(default_factory=dict)
    duplicates: int = 0
    no_image: int = 0
    known_bytes: int = 0
    unknown_size: int = 0
    new: int = 0

    @property
    def counts(self) -> dict[str, int]:
        """All sums."""
        return {key: getattr(self, key) for key in COUNTS}

    def take(self, names: Iterable[RecordName], counts: Mapping[str, int]) -> None:
        """Add the records and sums of a batch."""
        self.names.update({str(name): name for name in names})
        for key in COUNTS:
            setattr(self, key, getattr(self, key) + counts[key])

    def add(self, records: Iterable[Found]) -> list[Found]:
        """Count records; returns those that are new."""
        new = []
        for found in records:
            if found.record in self.names:
                self.duplicates += 1
                continue
            self.names[found.record] = found.name
            self.no_image += found.no_image
            self.known_bytes += found.size or 0
            self.unknown_size += found.size is None
            new.append(found)
        return new


def time_gaps(
    times: NDArray[np.float64], cadence_s: float, span: tuple[float, float] | None = None
) -> tuple[int, list[tuple[int, float, float]]]:
    """Expected slots, and the gaps between sorted times.

    Parameters
    ----------
    times : float array
        Sorted, in seconds that have passed (TAI).
    cadence_s : float
        Seconds between slots.
    span : (float, float), optional
        First slot and end (not included) of the slots that are expected; by
        default from the first time to the last.

    Returns
    -------
    (int, list of (slots, after, before))
        A gap of n slots lies between two times.
    """
    slot = cadence_s / 2  # T_REC is near its slot, not on it
    lost = ((np.diff(times) + slot) // cadence_s).astype(int) - 1
    gaps = [
        (int(lost[at]), float(times[at]), float(times[at + 1])) for at in np.flatnonzero(lost > 0)
    ]
    expected = len(times) + sum(number for number, _, _ in gaps)
    if span is not None:
        start, end = span
        expected = math.ceil((end - start) / cadence_s)
        if not len(times):
            return expected, [(expected, start, end)]
        head = int((times[0] - start + slot) // cadence_s)
        tail = int((end - times[-1] + slot) // cadence_s) - 1
        if head > 0:
            gaps.append((head, start, float(times[0])))
        if tail > 0:
            gaps.append((tail, float(times[-1]), end))
    return expected, gaps


def _seconds(texts: Iterable[str]) -> tuple[NDArray[np.float64], int]:
    """Times, sorted and once each, and the number of those that are none, such as hour 25."""
    texts = sorted(set(texts))
    try:
        return np.unique(tai_seconds(texts)), 0
    except DataError:
        good = []
    for text in texts:
        with suppress(DataError):
            good.append(tai_seconds([text])[0])
    return np.unique(np.array(good, np.float64)), len(texts) - len(good)


def coverage(
    names: Iterable[RecordName],
    cadence_s: float | None,
    span: tuple[datetime, datetime] | None,
    wavelengths: Sequence[int] = (),
    scale: str = "tai",
) -> dict[str, Any]:
    """Expected slots against found ones; says what it can of any records.

    A full-disk series should fill the whole span, AIA's once per wavelength; a
    HARP the time from its first record to its last. What conditions leave out
    counts as a gap.

    Parameters
    ----------
    cadence_s : float or None
        Seconds between slots; without it nothing is expected.
    span : (datetime, datetime) or None
        In TAI.
    scale : str
        In which the ends of gaps are told: that of the series.
    """
    if cadence_s is None:
        return {}
    groups: dict[tuple[str, int], list[str]] = defaultdict(list)
    groups.update({("wavelength", number): [] for number in wavelengths})
    for name in names:
        group = ("disk", 0)  # HMI's cameras take turns
        if name.harpnum is not None:
            group = ("HARP", name.harpnum)
        elif "WAVELNTH" in prime_keys(name.series):
            group = ("wavelength", name.number or 0)
        groups[group].append(name.t_rec)
    whole = (seconds_of(span[0]), seconds_of(span[1])) if span else None
    expected = unreadable = 0
    gaps: list[tuple[int, str, float, float]] = []
    for (kind, number), texts in sorted(groups.items()):
        times, wrong = _seconds(texts)
        slots, found = time_gaps(times, cadence_s, None if kind == "HARP" else whole)
        expected, unreadable = expected + slots, unreadable + wrong
        label = f"{kind} {number}" if number else kind
        gaps += [(lost, label, after, before) for lost, after, before in found]
    gaps.sort(key=lambda gap: -gap[0])
    longest = [
        {"of": label, "slots": lost, "after": jsoc_time(from_tai_seconds(after), scale),
         "before": jsoc_time(from_tai_seconds(before), scale)}
        for lost, label, after, before in gaps[:LONGEST]
    ]  # fmt: skip
    return {
        "expected_slots": expected,
        "missing_slots": sum(gap[0] for gap in gaps),
        "gaps": len(gaps),
        "longest_gaps": longest,
        "unreadable_times": unreadable,
    }
