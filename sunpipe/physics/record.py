"""One SHARP from its FITS files to its keywords: what ``sunpipe physics`` does."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sunpipe.errors import DataError, UsageError
from sunpipe.fits import (
    SERIES,
    check_name,
    identity,
    read_segment,
    read_vector,
    record_string,
)
from sunpipe.fitscea import check_cea, check_common, finite
from sunpipe.fitsfile import FitsError
from sunpipe.fitsorigin import check_instrument, check_unit, made
from sunpipe.physics.geometry import pixel_size_cm
from sunpipe.physics.keywords import SharpKeywords, sharp_keywords, sharp_keywords_los
from sunpipe.physics.quantities import QUANTITIES
from sunpipe.sidecar import keywords_beside

Image = NDArray[np.floating[Any]]
SEGMENTS = {
    "--bitmap": "bitmap", "--conf-disambig": "conf_disambig", "--los": "magnetogram",
    "--br-err": "Br_err", "--bt-err": "Bt_err", "--bp-err": "Bp_err",
}  # fmt: skip
CODES = ("--bitmap", "--conf-disambig")  # without a unit
CONFIDENCES = (50, 60, 90)  # other than 0


@dataclass(frozen=True)
class Base:
    """The image that the maps have to fit.

    Attributes
    ----------
    name : str
        What it is, for messages.
    images : float ndarray (C, H, W)
        Br, Bt, Bp, or the line-of-sight field alone.
    header : mapping
    who : tuple of int and str
        HARPNUM and T_REC.
    record : str
        Record-set string.
    """

    name: str
    images: Image
    header: Mapping[str, Any]
    who: tuple[int, str]
    record: str


def _check_content(data: Image, base: Base, path: Path, option: str) -> None:
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
        fits = not any(np.array_equal(data, part, equal_nan=True) for part in base.images)
        rule = "a line-of-sight field but a copy of Br, Bt or Bp"
    else:
        fits = bool((values >= 0).all())
        rule = "errors: some are negative"
    if not fits:
        raise FitsError("wrong_segment", f"{option} {path} does not hold {rule}")


def _companion(path: Path, base: Base, option: str) -> Image:
    """A further segment of the same record, refused when its header says otherwise.

    Segments downloaded as stored have a bare header, which says nothing.
    """
    segment = read_segment(path)
    check_name(path, SEGMENTS[option])
    if "TELESCOP" in segment.header:
        check_instrument(segment.header, path.name)
    if "BUNIT" in segment.header and option not in CODES:
        check_unit(segment.header, path.name)
    if segment.data.shape != base.images.shape[1:]:
        raise DataError(
            f"{option} {path} has {segment.data.shape} pixels, {base.name} {base.images.shape[1:]}"
        )
    if "HARPNUM" in segment.header or "T_REC" in segment.header:
        who = identity(segment.header, path.name)
        if who != base.who:
            raise DataError(
                f"{option} {path} is HARP {who[0]} at {who[1]}, {base.name} is HARP"
                f" {base.who[0]} at {base.who[1]}"
            )
    check_common(base.header, segment.header, (base.name, path.name))
    _check_content(segment.data, base, path, option)
    return segment.data


def _los_base(path: Path, keywords: Mapping[str, Any] | None) -> Base:
    """A line-of-sight magnetogram that stands alone, refused when it is no SHARP's."""
    if keywords is None:
        keywords = keywords_beside(path, ("magnetogram",))
    segment = read_segment(path, keywords)
    check_instrument(segment.header, path.name)
    check_name(path, "magnetogram")
    check_unit(segment.header, path.name)
    height, width = segment.data.shape
    check_cea(segment.header, (height, width), path.name)
    who = identity(segment.header, path.name)
    # A simulated or generated region is never told under a name of JSOC's.
    series = str(segment.header["SERIES"]) if made(segment.header) else SERIES
    record = record_string(series, *who)
    return Base("--los", segment.data[None], segment.header, who, record)


def header_values(header: Mapping[str, Any]) -> dict[str, float]:
    """The header's own keywords and errors, where they are finite numbers."""
    names = [quantity.name for quantity in QUANTITIES.values() if quantity.in_jsoc]
    names += [quantity.error for quantity in QUANTITIES.values() if quantity.error] + ["CMASK"]
    values = {name: finite(header, name) for name in names}
    return {name: value for name, value in values.items() if value is not None}


def _choose(paths: Mapping[str, Path | None]) -> tuple[list[Path], list[Path]]:
    """The vector's and the errors' files, all three or none of each.

    Raises
    ------
    UsageError
        Options that do not go together.
    """
    chosen = []
    for options in (("--br", "--bt", "--bp"), ("--br-err", "--bt-err", "--bp-err")):
        files = [path for option in options if (path := paths[option]) is not None]
        if files and len(files) < len(options):
            missing = " and ".join(option for option in options if paths[option] is None)
            what = "the vector field" if options[0] == "--br" else "formal errors"
            raise UsageError(f"{what} needs all of {', '.join(options)}; {missing} missing")
        chosen.append(files)
    vector, sigmas = chosen
    if not vector:
        if paths["--los"] is None:
            raise UsageError("nothing to measure: give --br, --bt and --bp, or --los")
        for option, path in paths.items():
            if path is not None and option not in ("--los", "--bitmap"):
                raise UsageError(f"{option} goes with the vector field: give --br, --bt and --bp")
    return vector, sigmas


def _measure_los(base: Base, bitmap: Path | None, convention: str) -> SharpKeywords:
    outline = None if bitmap is None else _companion(bitmap, base, "--bitmap")
    return sharp_keywords_los(base.images[0], base.header, bitmap=outline, convention=convention)


def _measure_vector(
    base: Base, maps: Mapping[str, Path | None], sigmas: Sequence[Path], convention: str
) -> SharpKeywords:
    read = {
        name: None if path is None else _companion(path, base, "--" + name.replace("_", "-"))
        for name, path in maps.items()
    }
    sigma = None
    if sigmas:
        pairs = zip(sigmas, ("--br-err", "--bt-err", "--bp-err"), strict=True)
        sigma = np.stack([_companion(path, base, option) for path, option in pairs])
    return sharp_keywords(
        base.images,
        base.header,
        bitmap=read["bitmap"],
        conf_disambig=read["conf_disambig"],
        los=read["los"],
        sigma=sigma,
        convention=convention,
    )


def measure_files(
    vector: Sequence[Path | None] = (None, None, None),
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
    vector : sequence of Path or None
        Br, Bt, Bp: all three, or none where only `los` is known.
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
        Only some of the components or errors, or neither components nor `los`.
    """
    started = time.perf_counter()
    options = dict(zip(("--br", "--bt", "--bp"), vector, strict=True))
    options |= dict(zip(("--br-err", "--bt-err", "--bp-err"), errors, strict=True))
    options |= {"--bitmap": bitmap, "--conf-disambig": conf_disambig, "--los": los}
    components, sigmas = _choose(options)
    if components:
        br, bt, bp = components
        record = read_vector(br, bt, bp, keywords)
        who = (record.harpnum, record.t_rec)
        base = Base("Br", record.fields, record.header, who, record.record)
        maps = {"bitmap": bitmap, "conf_disambig": conf_disambig, "los": los}
        found = _measure_vector(base, maps, sigmas, convention)
    else:
        assert los is not None
        base = _los_base(los, keywords)
        found = _measure_los(base, bitmap, convention)
    return {
        "record": base.record,
        "convention": convention,
        "mask": found.mask,
        "cmask": found.cmask,
        "pixel_cm": pixel_size_cm(base.header),
        "keywords": found.keywords,
        "units": found.units,
        "errors": found.errors,
        "reasons": found.reasons,
        "header": header_values(base.header),
        "seconds": round(time.perf_counter() - started, 3),
    }
