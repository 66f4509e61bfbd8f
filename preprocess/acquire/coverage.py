"""What a request found against what its cadence lets expect: gaps, duplicates, empty records."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from typing import Any

from preprocess.acquire.jsoc import Found
from preprocess.acquire.request import prime_keys
from preprocess.archive import RecordName
from preprocess.times import record_time

LONGEST = 5


@dataclass
class Tally:
    """Sums over the records of one request, batch by batch."""

    names: dict[str, RecordName] = field(default_factory=dict)
    duplicates: int = 0
    no_image: int = 0
    known_bytes: int = 0
    unknown_size: int = 0

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
    times: Sequence[datetime], cadence_s: float, span: tuple[datetime, datetime] | None = None
) -> tuple[int, list[tuple[int, str, str]]]:
    """Expected slots, and the gaps between sorted times.

    Parameters
    ----------
    times : sequence of datetime
        In one time scale, sorted.
    cadence_s : float
        Seconds between slots.
    span : (datetime, datetime), optional
        First slot and end (not included) of the slots that are expected; by
        default from the first time to the last.

    Returns
    -------
    (int, list of (slots, after, before))
        A gap of n slots lies between two ISO times.
    """
    marks = [*times]
    slot = cadence_s / 2  # T_REC is near its slot, not on it
    gaps = []
    for before, after in pairwise(marks):
        lost = int(((after - before).total_seconds() + slot) // cadence_s) - 1
        if lost > 0:
            gaps.append((lost, before.isoformat(), after.isoformat()))
    expected = len(times) + sum(lost for lost, _, _ in gaps)
    if span is not None:
        start, end = span
        expected = int(-(-(end - start).total_seconds() // cadence_s))
        first, last = (marks[0], marks[-1]) if marks else (end, end)
        head = int(((first - start).total_seconds() + slot) // cadence_s)
        tail = int(((end - last).total_seconds() + slot) // cadence_s) - 1
        if not marks:
            head, tail = expected, 0
        if head > 0:
            gaps.append((head, start.isoformat(), first.isoformat()))
        if tail > 0:
            gaps.append((tail, last.isoformat(), end.isoformat()))
    return expected, gaps


def coverage(
    names: Iterable[RecordName],
    cadence_s: float | None,
    span: tuple[datetime, datetime] | None,
    wavelengths: Sequence[int] = (),
) -> dict[str, Any]:
    """Expected slots against found ones.

    A full-disk series should fill the whole span, AIA's once per wavelength; a
    HARP the time from its first record to its last. What conditions leave out
    counts as a gap.
    """
    if cadence_s is None:
        return {}
    groups: dict[tuple[str, int], list[datetime]] = defaultdict(list)
    groups.update({("wavelength", number): [] for number in wavelengths})
    for name in names:
        group = ("disk", 0)  # HMI's cameras take turns
        if name.harpnum is not None:
            group = ("HARP", name.harpnum)
        elif "WAVELNTH" in prime_keys(name.series):
            group = ("wavelength", name.number or 0)
        groups[group].append(record_time(name.t_rec))
    expected = 0
    gaps: list[dict[str, Any]] = []
    for (kind, number), times in sorted(groups.items()):
        slots, found = time_gaps(sorted(set(times)), cadence_s, None if kind == "HARP" else span)
        expected += slots
        label = f"{kind} {number}" if number else kind
        gaps += [{"of": label, "slots": lost, "after": after, "before": before}
                 for lost, after, before in found]  # fmt: skip
    gaps.sort(key=lambda gap: -gap["slots"])
    return {
        "expected_slots": expected,
        "missing_slots": sum(gap["slots"] for gap in gaps),
        "gaps": len(gaps),
        "longest_gaps": gaps[:LONGEST],
    }
