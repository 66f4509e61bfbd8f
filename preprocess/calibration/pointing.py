"""AIA's pointing from a saved master pointing table.

The table is JSOC's ``aia.master_pointing3h`` as CSV or ECSV: what
`aiapy.calibrate.util.get_pointing_table` returns, written to a file, or
LMSAL's ``master_aia_pointing3h.csv``. Its columns for a channel of ``NNN``
angstrom are ``A_NNN_X0``, ``A_NNN_Y0`` (the Sun's centre, 0-based pixels),
``A_NNN_IMSCALE`` (arcsec per pixel) and ``A_NNN_INSTROT`` (degrees). An entry
holds from ``T_START``, included, to ``T_STOP``, excluded.

References
----------
AIA02840 (AIA-SDO FITS Keyword Document), sections 2.2 and H: CRPIX = X0 + 1,
CROTA2 = INSTROT + SAT_ROT.
"""

from __future__ import annotations

import csv
import functools
import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from preprocess.calibration.times import utc
from preprocess.dataset.patch import number
from sunpipe.fitsfile import FitsError

FULL = (4096, 4096)


@dataclass(frozen=True)
class PointingTable:
    """Rows of the table with their times, and which file it is."""

    name: str
    sha256: str
    rows: tuple[tuple[datetime, datetime, dict[str, str]], ...]


@functools.lru_cache(maxsize=2)
def read_pointing(path: Path) -> PointingTable:
    """Read a saved table; lines that begin with ``#`` (the head of ECSV) are passed over.

    Raises
    ------
    FitsError
        ``no_table``.
    """
    try:
        raw = Path(path).read_bytes()
        lines = [line for line in raw.decode("utf-8").splitlines() if line and line[0] != "#"]
    except OSError as error:
        raise FitsError("no_table", f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise FitsError("no_table", f"{path} is not a text table") from None
    head = lines[0] if lines else ""
    reader = csv.DictReader(lines, delimiter="," if "," in head else " ")
    rows = []
    for place, row in enumerate(reader, 2):
        start, stop = utc(row.get("T_START")), utc(row.get("T_STOP"))
        if start is None or stop is None:
            raise FitsError("no_table", f"{path}, entry {place}: T_START = {row.get('T_START')!r},"
                            f" T_STOP = {row.get('T_STOP')!r}")  # fmt: skip
        rows.append((start, stop, row))
    if not rows:
        raise FitsError("no_table", f"{path} holds no pointing")
    return PointingTable(Path(path).name, hashlib.sha256(raw).hexdigest(), tuple(rows))


def repoint(
    header: Mapping[str, Any], shape: tuple[int, int], wavelength: int, table: PointingTable
) -> tuple[dict[str, Any], str]:
    """A level-1 header with the pointing of a table.

    Returns
    -------
    header : dict
        With CRPIX, CDELT, CROTA2 of the table and without PC cards; a value that
        the table lacks stays the header's.
    note : str
        The table, its digest, and which values it lacked.

    Raises
    ------
    FitsError
        ``no_table``: no entry for the time or the channel; ``geometry``: not
        4096 x 4096, for which alone the table holds; ``no_keywords``: no T_OBS.
    """
    if shape != FULL:
        raise FitsError("geometry", f"the pointing table is for images of 4096 x 4096 pixels, not"
                        f" {shape[1]} x {shape[0]}")  # fmt: skip
    time = utc(header.get("T_OBS"))
    if time is None:
        raise FitsError("no_keywords", f"T_OBS = {header.get('T_OBS')!r}; the pointing goes by it")
    row = next((row for start, stop, row in table.rows if start <= time < stop), None)
    if row is None:
        raise FitsError("no_table", f"{table.name} has no pointing for {header['T_OBS']}")
    prefix, found = f"A_{wavelength:03d}_", {}
    for key in ("X0", "Y0", "IMSCALE", "INSTROT"):
        if (text := row.get(prefix + key)) is None:
            raise FitsError("no_table", f"{table.name} has no column {prefix + key}")
        try:
            found[key] = float(text.strip() or "nan")
        except ValueError:
            found[key] = math.nan  # JSOC writes MISSING
    new = {key: value for key, value in header.items() if not key.startswith("PC")}
    satellite = number(header, "SAT_ROT")
    values = {
        "CRPIX1": found["X0"] + 1,
        "CRPIX2": found["Y0"] + 1,
        "CDELT1": found["IMSCALE"],
        "CDELT2": found["IMSCALE"],
        "CROTA2": found["INSTROT"] + (math.nan if satellite is None else satellite),
    }
    lacking = [key for key, value in values.items() if not math.isfinite(value)]
    if "CROTA2" in lacking and "CROTA2" not in header:
        raise FitsError("no_table", f"{table.name} and the header have no rotation")
    new |= {key: value for key, value in values.items() if key not in lacking}
    note = f"{table.name} {table.sha256}"
    return new, note + (f" without {', '.join(lacking)}" if lacking else "")
