"""What the local JSOC holds: bundled SHARP segments, full-disk images, or many tiny files."""

from __future__ import annotations

import io
import re
import warnings
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits

from preprocess.acquire.sample import sample_files
from preprocess.archive import parse_record
from sunpipe.fits import read_segment

SHARP = "hmi.sharp_cea_720s"
SEGMENTS = {
    SHARP: {"magnetogram": "Gauss", "bitmap": "none", "Dopplergram": "none", "continuum": "none",
            "Bp": "Mx/cm^2", "Bt": "Mx/cm^2", "Br": "Mx/cm^2", "Bp_err": "none", "Bt_err": "none",
            "Br_err": "none", "conf_disambig": "none"},
    "hmi.M_720s": {"magnetogram": "Gauss"},
    "aia.lev1_euv_12s": {"image": "DN", "spikes": "none"},
}  # fmt: skip
PRIME = {SHARP: ("HARPNUM", "T_REC"), "hmi.M_720s": ("T_REC", "CAMERA"),
         "aia.lev1_euv_12s": ("T_REC", "WAVELNTH")}  # fmt: skip
IN_FILE = {"SIMPLE", "BITPIX", "NAXIS", "NAXIS1", "NAXIS2", "XTENSION", "PCOUNT", "GCOUNT",
           "EXTEND", "BSCALE", "BZERO", "BLANK", "CHECKSUM", "DATASUM", "COMMENT", "HISTORY",
           "BUNIT", "TFIELDS", "DATAMIN", "DATAMAX", ""}  # fmt: skip
STRUCTURE = re.compile(r"(XTENSION|SIMPLE|BITPIX|NAXIS\d?|[PG]COUNT|EXTEND|TFIELDS|T(TYPE|FORM)\d"
                       r"|Z\w+|BSCALE|BZERO|BLANK)$")  # fmt: skip


def stored_bytes(path: Path) -> bytes:
    """A segment as JSOC stores it: the same pixels, no keywords, valid checksums."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with fits.open(path, disable_image_compression=True) as hdus:
            for hdu in hdus:
                for key in list(dict.fromkeys(hdu.header)):
                    if not STRUCTURE.match(key):
                        hdu.header.remove(key, ignore_missing=True, remove_all=True)
            out = io.BytesIO()
            hdus.writeto(out, checksum=True, output_verify="ignore")
    return out.getvalue()


@cache
def tiny_fits(number: int) -> bytes:
    """8 x 8 pixels with checksums, 5760 bytes."""
    out = io.BytesIO()
    data = np.full((8, 8), number, dtype=np.int16)
    fits.PrimaryHDU(data).writeto(out, checksum=True)
    return out.getvalue()


@dataclass
class Archive:
    """Keywords by record, and files by record and segment."""

    keywords: dict[str, dict[str, Any]] = field(default_factory=dict)
    files: dict[tuple[str, str], str] = field(default_factory=dict)
    bodies: dict[str, bytes] = field(default_factory=dict)

    def add(self, record: str, segment: str, body: bytes, file: str = "") -> None:
        """Store a segment in the storage unit of its record."""
        unit = 40_000_000 + sum(n * ord(c) for n, c in enumerate(record))
        where = f"/SUM61/D{unit}/S00000/{file or segment}.fits"
        self.files[record, segment] = where
        self.bodies[where] = body

    def copy(self) -> Archive:
        """Another archive that may be changed."""
        keywords = {record: dict(values) for record, values in self.keywords.items()}
        return Archive(keywords, dict(self.files), dict(self.bodies))


@cache
def sample_archive() -> Archive:
    """The bundled sample; made once, not to be changed."""
    archive = Archive()
    for record, segment, path, _ in sample_files():
        archive.add(record, segment, stored_bytes(path))
        if segment == "Br":
            header = read_segment(path).header
            archive.keywords[record] = {
                key.replace("-", "__"): value
                for key, value in header.items()
                if key not in IN_FILE and not re.match(r"Z|T(TYPE|FORM)\d", key)
            }
    return archive


def record_keywords(record: str, **more: Any) -> dict[str, Any]:
    """Prime keys of a record, QUALITY 0, and what is given."""
    name = parse_record(record)
    values: dict[str, Any] = {"T_REC": name.t_rec, "QUALITY": 0}
    if name.harpnum is not None:
        values["HARPNUM"] = name.harpnum
    if name.number is not None:
        values["WAVELNTH" if record.startswith("aia") else "CAMERA"] = name.number
    return {**values, **more}


def tiny_archive(records: int, segments: tuple[str, ...] = ("Br", "Bt", "Bp")) -> Archive:
    """`records` SHARP records of HARP 1, 2 ..., 40 slots each, with tiny files."""
    archive = Archive()
    start = datetime(2012, 1, 1)
    for place in range(records):
        harp, slot = divmod(place, 40)
        when = start + timedelta(seconds=720 * slot)
        record = f"{SHARP}[{harp + 1}][{when:%Y.%m.%d_%H:%M:%S}_TAI]"
        archive.keywords[record] = record_keywords(record, USFLUX=1e21 * (slot + 1))
        for n, segment in enumerate(segments):
            archive.add(record, segment, tiny_fits((3 * place + n) % 97))
    return archive


def disk_archive(days: int = 3) -> Archive:
    """Two series of full-disk images, four a day, with small files in their places."""
    archive = Archive()
    for slot in range(4 * days):
        when = datetime(2014, 1, 1) + timedelta(hours=6 * slot)
        record = f"hmi.M_720s[{when:%Y.%m.%d_%H:%M:%S}_TAI][1]"
        archive.keywords[record] = record_keywords(record)
        archive.add(record, "magnetogram", tiny_fits(slot))
        for wave in (171, 193):
            shown = when + timedelta(seconds=1)  # T_REC of AIA is near its slot
            record = f"aia.lev1_euv_12s[{shown:%Y-%m-%dT%H:%M:%S}Z][{wave}]"
            archive.keywords[record] = record_keywords(record)
            archive.add(record, "image", tiny_fits(slot + wave), "image_lev1")
    return archive
