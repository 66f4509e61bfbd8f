"""Reading SHARP segments and vector records from FITS, with the reason when one cannot be used."""

from __future__ import annotations

import hashlib
import re
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from sunpipe.errors import DataError
from sunpipe.fitscea import check_cea, check_common
from sunpipe.fitsfile import FitsError, Unit, Value, peek_units, units, verify_sums
from sunpipe.fitsorigin import check_instrument, check_unit, made
from sunpipe.fitspixels import MAX_PIXELS, image_shape, pixels
from sunpipe.fitsstats import check_statistics
from sunpipe.fitstime import T_REC, on_calendar
from sunpipe.sidecar import keywords_beside

SERIES = "hmi.sharp_cea_720s"
COMPONENTS = ("Br", "Bt", "Bp")
MAX_BYTES = 8 * MAX_PIXELS + (4 << 20)
_SEGMENT_WORD = re.compile(
    r"\.(magnetogram|bitmap|Dopplergram|continuum|B[ptr](?:_err)?|conf_disambig)\.fits$"
)


@dataclass(frozen=True)
class Segment:
    """One segment.

    Attributes
    ----------
    data : float64 or float32 ndarray (H, W)
        In the units of BUNIT, NaN where the archive has no value.
    header : dict
        Keywords of the image and, where it lacks them, those given by the caller.
    verified : bool
        Whether the image carries checksums; wrong ones are refused. Where it
        does not, the statistics that a SHARP header states are compared.
    """

    data: NDArray[np.floating]
    header: dict[str, Value]
    verified: bool


@dataclass(frozen=True)
class VectorRecord:
    """Br, Bt, Bp of one HARP at one time.

    Attributes
    ----------
    fields : float64 ndarray (3, H, W)
        Br, Bt, Bp in gauss, NaN where invalid.
    header : dict
        Keywords of the Br segment.
    record : str
        JSOC record-set string.
    harpnum : int
    t_rec : str
        TAI, as JSOC writes it.
    pixel_cm : float
        Side of a native pixel on the Sun, cm.
    """

    fields: NDArray[np.float64]
    header: dict[str, Value]
    record: str
    harpnum: int
    t_rec: str
    pixel_cm: float


def read_segment(
    path: Path,
    keywords: Mapping[str, Any] | None = None,
    dtype: Literal["float64", "float32"] = "float64",
    sha256: str | None = None,
) -> Segment:
    """Read the last image of a FITS file.

    Parameters
    ----------
    path : Path
    keywords : mapping, optional
        Keywords for what the header lacks: segments downloaded as stored carry
        none, they live in the archive's database.
    dtype : str
        Of the pixels; float32 is float64 rounded, in half the memory.
    sha256 : str, optional
        What the file's bytes, which are read once, must have as digest.

    Raises
    ------
    FitsError
        With a reason: ``not_fits``, ``truncated``, ``corrupt``, ``checksum``,
        ``statistics``, ``no_image``, ``too_large``, ``unsupported``; ``changed``: a file
        in which nothing is wrong, but which is not the one of `sha256`.
    FileNotFoundError
        When `path` does not exist.
    """
    path = Path(path)
    raw = read_bytes(path)
    segment = parse_segment(raw, path.name, keywords, dtype)
    if sha256 is not None:  # after parsing: that a file is truncated says more
        _check_digest(raw, sha256, path.name)
    return segment


def _check_size(path: Path) -> None:
    """Refuse, unread, what is no plain file or larger than any image of SDO."""
    found = path.stat()
    if not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):  # might never end
        raise FitsError("not_fits", f"{path.name} is no plain file")
    if found.st_size > MAX_BYTES:
        raise FitsError(
            "too_large", f"{path.name} has {found.st_size} bytes; no SDO image is so large"
        )


def read_bytes(path: Path) -> bytes:
    """A file's content; one that is larger than any image of SDO is refused unread."""
    _check_size(path)
    return path.read_bytes()


def _check_digest(raw: bytes, sha256: str, name: str) -> None:
    if hashlib.sha256(raw).hexdigest() != sha256:
        raise FitsError("changed", f"{name} is not what was fetched; run sunpipe fetch --check")


def read_checked(path: Path, sha256: str) -> bytes:
    """`read_bytes` of a file that must have this digest: what is checked is what is returned.

    Raises
    ------
    FitsError
        ``changed``, ``too_large``.
    """
    raw = read_bytes(path)
    _check_digest(raw, sha256, path.name)
    return raw


def peek_shape(path: Path) -> tuple[int, int]:
    """(H, W) of the last image of a file, of which only the headers are read.

    Raises
    ------
    FitsError
        ``not_fits``, ``truncated``, ``corrupt``, ``no_image``, ``too_large``.
    """
    path = Path(path)
    _check_size(path)
    return _last_shape(peek_units(path), path.name)[1]


def _last_shape(found: Sequence[Unit], name: str) -> tuple[int, tuple[int, int]]:
    """Place and (H, W) of the last unit that holds an image."""
    for place in reversed(range(len(found))):
        shape = image_shape(found[place].header, name)
        if shape is not None:
            return place, shape
    raise FitsError("no_image", f"{name} holds no image")


def parse_segment(
    raw: bytes,
    name: str,
    keywords: Mapping[str, Any] | None = None,
    dtype: Literal["float64", "float32"] = "float64",
) -> Segment:
    """`read_segment` for bytes already in memory; `name` is used in messages."""
    unit, shape, verified = last_image(raw, name)
    data = pixels(raw, unit, shape, name, np.dtype(dtype).type)
    if not verified:
        check_statistics(unit.header, data, name)
    return Segment(data, joined(unit, keywords, name), verified)


def last_image(raw: bytes, name: str) -> tuple[Unit, tuple[int, int], bool]:
    """(unit, (H, W), whether it carries checksums) of the last image, all checksums verified."""
    found = units(raw, name)
    sums = [verify_sums(raw, unit, name) for unit in found]
    place, shape = _last_shape(found, name)
    return found[place], shape, sums[place]


def joined(unit: Unit, keywords: Mapping[str, Any] | None, name: str) -> dict[str, Value]:
    """Keywords of a unit and, where it lacks them, those given for the same SHARP."""
    if keywords and keywords.get("HARPNUM") is not None and unit.header.get("HARPNUM") is not None:
        for key in ("HARPNUM", "T_REC"):
            one, two = unit.header.get(key), keywords.get(key)
            if one is not None and two is not None and one != two:
                raise FitsError(
                    "different_records", f"{name} has {key} = {one!r}, its keywords.json {two!r}"
                )
    header = {key: value for key, value in (keywords or {}).items() if value is not None}
    return header | {key: value for key, value in unit.header.items() if value is not None}


def record_string(series: str, harpnum: int, t_rec: str) -> str:
    """JSOC record-set string of one SHARP record."""
    return f"{series}[{harpnum}][{t_rec}]"


def identity(header: Mapping[str, Value], name: str) -> tuple[int, str]:
    """(HARPNUM, T_REC) of a header."""
    harpnum, t_rec = header.get("HARPNUM"), header.get("T_REC")
    if isinstance(harpnum, bool) or not isinstance(harpnum, int) or harpnum < 1:
        raise FitsError("no_keywords", f"{name} has HARPNUM = {harpnum!r}, not a HARP number")
    if not isinstance(t_rec, str) or not T_REC.fullmatch(t_rec) or not on_calendar(t_rec):
        raise FitsError("no_keywords", f"{name} has T_REC = {t_rec!r}, not a TAI time")
    return harpnum, t_rec


def check_name(path: Path, segment: str) -> None:
    """Refuse a file whose name, as exports have it, is that of another segment."""
    word = _SEGMENT_WORD.search(path.name)
    if word and word.group(1) != segment:
        raise FitsError("wrong_segment", f"{path.name} is named {word.group(1)}, not {segment}")


def _component(
    path: Path, component: str, keywords: Mapping[str, Any] | None, sha256: str | None
) -> tuple[Segment, tuple[int, str]]:
    segment = read_segment(path, keywords, sha256=sha256)
    if "TELESCOP" in segment.header:  # another instrument's file is wrong whatever its name
        check_instrument(segment.header, path.name)
    check_name(path, component)
    check_instrument(segment.header, path.name)
    check_unit(segment.header, path.name)
    return segment, identity(segment.header, path.name)


def _check_copies(fields: NDArray[np.float64], paths: Sequence[Path]) -> None:
    """Refuse a component that is another one's copy; equal everywhere is no pattern to compare."""
    some = fields.reshape(3, -1)[:, ::101]  # nearly always enough to see that they differ
    for one, two in ((0, 1), (0, 2), (1, 2)):
        if not np.array_equal(some[one], some[two], equal_nan=True):
            continue
        values = fields[one][np.isfinite(fields[one])]
        same = np.array_equal(fields[one], fields[two], equal_nan=True)
        if same and values.size and values.min() != values.max():
            raise FitsError(
                "wrong_segment", f"{paths[two].name} holds the very pixels of {paths[one].name}"
            )


def read_vector(
    br: Path,
    bt: Path,
    bp: Path,
    keywords: Mapping[str, Any] | None = None,
    series: str = SERIES,
    sha256: Sequence[str | None] = (None, None, None),
) -> VectorRecord:
    """Read the three components of a SHARP in cylindrical equal-area coordinates.

    Parameters
    ----------
    br, bt, bp : Path
        Radial, southward and westward field.
    keywords : mapping, optional
        Keywords for what the headers lack; by default those of the
        ``keywords.json`` beside `br`, where there is one.
    series : str
        For the record-set string; headers do not hold it.
    sha256 : sequence of str, optional
        Digests that the three files must have; see `read_segment`.

    Raises
    ------
    FitsError
        With the reasons of `read_segment` and `check_cea`, or ``wrong_segment``,
        ``wrong_instrument``, ``unknown_unit``, ``no_keywords``,
        ``different_records``, ``different_shapes``, ``wrong_projection``,
        ``geometry``, ``all_nan``.
    """
    from sunpipe.physics.geometry import pixel_size_cm

    paths = [Path(br), Path(bt), Path(bp)]
    if keywords is None:
        keywords = keywords_beside(paths[0], COMPONENTS)
    read = [
        _component(path, component, keywords, digest)
        for path, component, digest in zip(paths, COMPONENTS, sha256, strict=True)
    ]
    (first, who), rest = read[0], read[1:]
    for path, (segment, other) in zip(paths[1:], rest, strict=True):
        if other != who:
            raise FitsError(
                "different_records",
                f"{path.name} is HARP {other[0]} at {other[1]}, {paths[0].name} is HARP {who[0]}"
                f" at {who[1]}",
            )
        if segment.data.shape != first.data.shape:
            raise FitsError(
                "different_shapes",
                f"{path.name} has {segment.data.shape} pixels, {paths[0].name} {first.data.shape}",
            )
    height, width = first.data.shape
    check_cea(first.header, (height, width), paths[0].name)
    for path, (segment, _) in zip(paths[1:], rest, strict=True):
        check_common(first.header, segment.header, (paths[0].name, path.name))
    fields = np.stack([segment.data for segment, _ in read])
    _check_copies(fields, paths)
    if not np.isfinite(fields).all(axis=0).any():
        raise FitsError("all_nan", f"{paths[0].name} and its companions have no valid pixel")
    try:
        side = pixel_size_cm(first.header)
    except DataError as error:
        raise FitsError("geometry", f"{paths[0].name}: {error}") from None
    if made(first.header):  # never under a name of JSOC's
        series = str(first.header["SERIES"])
    return VectorRecord(fields, first.header, record_string(series, *who), *who, side)
