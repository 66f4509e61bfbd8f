"""Records that came twice, and gaps in a series of times."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise


@dataclass(frozen=True)
class Gap:
    """A stretch of a series in which records are missing.

    Attributes
    ----------
    after, before : datetime
        The last record ahead of the gap and the first behind it.
    missing : int
        Records that the cadence would have put between them.
    """

    after: datetime
    before: datetime
    missing: int


def duplicates(records: Iterable[Hashable]) -> dict[Hashable, list[int]]:
    """Places of each record that stands more than once, in order of first appearance.

    Parameters
    ----------
    records : iterable of hashable
        Record-set strings, or whatever says that two records are the same, such
        as (T_REC, WAVELNTH).

    Examples
    --------
    >>> duplicates(["a", "b", "a"])
    {'a': [0, 2]}
    """
    places: dict[Hashable, list[int]] = {}
    for place, record in enumerate(records):
        places.setdefault(record, []).append(place)
    return {record: found for record, found in places.items() if len(found) > 1}


def cadence_gaps(times: Sequence[datetime], cadence_s: float, tolerance: float = 0.5) -> list[Gap]:
    """Gaps of a series of times, earliest first.

    Two neighbours are a gap when they are more than ``(1 + tolerance)`` cadences
    apart: AIA's times wander by a second or so around their slots.

    Parameters
    ----------
    times : sequence of datetime
        In any order, of one time scale; equal times count once.
    cadence_s : float
        Seconds between records.
    tolerance : float
        Share of a cadence by which a record may be late, between 0 and 1.

    Raises
    ------
    ValueError
        When `cadence_s` is not positive and finite or `tolerance` is outside [0, 1).
    """
    if not (math.isfinite(cadence_s) and cadence_s > 0):
        raise ValueError(f"cadence_s = {cadence_s} is not a positive number of seconds")
    if not 0 <= tolerance < 1:
        raise ValueError(f"tolerance = {tolerance} is not a share of a cadence, 0 <= t < 1")
    ordered = sorted(set(times))
    gaps = []
    for after, before in pairwise(ordered):
        steps = (before - after).total_seconds() / cadence_s
        if steps > 1 + tolerance:
            # At least one is missing, however the tolerance is set.
            gaps.append(Gap(after, before, max(1, round(steps) - 1)))
    return gaps
