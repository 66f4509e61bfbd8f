"""RICE decoding: equal to the bit, in every form, and harmless on damaged streams."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest

from sunpipe.fits import parse_segment
from sunpipe.fitsfile import FitsError, units
from sunpipe.fitspixels import _astropy_rice
from sunpipe.fitsreduced import parse_reduced
from sunpipe.rice import bands, rice_image
from sunpipe.shards.cut import reduce_field
from tests.conftest import REPO
from tests.unit.rice_file import encode, rice_file

LIMITS = {8: (0, 255), 16: (-(2**15), 2**15 - 1), 32: (-(2**31), 2**31 - 1)}


def sun(shape: tuple[int, int], bits: int, seed: int = 0) -> np.ndarray:
    """Constant, smooth, noisy and wild parts, so that every code of a block occurs."""
    rng = np.random.default_rng(seed)
    low, high = LIMITS[bits]
    image = np.rint(rng.normal(0, 1.5 ** rng.uniform(0, 2 * bits - 4, (shape[0], 1)), shape))
    image += (low + high + 1) // 2
    image[: shape[0] // 5] = low  # as BLANK off the disc
    image[:, : shape[1] // 7] = image[:, :1]
    wild = rng.random(shape) < 0.002
    image[wild] = rng.integers(low, high + 1, wild.sum())
    image[-1] = rng.integers(low, high + 1, shape[1])
    return np.clip(image, low, high).astype(np.int64)


def decoded(raw: bytes, shape: tuple[int, int]) -> np.ndarray:
    image = rice_image(raw, units(raw, "x")[-1], shape, "x")
    assert image is not None
    out = np.empty(shape, np.int64)
    for first, band in bands(image):
        out[first : first + len(band)] = band
    return out


def refused(raw: bytes, read: Callable[..., object] = parse_segment) -> str:
    with pytest.raises(FitsError) as caught:
        read(raw, "x.fits")
    assert "\n" not in str(caught.value)
    return caught.value.reason


@pytest.mark.parametrize("bits", [8, 16, 32])
@pytest.mark.parametrize("block", [16, 32])
@pytest.mark.parametrize(
    ("shape", "tile"),
    [
        ((41, 333), (1, 333)),  # rows, as the archive writes
        ((6, 64), (6, 64)),  # one tile
        ((9, 70), (4, 70)),  # some rows, the last tile lower
        ((23, 101), (7, 30)),  # cut at both edges
        ((12, 40), (1, 8)),  # tiles shorter than a block
        ((5, 3), (1, 1)),
        ((1, 1), (1, 1)),
    ],
)
def test_integers_equal_the_original_and_those_of_astropy(
    bits: int, block: int, shape: tuple[int, int], tile: tuple[int, int]
) -> None:
    image = sun(shape, bits)
    raw = rice_file(image, bits, tile, block)
    assert np.array_equal(decoded(raw, shape), image)
    assert np.array_equal(_astropy_rice(raw, units(raw, "x")[-1], shape, "x"), image)


@pytest.mark.parametrize("bits", [8, 16, 32])
def test_every_split_and_long_runs_of_zeros(bits: int) -> None:
    """Splits that no encoder would choose: runs of zeros far longer than a machine word."""
    rng = np.random.default_rng(bits)
    top = {8: 6, 16: 14, 32: 25}[bits]
    image = np.cumsum(np.rint(rng.normal(0, 40, (9, 200))), axis=1).astype(np.int64)
    image = (image - LIMITS[bits][0]) % 2**bits + LIMITS[bits][0]
    raw = rice_file(image, bits, (1, 200), splits=lambda number: (5 * number) % (top + 1))
    assert np.array_equal(decoded(raw, image.shape), image)
    assert np.array_equal(_astropy_rice(raw, units(raw, "x")[-1], image.shape, "x"), image)


def test_wide_descriptors_and_a_gap_before_the_heap() -> None:
    image = sun((7, 50), 16)
    for form, gap in (("P", 0), ("P", 13), ("Q", 0), ("Q", 40)):
        assert np.array_equal(
            decoded(rice_file(image, 16, (1, 50), form=form, gap=gap), (7, 50)), image
        )


@pytest.mark.parametrize("cards", [{"ZVAL2": 4}, {"ZVAL1": 8}, {"ZNAME1": "OTHER"}])
def test_rarer_forms_are_left_to_astropy(cards: dict[str, object]) -> None:
    """16 bits stored in 32, blocks of 8: not covered, but right."""
    image = sun((6, 64), 16)
    bits, block = (32, 32) if "ZVAL2" in cards else (16, cards.get("ZVAL1", 32))
    streams = [encode(row, bits, int(block)) for row in image]
    raw = rice_file(image, 16, (1, 64), streams=streams, **cards)
    assert rice_image(raw, units(raw, "x")[-1], image.shape, "x") is None
    assert np.array_equal(parse_segment(raw, "x").data, image)
    small = parse_reduced(raw, "x", 2)
    assert np.array_equal(small.data, image.reshape(3, 2, 32, 2).mean(axis=(1, 3)))


@pytest.mark.parametrize(("bits", "blank"), [(8, 0), (16, -(2**15)), (32, -(2**31)), (16, 2**40)])
@pytest.mark.parametrize("factor", [1, 2, 3, 4, 5, 8])
def test_fused_means_are_those_of_the_shards(bits: int, blank: int, factor: int) -> None:
    image = sun((120, 240), bits, seed=bits)
    raw = rice_file(image, bits, (1, 240), BLANK=blank, BSCALE=0.5, BZERO=3.0)
    full = parse_segment(raw, "x").data
    assert np.array_equal(full, np.where(image == blank, np.nan, image * 0.5 + 3.0), equal_nan=True)
    half = parse_segment(raw, "x", dtype="float32").data
    assert half.dtype == np.float32
    assert np.array_equal(half, full.astype(np.float32), equal_nan=True)
    small = parse_reduced(raw, "x", factor)
    means, mask = reduce_field(full[None], factor)
    assert small.data.dtype == np.float32
    assert np.array_equal(np.isfinite(small.data), mask)
    np.testing.assert_allclose(small.data[mask], means[0][mask], rtol=1e-6, atol=1e-6)
    blocks = np.isfinite(full).reshape(120 // factor, factor, 240 // factor, factor)
    assert np.array_equal(small.count, blocks.sum(axis=(1, 3)))


def test_a_factor_that_does_not_fit() -> None:
    raw = rice_file(sun((12, 16), 16), 16, (1, 16))
    for factor in (5, 0, -4, 16, True):
        assert refused(raw, lambda r, n, f=factor: parse_reduced(r, n, f)) == "geometry"


@pytest.mark.parametrize(
    "cards",
    [
        {"ZNAXIS1": 4096, "ZNAXIS2": 4096},
        {"ZTILE1": 17},
        {"ZTILE2": 2},
        {"NAXIS1": 16},
        {"THEAP": 10**6},
        {"THEAP": 3},
        {"PCOUNT": 10},
        {"TFORM1": "1QB(30)"},
        {"ZBITPIX": 32, "ZVAL2": 4},
        {"ZVAL1": 16},
        {"BSCALE": 1e300},
    ],
)
def test_headers_that_lie_are_refused(cards: dict[str, object]) -> None:
    image = sun((12, 48), 16)
    assert refused(rice_file(image, 16, (1, 48), **cards)) == "corrupt"


def test_streams_that_end_early_or_late_are_refused() -> None:
    image = sun((5, 90), 32)
    whole = [encode(row, 32, 32) for row in image]
    for number, change in ((0, b""), (2, whole[2][:-1]), (3, whole[3] + b"\0"), (4, whole[4][:3])):
        streams = [*whole[:number], change, *whole[number + 1 :]]
        assert refused(rice_file(image, 32, (1, 90), streams=streams)) == "corrupt", number


def test_a_code_that_the_standard_does_not_know() -> None:
    stream = int("0" * 32 + "11111" + "1" * 40 + "000", 2).to_bytes(10, "big")
    assert refused(rice_file(np.zeros((1, 8)), 32, (1, 8), streams=[stream])) == "corrupt"


def test_the_forbidden_pages_kill() -> None:
    """Else the next test would show nothing."""
    code = "from tests.unit.rice_fuzz import *; import ctypes; f = Fence(9);"
    code += " print(f.array(9, np.uint8, True).sum(), flush=True);"
    code += " ctypes.string_at(f.base + (1 + f.pages) * PAGE, 1)"
    run = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, check=False)
    assert run.stdout == b"0\n"
    assert run.returncode == -signal.SIGSEGV


def test_fuzz_between_forbidden_pages() -> None:
    """Random streams between pages of memory that kill the child process when touched."""
    run = subprocess.run(
        [sys.executable, "-W", "error", "-m", "tests.unit.rice_fuzz", "20000", "400"],
        capture_output=True, text=True, timeout=240, cwd=REPO, check=False,
    )  # fmt: skip
    assert run.returncode == 0, (run.returncode, run.stderr[-2000:])
    found = json.loads(run.stdout)
    assert found["streams"] == 20000
    assert found["decoded"] > 500  # the fuzz reaches the end of streams, and not only errors
    assert found["files"] == 400
    assert found["refused"] + found["read"] == 400
    assert found["refused"] > 100
    assert found["largest_seconds"] < 5.0
