"""What a tick tells: means of what was finite, and how often it was not."""

from __future__ import annotations

import math

import pytest
import torch

from sunpipe.dist import Ranks
from sunpipe.train.tick import Tick

ALONE = Ranks(0, 1, 0, "127.0.0.1", 0, "single")
CPU = torch.device("cpu")
NAN = math.nan


def filled(*losses: float, skipped: tuple[float, ...] = ()) -> Tick:
    tick = Tick(0, CPU)
    for place, loss in enumerate(losses):
        seen = {"loss_G": torch.tensor(loss), "logits_real": torch.tensor([float(place)])}
        if skipped:
            seen["skipped"] = torch.tensor(skipped[place])
        tick.add(seen)
    return tick


def test_means_are_over_finite_values() -> None:
    means = filled(1.0, NAN, 3.0).means(ALONE)
    assert means["loss_G"] == 2.0
    assert means["logits_real"] == 1.0
    assert (means["nonfinite_in_a_row"], means["nonfinite_now"]) == (1, 0)
    assert math.isnan(filled(NAN).means(ALONE)["loss_G"])


@pytest.mark.parametrize(
    ("losses", "longest", "now"),
    [((NAN, NAN, 1.0, NAN), 2, 1), ((1.0, 2.0), 0, 0), ((1.0, math.inf, NAN), 2, 2)],
)
def test_streaks(losses: tuple[float, ...], longest: int, now: int) -> None:
    means = filled(*losses).means(ALONE)
    assert (means["nonfinite_in_a_row"], means["nonfinite_now"]) == (longest, now)


def test_a_streak_goes_on_in_the_next_tick() -> None:
    tick = filled(1.0, NAN, NAN).next(100)
    tick.add({"loss_G": torch.tensor(NAN)})
    assert tick.means(ALONE)["nonfinite_in_a_row"] == 3


def test_skipped_parts_are_counted_and_are_no_success() -> None:
    means = filled(1.0, 1.0, 1.0, skipped=(0.0, 2.0, 1.0)).means(ALONE)
    assert means["skipped"] == 3
    assert means["nonfinite_in_a_row"] == 2
