"""Curves that lie on each other: none may hide another."""

from __future__ import annotations

import re

import numpy as np
import pytest

from sunpipe.report.charts import BLUE, GREEN, ORANGE, thin
from sunpipe.report.covered import joined, long_enough, overlaps, stripes, together
from sunpipe.report.lines import Line, lines_chart, lying

X = np.arange(1.0, 101.0)
WAVE = np.sin(X / 7)


def pair(y: np.ndarray, x: np.ndarray = X) -> tuple[np.ndarray, np.ndarray]:
    return x, y


def test_where_one_line_lies_on_another() -> None:
    branch = np.where(X <= 50, WAVE, WAVE + 1)
    short = pair(WAVE[:30], X[:30])
    far, gap = pair(WAVE + 5), pair(np.where(X == 10, np.nan, WAVE))
    found = overlaps([pair(WAVE), pair(branch), short, far, gap], 0.01)
    assert [len(masks) for masks in found] == [0, 1, 2, 3, 4]
    assert found[1][0].tolist() == (X <= 50).tolist(), "a run that went on from a copy"
    assert found[2].all(), "a run that stopped earlier lies on both"
    assert not found[3].any()
    assert found[4][0].sum() == 99, "a gap lies on nothing"
    crossing = overlaps([pair(X), pair(101 - X)], 0.6)
    assert not crossing[1].any(), "lines that cross hide nothing"
    assert overlaps([pair(np.full(3, np.nan), X[:3]), pair(WAVE)], 1)[1].sum() == 0
    assert overlaps([pair(X[:1], X[:1])] * 2, 0.1)[1].all(), "one tick each"
    assert long_enough(np.array([True] * 2 + [False] + [True] * 3), 3).tolist() == [False] * 3 + [
        True] * 3  # fmt: skip
    assert joined(np.array([False, True, True, True])).tolist() == [True, True, False, False]


def test_groups_of_equal_curves_are_named() -> None:
    lines = [
        pair(WAVE),
        pair(WAVE + 5),
        pair(WAVE),
        pair(WAVE + 5),
        pair(WAVE),
        pair(WAVE[:9], X[:9]),
    ]
    finite = [np.isfinite(y) for _, y in lines]
    assert together(overlaps(lines, 0.01), finite) == [[0, 2, 4], [1, 3]]
    nothing = [pair(np.full(4, np.nan), X[:4])] * 2
    assert together(overlaps(nothing, 0.01), [np.isfinite(y) for _, y in nothing]) == []


@pytest.mark.parametrize("many", [2, 3, 6])
def test_the_dashes_of_equal_lines_follow_each_other(many: int) -> None:
    found = overlaps([pair(WAVE)] * many, 0.01)
    length = 60 * many
    seen = np.zeros(length, int)  # who is on top along the curve
    for place in range(1, many):
        mask, (offset, (dash, space)) = stripes(found, place)
        assert mask.all()
        phase = (np.arange(length) / 10 * dash + offset) % (dash + space)
        seen[phase < dash - 1e-9] = place
    counts = np.bincount(seen, minlength=many)
    assert counts.min() >= 0.8 * length / many, counts


def test_a_chart_of_equal_lines_shows_each() -> None:
    lines = [Line(X, 100 * WAVE, colour) for colour in (BLUE, ORANGE, GREEN)]
    svg = lines_chart("t", lines, "x", "y")
    dashed = [each for each in re.findall(r"<path[^>]*>", svg) if "stroke-dasharray" in each]
    assert [name for name in ("blue", "orange", "green")
            if any(f"--{name}" in each for each in dashed)] == ["orange", "green"]  # fmt: skip
    apart = lines_chart("t", [Line(X, WAVE, BLUE), Line(X, WAVE + 2, ORANGE)], "x", "y")
    assert "stroke-dasharray" not in apart
    low = np.where(X > 3, 1 + WAVE * 1e-3, 100.0)
    assert lying([Line(X, low, BLUE), Line(X, low + 0.1, ORANGE)], log=False)[1].sum() == 0, (
        "as near as the part that is shown has it"
    )


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("ticks", [50, 900, 2100, 2900])
def test_a_long_noisy_copy_that_went_on_lies_on_its_source(ticks: int, log: bool) -> None:
    """More points than a chart shows: other ones are left of each line."""
    random = np.random.default_rng(7)
    x = np.arange(1.0, 3001.0)
    y = 1e-4 * np.abs(np.cumsum(random.normal(size=3000))) + random.uniform(0.1, 1.0, 3000)
    other = np.where(x <= ticks, y, y[::-1] + 2)
    source, copy = Line(x, y, BLUE), Line(x[:ticks], y[:ticks], ORANGE)
    for lines in ([source, copy], [copy, source]):
        ((on,),) = lying(lines, log)[1:]
        kept, _ = thin(lines[1].x, lines[1].y, log=ticks == 50)
        assert (on == (kept <= ticks)).all()
    ((on,),) = lying([source, Line(x, other, GREEN)], log)[1:]
    assert (on == (thin(x, other)[0] <= ticks)).all(), "and so does a branch, up to where it left"


def test_a_long_run_is_drawn_from_its_start_on_a_logarithmic_axis() -> None:
    x = np.arange(1.0, 100_001.0)
    kept, _ = thin(x, np.sin(x), log=True)
    assert len(kept) <= 402
    assert (kept <= 100).sum() > 60
    assert (thin(x, np.sin(x))[0] <= 100).sum() < 4
    assert len(thin(x - 1, np.sin(x), log=True)[0]) <= 402, "an x of 0 has no logarithm"
