"""Duplicates and gaps."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from preprocess.cadence import Gap, cadence_gaps, duplicates

START = datetime(2014, 1, 1)


def at(*minutes: float) -> list[datetime]:
    return [START + timedelta(minutes=each) for each in minutes]


def test_duplicates_are_named_with_their_places() -> None:
    assert duplicates(["a", "b", "a", "c", "b", "a"]) == {"a": [0, 2, 5], "b": [1, 4]}
    assert duplicates([("t", 193), ("t", 171)]) == {}
    assert duplicates([]) == {}


def test_gaps_count_what_is_missing() -> None:
    times = at(0, 12, 24, 60, 72, 84.2)
    assert cadence_gaps(times[::-1] + times, 720) == [Gap(times[2], times[3], 2)]
    assert cadence_gaps(times[:3], 720) == []
    assert cadence_gaps([], 720) == []


def test_lateness_is_no_gap() -> None:
    assert cadence_gaps(at(0, 13, 24, 36), 720) == []
    assert [gap.missing for gap in cadence_gaps(at(0, 13), 720, tolerance=0.05)] == [1]


@pytest.mark.parametrize(("cadence", "tolerance"), [(0, 0.5), (-12, 0.5), (float("nan"), 0.5),
                                                    (12, 1.0), (12, -0.1)])  # fmt: skip
def test_nonsense_is_refused(cadence: float, tolerance: float) -> None:
    with pytest.raises(ValueError, match="not a"):
        cadence_gaps(at(0, 1), cadence, tolerance)
