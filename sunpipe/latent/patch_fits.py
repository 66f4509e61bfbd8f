"""Generated patches as FITS, marked so that no header is taken for an observation.

The place on the Sun is nominal: a patch has no place, so its centre is put at the centre of
the disk, seen from one astronomical unit, at JSOC's epoch, years before SDO flew. The size of a
pixel is the real one, so that whatever is measured per area or length is right.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sunpipe.fitsmark import Synthetic
from sunpipe.fitsorigin import GAUSS
from sunpipe.fitswrite import write_image
from sunpipe.physics.geometry import pixel_size_cm
from sunpipe.physics.measurable import euv_parts

AU_M = 149_597_870_691.0  # as in JSOC's headers
RSUN_M = 696_000_000.0
# Kinds of EUV quantities that no wavelength fits behind in eight letters.
SHORT: Mapping[str, str] = MappingProxyType({"ARFRAC": "ARF", "CHFRAC": "CHF", "PSLOPE": "PSL"})
EPOCH = "1993.01.01_00:00:00_TAI"  # TRECEPOC of HMI's series


def keyword(name: str) -> str:
    """Keyword of a measured quantity: its name, or ``CHF193`` for ``CHFRAC193`` and the like.

    FITS keywords have eight letters at most (FITS Standard 4.0, section 4.1.2.1).

    Raises
    ------
    ValueError
        A longer name that has no short form.
    """
    parts = euv_parts(name)
    short = SHORT.get(parts[0], parts[0]) + parts[1] if parts else name
    if len(short) > 8:
        raise ValueError(f"{name} is no FITS keyword; give it a short form")
    return short


def quantity_cards(
    names: Sequence[str], values: Sequence[float] | NDArray[Any]
) -> tuple[dict[str, float], list[str]]:
    """Cards of measured quantities, undefined ones left out, and lines that say short forms."""
    cards, said = {}, []
    for name, value in zip(names, values, strict=True):
        if not math.isfinite(value):
            continue
        cards[keyword(name)] = float(value)
        if keyword(name) != name:
            said.append(f"{keyword(name)} is {name}.")
    return cards, said


def place_cards(shape: tuple[int, int], pixel_cm: float) -> dict[str, Any]:
    """World coordinates of a patch (rows, columns) with pixels of `pixel_cm` on the Sun."""
    cards: dict[str, Any] = {
        "CTYPE1": "CRLN-CEA", "CTYPE2": "CRLT-CEA", "CUNIT1": "deg", "CUNIT2": "deg",
        "CRPIX1": 0.5 * (shape[1] + 1), "CRPIX2": 0.5 * (shape[0] + 1),
        "CRVAL1": 0.0, "CRVAL2": 0.0, "CROTA2": 0.0, "WCSNAME": "Carrington Heliographic",
        "CRLN_OBS": 0.0, "CRLT_OBS": 0.0, "DSUN_OBS": AU_M, "DSUN_REF": AU_M, "RSUN_REF": RSUN_M,
        "RSUN_OBS": math.degrees(math.asin(RSUN_M / AU_M)) * 3600.0,
    }  # fmt: skip
    step = 0.03
    for _ in range(3):  # the size follows from the step, a hair off proportional
        step *= pixel_cm / pixel_size_cm({**cards, "CDELT1": step, "CDELT2": step})
    return {**cards, "CDELT1": step, "CDELT2": step}


def write_patch(
    folder: Path, stem: str, fields: NDArray[np.float32], *, channels: Sequence[str],
    units: Sequence[str], pixel_cm: float, run: str, generator: str, number: int = 1,
    cards: Mapping[str, Any] | None = None, history: Sequence[str] = (),
) -> list[Path]:  # fmt: skip
    """Write one generated patch, a file ``STEM.CHANNEL.fits`` for each channel.

    Parameters
    ----------
    folder : Path
    stem : str
    fields : ndarray, shape (C, H, W)
        In `units`; row 0 is the southernmost.
    channels, units : sequence of str
    pixel_cm : float
        Side of a pixel on the Sun.
    run, generator : str
        The run and the digest of its weights.
    number : int
        HARPNUM of the patch in the run's series ``gen.<run>``, from 1 on: readers of SHARPs
        demand one.
    cards : mapping, optional
        Further cards: SEED, measured quantities.
    history : sequence of str
        Further lines for HISTORY.

    Returns
    -------
    list of Path
        Components of a vector field are written as SHARPs are, so that
        ``sunpipe physics --br ... --bt ... --bp ...`` reads them.
    """
    height, width = fields.shape[1:]
    header = {
        "SERIES": f"gen.{run}", "HARPNUM": number, "T_REC": EPOCH, "GENRUN": run,
        **place_cards((height, width), pixel_cm), "PIXCM": pixel_cm, **(cards or {}),
    }  # fmt: skip
    mark = Synthetic(
        "SYNTHETIC", "STYLEGAN2", generator,
        (f"Run {run}.", "The place on the disk and T_REC are nominal.", *history),
    )  # fmt: skip
    written = []
    for channel, unit, image in zip(channels, units, fields, strict=True):
        path = folder / f"{stem}.{channel}.fits"
        unit = "Mx/cm^2" if unit in GAUSS else unit  # as SHARPs have it
        write_image(path, image, header, unit, compress=None, synthetic=mark)
        written.append(path)
    return written
