"""ADA's rule: how far p moves, when it stops, and that its state is exact."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from sunpipe.errors import DataError
from sunpipe.train import ada
from sunpipe.train.ada import Ada
from sunpipe.train_settings import AdaSettings

CPU = torch.device("cpu")
SETTINGS = AdaSettings(target=0.6, interval=4, kimg=500.0)


def after(logits: list[float], *, p: float = 0.5, settings: AdaSettings = SETTINGS) -> float:
    state = Ada(torch.tensor(p, dtype=torch.float64), *(torch.tensor(0) for _ in range(2)))
    state = ada.observe(state, ada.count_signs(torch.tensor(logits)), 1)
    return float(ada.adjust(state, settings, 32).p)


def test_p_takes_kimg_thousand_images_from_0_to_1() -> None:
    """With D sure of all real images, p rises by batch * interval images at a time."""
    state, batch, images = ada.start(CPU), 32, 0
    settings = AdaSettings(target=0.6, interval=4, kimg=0.64)
    while float(state.p) < 1:
        before = float(state.p)
        for _ in range(settings.interval):
            state = ada.observe(state, ada.count_signs(torch.ones(batch)), 1)
            images += batch
        state = ada.adjust(state, settings, batch)
        assert float(state.p) == pytest.approx(min(before + 128 / 640, 1.0))
    assert images == 640
    for _ in range(3):  # and stays there
        state = ada.adjust(ada.observe(state, ada.count_signs(torch.ones(4)), 1), settings, batch)
    assert float(state.p) == 1.0


def test_p_moves_by_the_sign_of_what_is_missing() -> None:
    step = 32 * 4 / 500_000
    assert after([1.0] * 9 + [-1.0]) == pytest.approx(0.5 + step)  # mean sign 0.8
    assert after([0.1] * 9 + [-99.0]) == pytest.approx(0.5 + step)  # signs, not sizes
    assert after([1.0] * 7 + [-1.0] * 3) == pytest.approx(0.5 - step)  # 0.4
    assert after([1.0] * 8 + [-1.0] * 2) == 0.5  # 0.6, as wanted
    assert after([0.0] * 4 + [1.0] * 6) == 0.5  # a logit of 0 counts as an image
    assert after([-1.0], p=0.0) == 0.0
    assert after([1.0], p=1.0) == 1.0


def test_r_is_the_mean_over_the_whole_interval() -> None:
    state = ada.start(CPU)
    for logits in ([1.0] * 30, [-1.0] * 2, [2.0, 2.0], [-3.0] * 2):
        state = ada.observe(state, ada.count_signs(torch.tensor(logits)), 1)
    assert int(state.signs) == 28
    assert int(state.count) == 36
    moved = ada.adjust(state, SETTINGS, 9)  # 28 / 36 > 0.6, the mean of four means is 0
    assert float(moved.p) == pytest.approx(36 / 500_000)
    assert int(moved.signs) == int(moved.count) == 0


def test_nothing_seen_and_nan_do_not_move_p() -> None:
    assert after([]) == 0.5
    assert after([float("nan")] * 3) == 0.5
    assert after([float("nan")] * 30 + [1.0]) > 0.5
    assert after([float("inf"), 1.0, 1.0, -1.0, 1.0]) == 0.5


def test_state_survives_a_checkpoint_exactly() -> None:
    state = ada.start(CPU)
    for step in range(7):
        state = ada.observe(state, ada.count_signs(torch.tensor([1.0, 1.0, 1.0, -1.0 + step])), 1)
        if step % 3 == 2:
            state = ada.adjust(state, SETTINGS, 32)
    again = ada.from_json(json.loads(json.dumps(ada.to_json(state))), CPU)
    for key in ("p", "signs", "count"):
        assert torch.equal(getattr(again, key), getattr(state, key))
        assert getattr(again, key).dtype == getattr(state, key).dtype
    assert int(state.count) == 4


@pytest.mark.parametrize(
    "data",
    [{}, {"p": 0.5}, {"p": 1.5, "signs": 0, "count": 0}, {"p": "0", "signs": 0, "count": 0},
     {"p": 0.5, "signs": 0.5, "count": 0}, {"p": float("nan"), "signs": 0, "count": 0},
     {"p": 0.5, "signs": 0, "count": 0, "more": 1}, {"p": 0.5, "signs": 0, "count": -1},
     {"p": True, "signs": 0, "count": 0}, {"p": 0.5, "signs": 3, "count": 2}],
)  # fmt: skip
def test_a_spoilt_state_is_refused(data: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="state of ADA cannot be used"):
        ada.from_json(data, CPU)
