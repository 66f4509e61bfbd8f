"""Damage of five kinds: no crash, no hang, no other pixels or keywords.

Where a file carries checksums nothing may slip through. Where it has lost them
the statistics of the header stand guard, and what they cannot see is measured.
"""

from __future__ import annotations

import io
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from preprocess.acquire.sample import FOLDER
from sunpipe.fits import parse_segment
from sunpipe.fitsfile import FitsError
from sunpipe.fitsreduced import parse_reduced
from sunpipe.fitsstats import ABSOLUTE, KEYS, RELATIVE

EACH = 200
KINDS = ("truncated", "one bit", "16 header bytes", "512 zeros", "inserted")
NAMES = ("6060.20151030_000000_TAI.Br", "377.20110215_020000_TAI.conf_disambig",
         "377.20110215_020000_TAI.bitmap")  # fmt: skip


def segment(name: str) -> bytes:
    return Path(FOLDER / f"hmi.sharp_cea_720s.{name}.fits").read_bytes()


def without_sums(raw: bytes) -> bytes:
    for key in (b"CHECKSUM", b"DATASUM "):
        raw = raw.replace(key + b"=", b"COMMENT  ")
    return raw


def aia_like() -> bytes:
    """64 x 64 counts as int16, RICE, with checksums."""
    rng = np.random.default_rng(3)
    hdu = fits.CompImageHDU(rng.poisson(300, (64, 64)).astype(np.int16), tile_shape=(1, 64))
    hdu.header["TELESCOP"] = "SDO/AIA"
    out = io.BytesIO()
    hdu.writeto(out, checksum=True)
    return out.getvalue()


def mutate(raw: bytes, kind: str, header_end: int, rng: np.random.Generator) -> bytes:
    changed = bytearray(raw)
    place = int(rng.integers(len(raw)))
    if kind == "truncated":
        return raw[:place]
    if kind == "one bit":
        changed[place] ^= 1 << int(rng.integers(8))
    elif kind == "16 header bytes":
        for where in rng.integers(header_end, size=16):
            changed[where] = int(rng.integers(256))
    elif kind == "512 zeros":
        changed[place : place + 512] = bytes(len(changed[place : place + 512]))
    else:
        changed[place:place] = rng.bytes(int(rng.integers(1, 5000)))
    return bytes(changed)


def header_end(raw: bytes) -> int:
    """Where the header of the last unit ends."""
    last = max(raw.rfind(b"XTENSION="), 0)
    return raw.index(b"END".ljust(80), last) + 80


def campaign(raw: bytes, read, seed: int) -> tuple[Counter, list]:
    """(verdicts by kind, what was read though it is not the original)."""
    clean = read(raw)
    rng, end = np.random.default_rng(seed), header_end(raw)
    verdicts: Counter = Counter()
    other = []
    lines = 0
    for kind in KINDS:
        for _ in range(EACH):
            begin = time.perf_counter()
            try:
                found = read(mutate(raw, kind, end, rng))
            except FitsError as error:
                lines += str(error).count("\n")
                verdicts[kind, error.reason] += 1
                continue
            finally:
                assert time.perf_counter() - begin < 10
            pixels = np.array_equal(found.data, clean.data, equal_nan=True)
            same = pixels and repr(found.header) == repr(clean.header)
            verdicts[kind, "same" if same else "keyword" if pixels else "pixels"] += 1
            if not pixels:
                other.append(found.data)
    assert lines == 0  # every message is one line
    return verdicts, other


def full(raw: bytes):
    return parse_segment(raw, "x")


def small(raw: bytes):
    return parse_reduced(raw, "x", 1)


def quarter(raw: bytes):
    return parse_reduced(raw, "x", 4)


@pytest.mark.parametrize(
    ("raw", "read"),
    [
        (segment(NAMES[0]), full),
        (segment(NAMES[0]), small),
        (segment(NAMES[1]), full),  # int16, RICE
        (segment(NAMES[2]), full),  # int16, not compressed
        (aia_like(), full),
        (aia_like(), quarter),
    ],
    ids=["int32", "int32-reduced", "int16", "plain", "aia", "aia-reduced"],
)
def test_nothing_slips_past_checksums(raw: bytes, read) -> None:
    assert read(raw).verified
    verdicts, other = campaign(raw, read, seed=7)
    assert verdicts.total() == EACH * len(KINDS)
    assert [key for key in verdicts if key[1] in ("pixels", "keyword")] == []
    assert other == []
    assert verdicts["one bit", "checksum"] > EACH / 2


@pytest.mark.parametrize("name", NAMES)
def test_what_statistics_cannot_see_is_below_their_last_digit(name: str) -> None:
    """Without checksums: a few single bits pass, and move no statistic by its last digit."""
    raw = without_sums(segment(name))
    clean = full(raw)
    assert not clean.verified
    verdicts, other = campaign(raw, full, seed=11)
    assert verdicts.total() == EACH * len(KINDS)
    assert verdicts["one bit", "statistics"] + verdicts["one bit", "corrupt"] > 0.7 * EACH
    for kind in ("truncated", "16 header bytes", "inserted"):
        assert not verdicts[kind, "pixels"]
        assert not verdicts[kind, "keyword"]
    assert len(other) <= 0.04 * EACH
    for data in other:
        found = (data.min(), data.max(), data.mean(), data.std(ddof=1))
        for key, value in zip(KEYS, found, strict=True):
            stated = clean.header[key]
            assert abs(value - stated) <= RELATIVE * abs(stated) + ABSOLUTE


def test_statistics_are_for_files_without_checksums_at_their_own_size() -> None:
    raw = without_sums(segment(NAMES[0]))
    place = raw.index(b"DATAMEAN=")
    wrong = raw[:place] + raw[place:].replace(b"7.07", b"7.17", 1)
    with pytest.raises(FitsError) as caught:
        full(wrong)
    assert caught.value.reason == "statistics"
    with pytest.raises(FitsError) as caught:
        parse_reduced(wrong, "x", 5)
    assert caught.value.reason == "statistics"
    assert parse_reduced(raw, "x", 5).data.shape == (40, 67)
    place = wrong.index(b"DATAVALS=")  # of a parent with more pixels
    assert b"67000" in wrong[place : place + 40]
    resampled = wrong[:place] + wrong[place:].replace(b"67000", b"77000", 1)
    assert full(resampled).data.shape == (200, 335)
