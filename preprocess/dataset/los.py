"""The line-of-sight field of a SHARP."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from preprocess.dataset.inputs import FIELD
from sunpipe.errors import DataError
from sunpipe.fits import (
    VectorRecord,
    check_name,
    identity,
    read_segment,
    record_string,
)
from sunpipe.fitscea import check_cea
from sunpipe.fitsfile import FitsError
from sunpipe.fitsorigin import check_instrument, check_unit
from sunpipe.physics.geometry import pixel_size_cm


def read_los(
    path: Path, keywords: dict[str, Any], series: str, sha256: str | None = None
) -> VectorRecord:
    """Read the magnetogram of a SHARP in cylindrical equal-area coordinates.

    Parameters
    ----------
    path : Path
    keywords : dict
        For what the header lacks.
    series : str
        For the record-set string.
    sha256 : str, optional
        Digest that the file must have; see `read_segment`.

    Returns
    -------
    VectorRecord
        With one component: the line-of-sight field, gauss, positive towards the observer.

    Raises
    ------
    FitsError
        With the reasons of `read_vector`.
    """
    segment = read_segment(path, keywords, sha256=sha256)
    header = segment.header
    check_instrument(header, path.name)
    check_name(path, FIELD)
    check_unit(header, path.name)
    harpnum, t_rec = identity(header, path.name)
    height, width = segment.data.shape
    check_cea(header, (height, width), path.name)
    if not np.isfinite(segment.data).any():
        raise FitsError("all_nan", f"{path.name} has no valid pixel")
    try:
        side = pixel_size_cm(header)
    except DataError as error:
        raise FitsError("geometry", f"{path.name}: {error}") from None
    record = record_string(series, harpnum, t_rec)
    fields = np.asarray(segment.data, np.float64)[None]
    return VectorRecord(fields, header, record, harpnum, t_rec, side)
