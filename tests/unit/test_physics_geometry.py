"""Pixel size from the header's cards, and clear refusals."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest

from sunpipe.errors import DataError
from sunpipe.physics import pixel_size_cm
from sunpipe.physics.geometry import pixel_size_arcsec

HARP_377 = {
    "CDELT1": 0.03,
    "RSUN_REF": 696_000_000,
    "RSUN_OBS": 971.671936,
    "DSUN_OBS": 147_746_220_503.41,
}


def test_harp_377() -> None:
    assert pixel_size_arcsec(HARP_377) == pytest.approx(0.508764, abs=5e-7)
    assert pixel_size_cm(HARP_377) == pytest.approx(36_442_300, rel=1e-6)


def test_close_to_the_arc_on_the_sphere() -> None:
    arc = 100 * HARP_377["RSUN_REF"] * math.radians(0.03)
    assert pixel_size_cm(HARP_377) == pytest.approx(arc, rel=1e-4)


def test_numbers_as_text_are_read() -> None:
    assert pixel_size_cm({**HARP_377, "CDELT1": "0.03"}) == pixel_size_cm(HARP_377)


@pytest.mark.parametrize("name", HARP_377)
@pytest.mark.parametrize("value", [None, math.nan, math.inf, 0, -1.0, "nan", "wide"])
def test_a_bad_card_is_named(name: str, value: object) -> None:
    with pytest.raises(DataError, match=name):
        pixel_size_cm({**HARP_377, name: value})


def test_a_missing_card_is_named() -> None:
    with pytest.raises(DataError, match="DSUN_OBS is missing"):
        pixel_size_cm({key: value for key, value in HARP_377.items() if key != "DSUN_OBS"})


def test_geometry_and_table_load_no_torch() -> None:
    code = (
        "import sys, sunpipe.physics.cli, sunpipe.physics as p;"
        "p.QUANTITIES, p.pixel_size_cm; print('torch' in sys.modules or 'numpy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
