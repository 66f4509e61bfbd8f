"""One SHARP from its FITS files to its keywords: what ``sunpipe physics`` does."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sunpipe.errors import DataError, UsageError
from sunpipe.fits import (
    VectorRecord,
    check_instrument,
    check_name,
    check_unit,
    identity,
    read_segment,
    read_vector,
)
from sunpipe.fitsfile import FitsError
from sunpipe.physics.keywords import sharp_keywords
from sunpipe.physics.quantities import QUANTITIES

SEGMENTS = {
    "--bitmap": "bitmap", "--conf-disambig": "conf_disambig", "--los": "magnetogram",
    "--br-err": "Br_err", "--bt-err": "Bt_err", "--bp-err": "Bp_err",
}  # fmt: skip
CODES = ("--bitmap", "--conf-disambig")  # without a unit
CONFIDENCES = (50, 60, 90)  # other than 0


def _check_content(
    data: NDArray[np.float64], record: VectorRecord, path: Path, option: str
) -> None:
    """Refuse pixels that the segment cannot hold, whatever the file is called.

    A bitmap is six bits (Bobra et al. 2014; HMI sets few of them, MDI the others
    too), a confidence comes in tens, an error is not negative, and the
    line-of-sight field is none of the three components.
    """
    values = np.unique(data[np.isfinite(data)])
    if option == "--bitmap":
        known = bool(((values >= 0) & (values < 64) & (values % 1 == 0)).all())
        marks = values[values != 0]
        fits = known and not (marks.size and np.isin(marks, CONFIDENCES).all())
        rule = "codes of a bitmap (0, 1, 2, 33, 34)"
    elif option == "--conf-disambig":
        fits = bool(((values >= 0) & (values <= 100) & (values % 10 == 0)).all())
        rule = "confidences (0, 50, 60, 90)"
    elif option == "--los":
        fits = not any(np.array_equal(data, part, equal_nan=True) for part in record.fields)
        rule = "a line-of-sight field but a copy of Br, Bt or Bp"
    else:
        fits = bool((values >= 0).all())
        rule = "errors: some are negative"
    if not fits:
        raise FitsError("wrong_segment", f"{option} {path} does not hold {rule}")


def _companion(path: Path, record: VectorRecord, option: str) -> NDArray[np.float64]:
    """A further segment of the same record, refused when its header says otherwise.

    Segments downloaded as stored have a bare header, which says nothing.
    """
    segment = read_segment(path)
    check_name(path, SEGMENTS[option])
    if "TELESCOP" in segment.header:
        check_instrument(segment.header, path.name)
    if "BUNIT" in segment.header and option not in CODES:
        check_unit(segment.header, path.name)
    if segment.data.shape != record.fields.shape[1:]:
        raise DataError(
            f"{option} {path} has {segment.data.shape} pixels, Br {record.fields.shape[1:]}"
        )
    if "HARPNUM" in segment.header or "T_REC" in segment.header:
        who = identity(segment.header, path.name)
        if who != (record.harpnum, record.t_rec):
            raise DataError(
                f"{option} {path} is HARP {who[0]} at {who[1]}, Br is HARP {record.harpnum}"
                f" at {record.t_rec}"
            )
    _check_content(segment.data, record, path, option)
    return segment.data


def header_values(header: Mapping[str, Any]) -> dict[str, float]:
    """The header's own keywords and errors, where they are finite numbers."""
    names = [quantity.name for quantity in QUANTITIES.values() if quantity.in_jsoc]
    names += [quantity.error for quantity in QUANTITIES.values() if quantity.error] + ["CMASK"]
    values = {name: header.get(name) for name in names}
    return {
        name: float(value)
        for name, value in values.items()
        if isinstance(value, int | float) and math.isfinite(value)
    }


def measure_files(
    vector: Sequence[Path],
    *,
    bitmap: Path | None = None,
    conf_disambig: Path | None = None,
    los: Path | None = None,
    errors: Sequence[Path | None] = (None, None, None),
    convention: str = "jsoc",
    keywords: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Read the segments of one SHARP and measure it.

    Parameters
    ----------
    vector : sequence of Path
        Br, Bt, Bp.
    bitmap, conf_disambig, los : Path, optional
        JSOC's maps and the line-of-sight magnetogram.
    errors : sequence of Path or None
        Errors of Br, Bt, Bp: all three, or none.
    convention : {"jsoc", "physical"}
    keywords : mapping, optional
        Keywords for what the headers lack.

    Returns
    -------
    dict
        The JSON document of contract C11.

    Raises
    ------
    DataError
        A file that cannot be used.
    UsageError
        Only some of the three errors.
    """
    started = time.perf_counter()
    sigmas = [path for path in errors if path is not None]
    if sigmas and len(sigmas) != 3:
        raise UsageError("formal errors need all of --br-err, --bt-err and --bp-err")
    br, bt, bp = vector
    record = read_vector(br, bt, bp, keywords)
    optional = {"bitmap": bitmap, "conf_disambig": conf_disambig, "los": los}
    maps = {
        name: _companion(path, record, "--" + name.replace("_", "-"))
        for name, path in optional.items()
        if path is not None
    }
    if sigmas:
        options = ("--br-err", "--bt-err", "--bp-err")
        pairs = zip(sigmas, options, strict=True)
        maps["sigma"] = np.stack([_companion(path, record, option) for path, option in pairs])
    found = sharp_keywords(record.fields, record.header, convention=convention, **maps)
    return {
        "record": record.record,
        "convention": convention,
        "mask": found.mask,
        "cmask": found.cmask,
        "pixel_cm": record.pixel_cm,
        "keywords": found.keywords,
        "units": found.units,
        "errors": found.errors,
        "reasons": found.reasons,
        "header": header_values(record.header),
        "seconds": round(time.perf_counter() - started, 3),
    }
