"""Labels, amounts, parts, and walking to an asked change: plain values in, plain values out."""

import numpy as np
import pytest

from sunpipe.errors import ConfigError, UsageError
from sunpipe.latent.amount import parse_amount
from sunpipe.latent.calibrate import seek
from sunpipe.latent.labels import extremes, held_out, middle, unfit
from sunpipe.latent.measure import check_names, units
from sunpipe.latent.traverse import positions, shrink
from sunpipe.parts import parse_part, share


def test_extremes_and_middle_split_the_defined_samples():
    values = np.array([5.0, np.nan, 1, 2, 3, 4, 6, np.inf, 8, 7])
    marks = extremes(values, 0.25)
    np.testing.assert_array_equal(marks, [0, 0, -1, -1, 0, 0, 0, 0, 1, 1])
    np.testing.assert_array_equal(middle(values, marks), [1, 0, 0, 0, -1, -1, 1, 0, 0, 0])


def test_extremes_of_one_half_leave_no_middle():
    values = np.random.default_rng(0).standard_normal(100)
    marks = extremes(values, 0.5)
    assert (marks == 1).sum() == (marks == -1).sum() == 50
    assert not middle(values, marks).any()


def test_held_out_is_pure_and_never_all():
    mask = held_out(100, 0.3, seed=1)
    assert mask.sum() == 30
    assert np.array_equal(mask, held_out(100, 0.3, seed=1))
    assert not np.array_equal(mask, held_out(100, 0.3, seed=2))
    assert held_out(4, 0.99, 0).sum() == 3
    assert held_out(4, 0.01, 0).sum() == 1


def reason(values, share=0.25, dims=4, max_undefined=0.5):
    values = np.asarray(values, float)
    test = held_out(len(values), 0.3, 0)
    return unfit(values, extremes(values, share), test, dims, max_undefined)


def test_reasons_to_leave_a_quantity_out():
    values = np.random.default_rng(0).standard_normal(200)
    assert reason(values) is None
    assert reason(np.full(200, np.nan)) == "undefined for every sample"
    assert "the same value (7)" in str(reason(np.full(200, 7.0)))
    assert "2 distinct values" in str(reason(np.r_[np.zeros(190), np.ones(10)]))
    holed = values.copy()
    holed[:120] = np.nan
    assert "60% of the samples" in str(reason(holed))
    assert "learn 512 dimensions" in str(reason(values, dims=512))
    assert reason(holed, max_undefined=0.7) is None


@pytest.mark.parametrize(
    ("text", "unit", "amount"),
    [
        ("1e21Mx", "Mx", 1e21),
        ("-2.5e+20 Mx", "Mx", -2.5e20),
        ("3", "deg", 3.0),
        (".5 G^2/m", "G^2/m", 0.5),
        ("2 G**2 / m", "G^2/m", 2.0),
        ("7erg/cm^3", "erg/cm^3", 7.0),
        ("-5%", "%", -5.0),
    ],
)
def test_amounts(text, unit, amount):
    assert parse_amount(text, "Q", unit) == amount


@pytest.mark.parametrize("text", ["1e21G", "1 Wb", "5 mx"])
def test_another_unit_is_refused(text):
    with pytest.raises(UsageError, match="USFLUX is measured in Mx, not"):
        parse_amount(text, "USFLUX", "Mx")


@pytest.mark.parametrize("text", ["", "Mx", "nan", "inf Mx", "0 Mx", "1e999Mx", "--3", "1..2Mx"])
def test_no_amount_is_refused(text):
    with pytest.raises(UsageError):
        parse_amount(text, "USFLUX", "Mx")


def test_parts_share_everything_once():
    assert parse_part("1/4") == (1, 4)
    items = list("abcdefg")
    taken = [share(items, (part, 3)) for part in (1, 2, 3)]
    assert sorted(item for part in taken for item in part) == items
    for wrong in ("0/4", "5/4", "1", "1/0", "a/b", "-1/4", "1/4/2", ""):
        with pytest.raises(UsageError, match="write I/N"):
            parse_part(wrong)


def test_unknown_and_unmeasurable_quantities_are_named():
    with pytest.raises(ConfigError, match=r"did you mean USFLUX\?"):
        check_names(["usflux"], "sample.quantities")
    with pytest.raises(ConfigError, match="images of Br, Bt, Bp do not give USFLUXL"):
        check_names(["USFLUXL"], "sample.quantities")
    with pytest.raises(ConfigError, match="stands twice"):
        check_names(["POLSEP", "POLSEP"], "x")
    assert units(["USFLUX", "FLUXIMB"]) == ["Mx", ""]
    assert len(check_names([], "x")) > 15


def counted(function):
    calls = []

    def measure(steps):
        calls.append(len(steps))
        return function(np.asarray(steps, float))

    measure.calls = calls
    return measure


@pytest.mark.parametrize(
    ("function", "change"),
    [
        (lambda s: 10 + 2 * s, 5.0),
        (lambda s: 10 + 2 * s, -5.0),
        (lambda s: 1e22 * np.exp(0.7 * s), 3e22),
        (lambda s: 1e22 * np.exp(0.7 * s), -7e21),
        (lambda s: np.tanh(s), 0.9),
        (lambda s: s + 0.8 * np.sin(3 * s), 2.5),  # not monotone
        (lambda s: s**3, 1e-3),
    ],
)
def test_seek_reaches_what_was_asked(function, change):
    measure = counted(function)
    found = seek(measure, float(function(0.0)), change, -6, 6)
    assert found.reached
    assert found.after - found.before == pytest.approx(change, rel=0.05)
    assert found.after == pytest.approx(float(function(found.step)), rel=1e-12)
    assert np.sign(found.step) == np.sign(change)
    assert len(measure.calls) < 20


def test_seek_says_how_far_the_manifold_goes():
    found = seek(lambda s: 10 + s, 10.0, 50.0, -4, 3)
    assert not found.reached
    assert found.step == 3
    assert found.after == 13
    assert "ends at step 3.00" in found.reason


def test_seek_reports_the_best_before_a_turn():
    found = seek(lambda s: 4 - (s - 2) ** 2, 0.0, 10.0, -4, 4)
    assert not found.reached
    assert found.step == pytest.approx(2)
    assert found.after == pytest.approx(4)


@pytest.mark.parametrize("change", [5.0, -5.0])
def test_seek_walks_back_along_a_direction_that_lowers_the_value(change):
    found = seek(lambda s: 10 - 2 * s, 10.0, change, -6, 6, -1)
    assert found.reached
    assert found.step == pytest.approx(-change / 2, rel=0.05)
    assert found.after - found.before == pytest.approx(change, rel=0.05)
    short = seek(lambda s: 10 - 2 * s, 10.0, 50.0, -3, 6, -1)
    assert (short.step, short.reached) == (-3.0, False)
    assert "ends at step -3.00" in short.reason


def test_seek_that_moves_the_wrong_way_stays():
    found = seek(lambda s: -s, 0.0, 1.0, -4, 4)
    assert (found.step, found.reached) == (0.0, False)
    assert "did not move towards the goal" in found.reason


def test_seek_stops_where_the_value_is_undefined():
    found = seek(lambda s: np.where(s < 1, s, np.nan), 0.0, 5.0, -4, 4)
    assert not found.reached
    assert found.step == 0.75
    assert "undefined from step 1.00" in found.reason


def test_seek_does_not_call_a_jump_a_success():
    found = seek(lambda s: np.where(s < 1.1, 0.0, 10.0), 0.0, 5.0, -4, 4)
    assert not found.reached
    assert "jumps over the goal" in found.reason


def test_seek_without_room_does_not_move():
    found = seek(lambda s: s, 0.0, 1.0, -3, -1)
    assert (found.step, found.after, found.reached) == (0.0, 0.0, False)
    assert "already at the end" in found.reason


def test_positions_are_base_plus_steps():
    base = np.zeros((2, 3), np.float32)
    base[1] = 1
    moves = np.array([[1.0, 0, 0], [0, 2.0, 0]])
    found = positions(base, moves, np.array([-1.0, 0, 1]))
    assert found.shape == (2, 3, 3)
    np.testing.assert_array_equal(found[0], [[-1, 0, 0], [0, 0, 0], [1, 0, 0]])
    np.testing.assert_array_equal(found[1, 2], [1, 3, 1])


def test_pictures_are_reduced_by_whole_blocks():
    fields = np.random.default_rng(0).standard_normal((2, 3, 256, 256)).astype(np.float32)
    small = shrink(fields)
    assert small.shape == (2, 3, 128, 128)
    np.testing.assert_allclose(small[0, 0, 0, 0], fields[0, 0, :2, :2].mean(), rtol=1e-5)
    assert shrink(fields[..., :64, :64]) is not None
    assert shrink(fields[..., :64, :64]).shape == (2, 3, 64, 64)
