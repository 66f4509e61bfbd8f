"""RICE_1 streams: the same bits as cfitsio's, and pixels that come back."""

from __future__ import annotations

import io

import numpy as np
import pytest
from astropy.io import fits

from sunpipe.fits import parse_segment
from sunpipe.fitswrite import image_bytes
from sunpipe.rice_encode import encode_rows

KINDS = [np.int16, np.int32]


def streams_of_cfitsio(image: np.ndarray) -> list[bytes]:
    tiles = (1, image.shape[1])
    body = io.BytesIO()
    hdu = fits.CompImageHDU(image, compression_type="RICE_1", tile_shape=tiles)
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(body)
    body.seek(0)
    with fits.open(body, disable_image_compression=True) as hdus:
        return [bytes(row) for row in hdus[1].data["COMPRESSED_DATA"]]


def images(kind: type) -> list[np.ndarray]:
    rng = np.random.default_rng(3)
    ends = np.iinfo(kind)
    found = []
    for shape in ((3, 1), (2, 33), (3, 100)):
        found += [
            rng.integers(ends.min, ends.max, shape, kind, endpoint=True),
            np.zeros(shape, kind),
            np.where(rng.random(shape) < 0.02, ends.min, 0).astype(kind),
            np.where(rng.random(shape) < 0.5, ends.min, ends.max).astype(kind),
            *(
                rng.integers(-(2**power), 2**power, shape).astype(kind)
                for power in (0, 2, 5, 9, 13)
            ),
        ]
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_the_streams_are_those_of_cfitsio(kind: type) -> None:
    for image in images(kind):
        heap, ends = encode_rows(image)
        starts = [0, *ends[:-1]]
        ours = [heap[start:end] for start, end in zip(starts, ends, strict=True)]
        assert ours == streams_of_cfitsio(image)


@pytest.mark.parametrize("kind", KINDS)
def test_pixels_come_back(kind: type) -> None:
    bits = 8 * np.dtype(kind).itemsize
    for image in images(kind):
        image = np.where(image == np.iinfo(kind).min, 0, image).astype(kind)  # that one is BLANK
        raw = image_bytes(image, {}, "", bits=bits)
        assert np.array_equal(parse_segment(raw, "x.fits").data, image)
        with fits.open(io.BytesIO(raw), checksum=True) as hdus:
            hdus.verify("exception")
            assert np.array_equal(hdus[1].data, image)
