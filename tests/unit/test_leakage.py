import numpy as np
import pytest

from sunpipe.latent.calibrate import curve, response
from sunpipe.latent.leakage import leaks, natural, ratio_interval
from sunpipe.latent.walks import Walk

STEPS = np.linspace(-3, 3, 7)


def made(values, names, units, kind="plain"):
    return Walk(
        target=names[0], kind=kind, steps=STEPS, sigma=1.0, rows=np.arange(len(values)),
        names=names, units=units, values=values,
        images=np.zeros((0, 7, 1, 8, 8), np.float32), channels=["Br"], pixel_cm=1e8,
    )  # fmt: skip


def test_response_is_the_slope_and_ignores_a_blown_up_end():
    values = np.array([[2.0], [5.0]]) * STEPS + 100
    np.testing.assert_allclose(response(STEPS, values), [2, 5])
    values[0, -1] = 1e30
    values[1, 0] = np.nan
    np.testing.assert_allclose(response(STEPS, values), [2, 5])


def test_response_needs_two_thirds_of_the_steps():
    values = np.stack([STEPS, STEPS]).astype(float)
    values[0, :3] = np.nan
    values[1, :2] = np.inf
    found = response(STEPS, values)
    assert np.isnan(found[0])
    assert found[1] == pytest.approx(1)


def test_natural_deviation_is_robust_and_undefined_for_constants():
    random = np.random.default_rng(0)
    values = np.stack([random.standard_normal(20_000) * 4, np.ones(20_000)], axis=1)
    values[:50, 0] = 1e9
    values[50:90, 0] = np.nan
    found = natural(values)
    assert found[0] == pytest.approx(4, rel=0.03)
    assert np.isnan(found[1])


def test_leak_of_a_planted_coupling_in_its_units():
    random = np.random.default_rng(1)
    gains = 1 + 0.2 * random.standard_normal(40)
    target = 3e21 * gains[:, None] * STEPS + 1e22
    other = -2.0 * gains[:, None] * STEPS + 60
    still = 0.01 * random.standard_normal((40, 7))
    walk = made(np.stack([target, other, still], axis=2), ["USFLUX", "MEANGAM", "X"],
                ["Mx", "deg", ""])  # fmt: skip
    rows = leaks(walk, np.array([6e21, 8.0, 1.0]), seed=0)
    own, leak, none = rows
    assert own["slope"] == pytest.approx(1)
    # -2 deg per step is -1/4 natural deviation, the target moves 1/2 of its own: ratio -1/2
    assert leak["slope"] == pytest.approx(-0.5, rel=0.02)
    assert leak["low"] <= leak["slope"] <= leak["high"] < 0
    assert leak["unit_slope"] == pytest.approx(-2 / 3e21, rel=0.02)
    assert leak["unit"] == "deg per Mx"
    assert none["low"] < 0 < none["high"]
    assert abs(none["slope"]) < 0.02
    assert not leak["conditional"]


def test_nothing_is_said_per_unit_of_a_target_that_does_not_move():
    random = np.random.default_rng(2)
    flat, other = random.standard_normal(30), np.ones(30)
    assert ratio_interval(flat - flat.mean(), other, 0) == (None, None, None)
    assert ratio_interval(np.ones(3), np.ones(3), 0) == (None, None, None)
    assert ratio_interval(np.full(10, np.nan), np.ones(10), 0) == (None, None, None)


def test_interval_is_pure_in_the_seed():
    random = np.random.default_rng(3)
    target, other = 1 + 0.3 * random.standard_normal((2, 50))
    assert ratio_interval(target, other, 7) == ratio_interval(target, other, 7)


def test_curve_says_where_it_falls_and_survives_nan():
    values = np.stack([STEPS, STEPS + 1, STEPS + 2]).astype(float)
    found = curve(STEPS, values)
    assert found["monotone"]
    assert found["rising_share"] == 1
    assert found["median"][3] == pytest.approx(1)
    assert found["p16"][0] < found["median"][0] < found["p84"][0]
    values[:, 5] = values[:, 4] - 1
    assert not curve(STEPS, values)["monotone"]
    values[:, 0] = np.nan
    holed = curve(STEPS, values)
    assert holed["median"][0] is None
    assert not holed["monotone"]
    assert holed["undefined"] == pytest.approx(1 / 7)


def test_the_picture_depends_on_the_rows_alone(tmp_path):
    from PIL import Image

    from sunpipe.latent.leakage_picture import picture

    def row(target, quantity, conditional, slope, low, high):
        return {"target": target, "quantity": quantity, "conditional": conditional,
                "slope": slope, "low": low, "high": high}  # fmt: skip

    cells = [(kind, target, name) for kind in (False, True) for target in "AB" for name in "ABC"]
    rows = [row(target, name, kind, 1.0 if name == target else -0.6, -0.7, -0.5)
            for kind, target, name in cells]  # fmt: skip
    rows[-1] = row("B", "C", True, None, None, None)
    for name in ("one", "two"):
        picture(rows, tmp_path / f"{name}.png")
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()
    with Image.open(tmp_path / "one.png") as image:
        assert image.width > image.height > 300
    picture([row("A", "A", False, 1.0, 1.0, 1.0)], tmp_path / "single.png")
