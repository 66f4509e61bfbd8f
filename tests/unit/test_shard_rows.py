"""Quantising, QUALITY, placing rows, splits: arithmetic with plain values."""

from __future__ import annotations

import numpy as np
import pytest

from preprocess.build import check_splits, place_rows
from preprocess.quality import decode, refusal, signed
from preprocess.table import keyword_values
from sunpipe.config import validate
from sunpipe.errors import ConfigError, DataError
from sunpipe.fitsfile import FitsError
from sunpipe.shards.cut import MAX_ERRORS, SCALES, quantise


def test_int16_error_is_the_stated_one() -> None:
    image = np.random.default_rng(1).uniform(-6500, 6500, (3, 32, 32))
    stored = quantise(image, "int16")
    assert stored.dtype == np.int16
    assert np.abs(stored * SCALES["int16"] - image).max() <= MAX_ERRORS["int16"] + 1e-9


def test_float32_error_is_the_stated_one() -> None:
    image = np.random.default_rng(1).uniform(-8192, 8192, (3, 32, 32))
    assert np.abs(quantise(image, "float32") - image).max() <= MAX_ERRORS["float32"]


@pytest.mark.parametrize("value", [6553.6, -7000.0, np.nan, np.inf])
def test_a_value_that_does_not_fit_is_never_clipped(value: float) -> None:
    with pytest.raises(FitsError) as caught:
        quantise(np.array([[[value]]]), "int16")
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


def test_rows_fill_shards_in_order() -> None:
    rows = place_rows([{"record": str(n)} for n in range(5)], 2)
    assert [(row["shard"], row["position"]) for row in rows] == [
        (0, 0), (0, 1), (1, 0), (1, 1), (2, 0)]  # fmt: skip


def test_a_harp_on_both_sides_is_refused() -> None:
    rows = [{"harpnum": 377, "split": "train"}, {"harpnum": 377, "split": "test"}]
    with pytest.raises(DataError, match="377"):
        check_splits(rows)


def test_keywords_without_a_value_are_null() -> None:
    values = keyword_values({"R_VALUE": float("nan"), "ERRMSHA": float("inf"), "USFLUX": 3,
                             "DATE-OBS": "2011-02-15T01:58:12.30"})  # fmt: skip
    assert (values["R_VALUE"], values["ERRMSHA"], values["MEANGAM"]) == (None, None, None)
    assert values["USFLUX"] == 3.0
    assert values["DATE__OBS"] == "2011-02-15T01:58:12.30"


def test_tile_must_be_a_multiple_of_reduce() -> None:
    with pytest.raises(ConfigError, match=r"shard.*128.*multiple"):
        validate({"name": "x", "shard": {"reduce": 3}})
