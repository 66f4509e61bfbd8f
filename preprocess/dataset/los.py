"""The line-of-sight field of a SHARP."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from preprocess.dataset.inputs import FIELD
from sunpipe.errors import DataError
from sunpipe.fits import (
    VectorRecord,
    check_instrument,
    check_name,
    check_unit,
    identity,
    read_segment,
    record_string,
)
from sunpipe.fitsfile import FitsError
from sunpipe.physics.geometry import pixel_size_cm


def read_los(path: Path, keywords: dict[str, Any], series: str) -> VectorRecord:
    """Read the magnetogram of a SHARP in cylindrical equal-area coordinates.

    Returns
    -------
    VectorRecord
        With one component: the line-of-sight field, gauss, positive towards the observer.

    Raises
    ------
    FitsError
        With the reasons of `read_vector`.
    """
    segment = read_segment(path, keywords)
    header = segment.header
    check_instrument(header, path.name)
    check_name(path, FIELD)
    check_unit(header, path.name)
    harpnum, t_rec = identity(header, path.name)
    projection = str(header.get("CTYPE1", ""))
    if not projection.endswith("-CEA"):
        raise FitsError(
            "wrong_projection",
            f"{path.name} has CTYPE1 = {projection!r}, not cylindrical equal-area coordinates",
        )
    if not np.isfinite(segment.data).any():
        raise FitsError("all_nan", f"{path.name} has no valid pixel")
    try:
        side = pixel_size_cm(header)
    except DataError as error:
        raise FitsError("geometry", f"{path.name}: {error}") from None
    record = record_string(series, harpnum, t_rec)
    fields = np.asarray(segment.data, np.float64)[None]
    return VectorRecord(fields, header, record, harpnum, t_rec, side)
