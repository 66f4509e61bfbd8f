"""Quantising, QUALITY, placing rows, splits: arithmetic with plain values."""

from __future__ import annotations

import numpy as np
import pytest

from preprocess.dataset.table import SHARP_FLOATS, SHARP_TEXTS, keyword_values
from preprocess.quality import decode, refusal, signed
from sunpipe.config import validate
from sunpipe.errors import ConfigError
from sunpipe.fitsfile import FitsError
from sunpipe.shards.stored import Stored


@pytest.mark.parametrize(("dtype", "top"), [("int16", 6500), ("float16", 65000), ("float32", 1e6)])
def test_the_error_of_rounding_is_the_stated_one(dtype: str, top: float) -> None:
    image = np.random.default_rng(1).uniform(-top, top, (3, 32, 32))
    stored = Stored(dtype)
    found = stored.quantise(image)
    assert found.dtype == np.dtype(dtype)
    absolute, relative = stored.errors
    allowed = np.maximum(absolute, relative * np.abs(image))
    assert (np.abs(found.astype(float) * stored.scale - image) <= allowed * (1 + 1e-9)).all()


def test_a_step_can_be_the_archives_own() -> None:
    counts = np.arange(-100, 100).reshape(1, 10, 20)
    assert np.array_equal(Stored("int16", 0.1).quantise(counts * 0.1), counts)


@pytest.mark.parametrize("value", [6553.6, -7000.0, np.nan, np.inf])
def test_a_value_that_does_not_fit_is_never_clipped(value: float) -> None:
    with pytest.raises(FitsError) as caught:
        Stored("int16").quantise(np.array([[[value]]]))
    assert caught.value.reason == "overflow"


def test_quality_is_signed() -> None:
    assert signed(0x80000000) == -(2**31)
    assert signed(-(2**31)) == -(2**31)
    assert signed(72704) == 72704


def test_quality_bits_have_names() -> None:
    assert decode(0x80000220) == ["NODATA", "ECLIPSE", "POORQUALITY"]
    assert decode(72704) == ["LOWINTERPNUM", "NOGAPFILL", "LIMBFITISSUE", "NOCOSMICRAY"]
    assert decode(0) == []


@pytest.mark.parametrize(
    ("quality", "strict", "usual", "lenient"),
    [
        (0, True, True, True),
        (0x400, False, True, True),
        (65536, False, True, True),
        (72704, False, False, True),
        (0x200, False, False, True),
        (0x20, False, False, True),
        (-(2**31), False, False, False),
        (0x80000000, False, False, False),
    ],
)
def test_quality_policies(quality: int, strict: bool, usual: bool, lenient: bool) -> None:
    found = [refusal(quality, policy) is None for policy in ("strict", "usual", "lenient")]
    assert found == [strict, usual, lenient]


def test_a_refusal_names_the_bits() -> None:
    assert "ECLIPSE" in str(refusal(0x200, "usual"))


def test_keywords_without_a_value_are_null() -> None:
    header = {"R_VALUE": float("nan"), "ERRMSHA": float("inf"), "USFLUX": 3,
              "DATE-OBS": "2011-02-15T01:58:12.30"}  # fmt: skip
    values = keyword_values(header, SHARP_FLOATS, SHARP_TEXTS)
    assert (values["R_VALUE"], values["ERRMSHA"], values["MEANGAM"]) == (None, None, None)
    assert values["USFLUX"] == 3.0
    assert values["DATE__OBS"] == "2011-02-15T01:58:12.30"


def test_tile_must_be_a_multiple_of_reduce() -> None:
    with pytest.raises(ConfigError, match=r"shard.*128.*multiple"):
        validate({"name": "x", "shard": {"reduce": 3}})
