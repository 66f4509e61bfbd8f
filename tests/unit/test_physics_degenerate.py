"""Awkward input: nothing crashes, nothing undefined is a number, every null has its reason."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from sunpipe.errors import DataError
from sunpipe.physics import (
    QUANTITIES,
    SharpKeywords,
    measure,
    sharp_keywords,
    sharp_keywords_los,
)

HEADER = {
    "CDELT1": 0.03, "RSUN_REF": 696000000, "RSUN_OBS": 971.671936, "DSUN_OBS": 147746220503.41,
    "CRPIX1": 12.5, "CRPIX2": 10.5, "CRVAL1": 34.9, "CRVAL2": -21.1, "CRLN_OBS": 21.7,
    "CRLT_OBS": -6.8,
}  # fmt: skip
SHAPE = (20, 24)
COUNTS = {"AREA_MM2", "CMASKL", "AREA_ACR"}
Array = np.ndarray


def field(shape: tuple[int, int] = SHAPE) -> Array:
    """Strong waves in all components, (3, H, W) gauss."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    return 900 * np.stack((np.sin(x / 3), np.cos(y / 4 + x / 7), np.cos((x + y) / 5)))


def maps(shape: tuple[int, int] = SHAPE) -> dict[str, Array]:
    """Maps in which everything counts and is active, and a line-of-sight field."""
    return {
        "bitmap": np.full(shape, 34), "conf_disambig": np.full(shape, 90),
        "los": 800 * field(shape)[0] / 900,
    }  # fmt: skip


def checked(found: SharpKeywords) -> SharpKeywords:
    """What holds of any result: finite numbers, or null with a reason of its own."""
    assert set(found.keywords) == set(QUANTITIES)
    values = found.keywords | found.errors
    assert {name for name, value in values.items() if value is None} == set(found.reasons)
    assert all(value is None or math.isfinite(value) for value in values.values())
    assert "undefined for this field" not in found.reasons.values()
    return found


def nulls(found: SharpKeywords) -> set[str]:
    return {name for name, value in found.keywords.items() if value is None}


@pytest.fixture(params=["jsoc", "physical"])
def convention(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_a_whole_patch_has_everything(convention: str) -> None:
    noise = np.full((3, *SHAPE), 9.0)
    found = checked(sharp_keywords(field(), HEADER, sigma=noise, convention=convention, **maps()))
    assert found.reasons == {}
    assert found.errors.keys() == {q.error for q in QUANTITIES.values() if q.error}


@pytest.mark.parametrize(
    "shape", [(5, 5), (1, 1), (2, 2), (1, 40), (40, 1), (3, 3), (7, 64), (0, 5), (0, 0)]
)
def test_small_patches_have_nothing(shape: tuple[int, int], convention: str) -> None:
    noise = np.full((3, *shape), 9.0)
    found = checked(
        sharp_keywords(field(shape), HEADER, sigma=noise, convention=convention, **maps(shape))
    )
    assert nulls(found) == set(QUANTITIES)
    assert set(found.reasons.values()) == {
        f"a patch of {shape[0]} x {shape[1]} pixels is too small; 8 x 8 is the least"
    }
    batch = measure(torch.tensor(field(shape))[None], 3.6e7, convention=convention)
    assert all(value.shape == (1,) and value.isnan().all() for value in batch.values())
    alone = checked(sharp_keywords_los(maps(shape)["los"], HEADER, convention=convention))
    assert nulls(alone) == set(QUANTITIES)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_no_valid_pixel(bad: float, convention: str) -> None:
    given = maps()
    found = checked(
        sharp_keywords(np.full((3, *SHAPE), bad), HEADER, convention=convention, **given)
    )
    assert found.cmask == 0
    assert found.reasons["USFLUX"] == "the field has no valid pixel"
    assert found.keywords["AREA_MM2"] is None
    assert found.reasons["AREA_MM2"] == "the field has no valid pixel"
    given["los"] = np.full(SHAPE, bad)
    found = checked(sharp_keywords(field(), HEADER, convention=convention, **given))
    assert found.reasons["MEANGBL"] == "the line-of-sight magnetogram has no valid pixel"
    alone = checked(sharp_keywords_los(given["los"], HEADER, convention=convention))
    assert alone.reasons["R_VALUE"] == "the line-of-sight magnetogram has no valid pixel"


def test_a_field_of_zeros_is_no_measurement(convention: str) -> None:
    given = maps() | {"los": np.zeros(SHAPE)}
    found = checked(sharp_keywords(np.zeros((3, *SHAPE)), HEADER, convention=convention, **given))
    assert nulls(found) == set(QUANTITIES) - COUNTS
    assert found.reasons["USFLUX"] == "the field is 0 in the whole mask"
    assert found.reasons["USFLUXL"] == "the line-of-sight magnetogram is 0 everywhere"
    batch = measure(torch.zeros(1, 3, *SHAPE), 3.6e7, torch.ones(1, *SHAPE), convention=convention)
    assert batch["USFLUX"].isnan()


def test_no_pixel_in_the_mask(convention: str) -> None:
    given = maps() | {"bitmap": np.ones(SHAPE)}
    found = checked(sharp_keywords(field(), HEADER, convention=convention, **given))
    assert nulls(found) == set(QUANTITIES) - COUNTS - {"R_VALUE"}
    assert "bitmap >= 30" in found.reasons["TOTPOT"]
    assert "in the HARP" in found.reasons["USFLUXL"]
    assert found.keywords["AREA_ACR"] == 0


def test_a_mask_on_the_frame_has_no_currents(convention: str) -> None:
    conf = np.zeros(SHAPE)
    conf[0], conf[:, -1] = 90, 90
    given = maps() | {"conf_disambig": conf}
    found = checked(sharp_keywords(field(), HEADER, convention=convention, **given))
    for name in ("MEANJZD", "TOTUSJZ", "MEANALP", "SAVNCPP", "TOTUSJH", "MEANGBT"):
        assert "valid neighbours" in found.reasons[name]
    assert found.keywords["USFLUX"] is not None


def test_one_polarity(convention: str) -> None:
    fields = field()
    fields[0] = 500 + 0.2 * fields[0]
    given = maps() | {"los": fields[0]}
    found = checked(sharp_keywords(fields, HEADER, convention=convention, **given))
    assert (
        found.reasons["POLSEP"] == found.reasons["TILT"] == ("only one polarity stands in the mask")
    )
    assert found.keywords["FLUXIMB"] == 1
    if convention == "jsoc":
        assert found.keywords["R_VALUE"] == 0  # the published rule, as in many headers
    else:
        assert "inversion line" in found.reasons["R_VALUE"]


def test_islands_of_nan_are_left_out(convention: str) -> None:
    fields, given = field((60, 70)), maps((60, 70))
    fields[:, 10:20, 30:41] = math.nan
    fields[1, 40:45, 5:9] = math.inf
    given["los"][30:33, 50:60] = math.nan
    found = checked(sharp_keywords(fields, HEADER, convention=convention, **given))
    assert found.reasons == {}
    assert found.cmask == 60 * 70 - 110 - 20
    assert found.keywords["CMASKL"] == 60 * 70 - 30
    # Within an island's reach nothing counts, so what stands under it does not matter.
    other = given | {"conf_disambig": np.where(np.isfinite(fields).all(axis=0), 90, 0)}
    fields = np.where(np.isfinite(fields), fields, 0.0)
    masked = sharp_keywords(fields, HEADER, convention=convention, **other).keywords
    assert masked["USFLUX"] == pytest.approx(found.keywords["USFLUX"], rel=1e-12)
    assert masked["MEANGBZ"] > found.keywords["MEANGBZ"]  # the edge of zeros is no real gradient


def test_isolated_valid_pixels_have_no_gradient(convention: str) -> None:
    fields = np.full((3, *SHAPE), math.nan)
    fields[:, 3::4, 3::4] = field()[:, 3::4, 3::4]
    found = checked(sharp_keywords(fields, HEADER, convention=convention, **maps()))
    assert found.reasons["MEANGBZ"] == ("no pixel of the mask has valid neighbours and a gradient")
    assert found.keywords["USFLUX"] is not None


def test_a_field_beyond_numbers_is_null(convention: str) -> None:
    found = checked(sharp_keywords(1e200 * field(), HEADER, convention=convention, **maps()))
    assert "too strong" in found.reasons["TOTPOT"]
    for name in ("MEANSHR", "SHRGT45"):  # inf against inf is no angle of 45 degrees
        assert found.keywords[name] is None
        assert "too strong" in found.reasons[name]


def test_errors_without_a_valid_pixel(convention: str) -> None:
    noise = np.full((3, *SHAPE), math.nan)
    found = checked(sharp_keywords(field(), HEADER, sigma=noise, convention=convention, **maps()))
    assert set(found.errors.values()) == {None}
    assert found.reasons["ERRVF"] == "no pixel that counts has a valid error"


def test_active_area_needs_the_bitmap_and_jsoc_the_place() -> None:
    given = maps()
    bare = {name: value for name, value in HEADER.items() if not name.startswith("CR")}
    found = checked(sharp_keywords(field(), bare, **given))
    assert found.reasons == {
        "AREA_ACR": "header card CRPIX1 is missing; it is needed for the place on the disk"
    }
    assert sharp_keywords(field(), bare, convention="physical", **given).reasons == {}
    del given["bitmap"]
    assert "bitmap" in checked(sharp_keywords(field(), HEADER, **given)).reasons["AREA_ACR"]


def test_the_line_of_sight_alone(convention: str) -> None:
    given = maps()
    whole = sharp_keywords(field(), HEADER, convention=convention, **given).keywords
    found = checked(
        sharp_keywords_los(given["los"], HEADER, bitmap=given["bitmap"], convention=convention)
    )
    assert found.mask == "given"
    known = {name for name, quantity in QUANTITIES.items() if not quantity.needs_vector}
    assert known == {"R_VALUE", "AREA_ACR", "USFLUXL", "MEANGBL", "CMASKL"}
    assert nulls(found) == set(QUANTITIES) - known
    for name in known - {"R_VALUE"}:
        assert found.keywords[name] == pytest.approx(whole[name], rel=1e-12)
    assert found.reasons["USFLUX"] == "needs the vector field: Br, Bt and Bp"
    estimated = sharp_keywords_los(given["los"], HEADER, convention=convention)
    assert estimated.mask == "estimated"
    assert estimated.cmask == SHAPE[0] * SHAPE[1]


def test_shapes_that_differ_are_refused() -> None:
    with pytest.raises(DataError, match="bitmap has"):
        sharp_keywords_los(maps()["los"], HEADER, bitmap=np.ones((3, 3)))
    with pytest.raises(ValueError, match="los must be"):
        sharp_keywords_los(field(), HEADER)
    with pytest.raises(DataError, match="errors are"):
        sharp_keywords(field(), HEADER, sigma=np.ones((2, *SHAPE)))


def spoiled(rng: np.random.Generator, kind: int) -> Array:
    """A random field of any strength, with one kind of fault."""
    shape = tuple(rng.integers(0, 30, 2) if kind == 0 else rng.integers(8, 24, 2))
    fields = rng.normal(size=(3, *shape)) * 10 ** rng.uniform(-6, 5)
    if kind == 1:
        fields[:, rng.random(shape) < rng.random()] = math.nan
    elif kind in (2, 3):
        fields[rng.random(fields.shape) < rng.random()] = (math.inf, 0.0)[kind - 2]
    elif kind == 4:
        fields[0] = abs(fields[0])
    elif kind in (5, 6):
        fields[slice(0, 1) if kind == 5 else slice(1, 3)] = 0
    elif kind == 7:
        fields[:] = rng.normal() * 300
    return fields


@pytest.mark.parametrize("kind", range(8))
def test_whatever_comes_every_null_has_a_reason(kind: int) -> None:
    rng = np.random.default_rng(kind)
    for _ in range(12):
        fields = spoiled(rng, kind)
        shape = fields.shape[1:]
        codes = {"bitmap": [0, 1, 2, 33, 34], "conf_disambig": [0, 50, 60, 90]}
        given = {
            name: rng.choice(some, shape, p=rng.dirichlet([0.3] * len(some)))
            for name, some in codes.items()
            if rng.random() < 0.7
        }
        noise = abs(rng.normal(size=fields.shape))
        noise[rng.random(noise.shape) < rng.choice([0, 0.5, 0.95])] = math.nan
        los = fields[0] if rng.random() < 0.7 else None
        for rules in ("jsoc", "physical"):
            checked(sharp_keywords(fields, HEADER, sigma=noise, los=los, convention=rules, **given))
            checked(
                sharp_keywords_los(fields[1], HEADER, bitmap=given.get("bitmap"), convention=rules)
            )
