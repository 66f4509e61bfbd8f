"""Writing one image as FITS: world coordinates, checksums, statistics, and what made it.

The bytes are a pure function of the arguments. Synthetic images are marked so that
no header can be taken for an observation.

References
----------
FITS Standard 4.0 (2018): cards 4.2, CONTINUE 4.2.1.2, checksums J, tiled images 10.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sunpipe.errors import DataError
from sunpipe.files import atomic_path
from sunpipe.fitsfile import BLOCK, CARD, STRUCTURE, ones_sum, units

# Where a record's identity goes when its header is lent to a synthetic image.
SOURCE = {
    "TELESCOP": "SRCTEL", "INSTRUME": "SRCINST", "ORIGIN": "SRCORIG", "T_REC": "SRCREC",
    "T_OBS": "SRCTOBS", "HARPNUM": "SRCHARP", "NOAA_AR": "SRCNOAA", "NOAA_ARS": "SRCNOAAS",
    "RECNUM": "SRCRNUM", "SERIES": "SRCSER",
}  # fmt: skip
# What else such an image keeps: where its pixels are and from where they are seen.
GEOMETRY = frozenset(
    {"DATE-OBS", "CRLN_OBS", "CRLT_OBS", "HGLN_OBS", "HGLT_OBS", "DSUN_OBS", "DSUN_REF", "RSUN_REF",
     "RSUN_OBS", "CAR_ROT", "WCSNAME", "LONPOLE", "LATPOLE", "WAVELNTH", "WAVEUNIT"}
)  # fmt: skip
_AXES = ("CTYPE", "CRPIX", "CRVAL", "CDELT", "CUNIT", "CROTA", "PC1_", "PC2_", "CD1_", "CD2_")
_OWN = frozenset(
    {"SIMPLE", "END", "EXTEND", "EXTNAME", "ZPCOUNT", "ZGCOUNT", "ZBLANK", "BSCALE", "BZERO",
     "BLANK", "BUNIT", "CHECKSUM", "DATASUM", "CONTINUE", "DATAVALS", "MISSVALS", "DATAMIN",
     "DATAMAX", "DATAMEDN", "DATAMEAN", "DATARMS"}
)  # fmt: skip


@dataclass(frozen=True)
class Synthetic:
    """What made an image that no telescope took.

    Attributes
    ----------
    telescop : {"SIMULATED", "SYNTHETIC"}
        A model of the Sun, or a generative network.
    instrume : str
        The model's or network's name.
    generator : str
        Digest of what made the image: weights, or settings.
    history : tuple of str
        Further lines for HISTORY.
    """

    telescop: str
    instrume: str
    generator: str
    history: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.telescop not in ("SIMULATED", "SYNTHETIC"):
            raise ValueError(f"telescop is SIMULATED or SYNTHETIC, not {self.telescop!r}")
        if self.instrume.upper().startswith(("HMI", "AIA", "SDO")) or not self.instrume:
            raise ValueError(f"instrume = {self.instrume!r} names an instrument of SDO, or none")


def _card(key: str, value: Any) -> str:
    """One card, or several with CONTINUE; refuses what FITS cannot say."""
    from astropy.io import fits

    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        raise DataError(f"card {key} is {value}; FITS has no such number, leave the card out")
    if not isinstance(value, bool | int | float | str):
        raise DataError(f"card {key} is {value!r}, not a number, a truth value or text")
    if isinstance(value, str) and any(not " " <= letter <= "~" for letter in value):
        raise DataError(f"card {key} = {value!r} holds letters that are not printable ASCII")
    if not key.replace("-", "").replace("_", "").isalnum() or key != key.upper() or len(key) > 8:
        raise DataError(f"{key!r} is not a FITS keyword")
    if key in ("HISTORY", "COMMENT"):
        lines = [str(value)[at : at + 72] for at in range(0, len(str(value)), 72)] or [""]
        return "".join(f"{key:8}{line}".ljust(CARD) for line in lines)
    if isinstance(value, bool):
        text = f"{'T' if value else 'F':>20}"
    elif isinstance(value, str):
        quoted = value.replace("'", "''")
        if len(quoted) > 68:
            return str(fits.Card(key, value))  # with CONTINUE
        text = f"'{quoted:8}'"
    elif isinstance(value, float):
        digits, _, power = repr(value).upper().partition("E")
        digits = digits if "." in digits else digits + ".0"
        text = f"{digits + ('E' + power if power else ''):>20}"
    else:
        text = f"{value:>20}"
    return f"{key:8}= {text}".ljust(CARD)


def _modified_julian(date: Any) -> float | None:
    """MJD of DATE-OBS in its own time scale; None when it is no ISO date."""
    try:
        since = datetime.fromisoformat(str(date).removesuffix("Z")) - datetime(1858, 11, 17)
    except (ValueError, TypeError):
        return None
    return since.total_seconds() / 86400.0


def _lines(value: Any) -> Iterable[Any]:
    """Values of a card that may stand several times."""
    return value if isinstance(value, list | tuple) else (value,)


def _lent(header: Mapping[str, Any]) -> dict[str, Any]:
    """Geometry of a record's header, and its identity under the names of `SOURCE`."""
    kept = {key: value for key, value in header.items()
            if key in GEOMETRY or key.startswith(_AXES)}  # fmt: skip
    return kept | {SOURCE[key]: value for key, value in header.items() if key in SOURCE}


def marked(header: Mapping[str, Any], synthetic: Synthetic) -> dict[str, Any]:
    """Cards of a synthetic image.

    A header with TELESCOP belongs to a record: of it only the geometry is kept, and
    who it was under other names (T_REC as SRCREC, HARPNUM as SRCHARP, ...). Its
    statistics and physical quantities describe other pixels and are dropped.
    """
    cards = _lent(header) if "TELESCOP" in header else dict(header)
    cards |= {
        "TELESCOP": synthetic.telescop,
        "INSTRUME": synthetic.instrume,
        "ORIGIN": "sunpipe",
        "SYNTHET": True,
        "GENHASH": synthetic.generator,
    }
    what = "simulated from a model" if synthetic.telescop == "SIMULATED" else "generated"
    first = f"Not an observation: these pixels were {what} by sunpipe."
    before = [str(line) for line in _lines(header.get("HISTORY", ())) if "TELESCOP" not in header]
    cards["HISTORY"] = [first, f"Generator {synthetic.generator}", *synthetic.history, *before]
    return cards


def statistics(values: NDArray[np.floating]) -> dict[str, Any]:
    """DATAVALS ... DATARMS of physical pixel values, as JSOC writes them.

    DATARMS is the standard deviation about DATAMEAN; without a valid pixel only the
    counts are there.
    """
    good = values[np.isfinite(values)].astype(np.float64)
    cards: dict[str, Any] = {"DATAVALS": int(good.size), "MISSVALS": int(values.size - good.size)}
    if good.size:
        cards |= {
            "DATAMIN": float(good.min()),
            "DATAMAX": float(good.max()),
            "DATAMEDN": float(np.median(good)),
            "DATAMEAN": float(good.mean()),
            "DATARMS": float(good.std()),
        }
    return cards


def scaled(
    data: NDArray[Any], bscale: float, bzero: float, blank: int, bits: int
) -> NDArray[np.signedinteger]:
    """Integers n with ``bzero + bscale * n`` within bscale / 2 of `data`; NaN is `blank`.

    Raises
    ------
    DataError
        A value, infinity included, that does not fit.
    """
    kind = np.dtype(f"i{bits // 8}")
    counts = np.rint((np.asarray(data, np.float64) - bzero) / bscale)
    missing = np.isnan(counts)
    counts[missing] = blank
    limits = np.iinfo(kind)
    outside = (counts < limits.min) | (counts > limits.max) | (~missing & (counts == blank))
    if outside.any():
        worst = np.asarray(data)[outside].flat[0]
        raise DataError(f"{worst} does not fit {bits}-bit integers in steps of {bscale:g}")
    return counts.astype(kind)


def _unit(text: str, body: bytes) -> bytes:
    """A header-data unit with its checksums (FITS Standard 4.0, J.1 and J.3)."""
    body += bytes(-len(body) % BLOCK)
    datasum = str(ones_sum(body))
    text += f"{'DATASUM':8}= '{datasum}'".ljust(CARD)
    before = text + f"{'CHECKSUM':8}= '{'0' * 16}'".ljust(CARD) + "END".ljust(CARD)
    head = before.ljust(math.ceil(len(before) / BLOCK) * BLOCK).encode("ascii")
    complement = ~ones_sum(head + body) & 0xFFFFFFFF
    at = len(text) + 11
    return head[:at] + encode_sum(complement).encode("ascii") + head[at + 16 :] + body


def encode_sum(value: int) -> str:
    """ASCII form of a 32-bit complement, letters and digits only (FITS Standard 4.0, J.2)."""
    letters = [[0] * 4 for _ in range(4)]
    for place in range(4):
        byte = value >> (24 - 8 * place) & 0xFF
        quarter = [byte // 4 + 48 + (byte % 4 if part == 0 else 0) for part in range(4)]
        banned = {*range(58, 65), *range(91, 97)}
        while banned & set(quarter):
            for one, other in ((0, 1), (2, 3)):
                if quarter[one] in banned or quarter[other] in banned:
                    quarter[one] += 1
                    quarter[other] -= 1
        for part in range(4):
            letters[part][place] = quarter[part]
    text = "".join(chr(letter) for row in letters for letter in row)
    return text[-1] + text[:-1]


def _rice(stored: NDArray[np.signedinteger]) -> tuple[str, bytes]:
    """Structural cards and body of a RICE_1 image, one row per tile."""
    from astropy.io import fits

    body = io.BytesIO()
    image = fits.CompImageHDU(stored, compression_type="RICE_1", tile_shape=(1, stored.shape[1]))
    fits.HDUList([fits.PrimaryHDU(), image]).writeto(body)
    raw = body.getvalue()
    unit = units(raw, "a compressed image")[1]
    keep = {key: value for key, value in unit.header.items() if STRUCTURE.match(key)}
    return "".join(_card(key, value) for key, value in keep.items()), raw[unit.data : unit.end]


def image_bytes(
    data: NDArray[Any],
    header: Mapping[str, Any],
    unit: str,
    *,
    compress: str | None = "RICE_1",
    bscale: float | None = None,
    bzero: float = 0.0,
    blank: int | None = None,
    bits: int = 32,
    synthetic: Synthetic | None = None,
) -> bytes:
    """`write_image` into memory."""
    data = np.asarray(data)
    if data.ndim != 2 or not data.size or data.dtype.kind not in "iuf":
        raise ValueError(f"an image is (H, W) of numbers, not {data.shape} of {data.dtype}")
    if compress not in (None, "RICE_1"):
        raise ValueError(f"compress is None or RICE_1, not {compress!r}")
    if bits not in (16, 32):
        raise ValueError(f"bits is 16 or 32, not {bits}")
    if bscale is not None and not (math.isfinite(bscale) and bscale > 0 and math.isfinite(bzero)):
        raise ValueError(f"bscale = {bscale}, bzero = {bzero} is no scale")
    whole = data.dtype.kind in "iu" or bscale is not None
    if compress and not whole:
        raise ValueError("RICE_1 is lossless for integers only: give bscale, or compress=None")
    cards = marked(header, synthetic) if synthetic else dict(header)
    day = _modified_julian(cards.get("DATE-OBS"))
    if day is not None:  # readers of world coordinates want both, and warn when one is missing
        cards.setdefault("MJD-OBS", day)
    own = {key for key in cards if key in _OWN or STRUCTURE.match(key)}
    text = "".join(_card(key, each) for key, value in cards.items() if key not in own
                   for each in _lines(value))  # fmt: skip
    if unit:
        text += _card("BUNIT", unit)
    if whole:
        blank = -(2 ** (bits - 1)) if blank is None else blank
        stored: NDArray[Any] = scaled(data, bscale or 1.0, bzero, blank, bits)
        shown = stored.astype(np.float64)
        shown *= bscale or 1.0
        shown += bzero
        shown[stored == blank] = np.nan
        text += _card("BSCALE", float(bscale or 1.0)) + _card("BZERO", float(bzero))
        text += _card("BLANK", blank)
    else:
        stored = data.astype(np.float64 if data.dtype.itemsize == 8 else np.float32)
        shown = stored
    text += "".join(_card(key, value) for key, value in statistics(shown).items())
    simple = f"{'SIMPLE':8}= {'T':>20}".ljust(CARD)
    if compress:
        structure, body = _rice(stored)
        empty = simple + _card("BITPIX", 8) + _card("NAXIS", 0) + _card("EXTEND", True)
        return _unit(empty, b"") + _unit(structure + text, body)
    kind = stored.dtype.itemsize * 8 * (1 if whole else -1)
    structure = simple + _card("BITPIX", kind) + _card("NAXIS", 2)
    structure += _card("NAXIS1", stored.shape[1]) + _card("NAXIS2", stored.shape[0])
    return _unit(structure + text, stored.astype(stored.dtype.newbyteorder(">")).tobytes())


def write_image(
    path: Path, data: NDArray[Any], header: Mapping[str, Any], unit: str, **how: Any
) -> None:
    """Write one image atomically.

    Parameters
    ----------
    path : Path
    data : ndarray (H, W)
        Physical values; row 0 is the southernmost. Floats without `bscale` are stored
        bit for bit (float16 as float32), integers and scaled floats as integers.
    header : mapping
        Cards. A list makes a card repeat (HISTORY). Structure, scale, statistics and
        checksums are the writer's own; such cards given are not used.
    unit : str
        BUNIT; empty for codes.
    compress : {"RICE_1", None}
        Tiles of one row in the first extension, or a plain primary image.
    bscale, bzero, blank : float, float, int
        Stored integers are ``(value - bzero) / bscale`` rounded, NaN is `blank`
        (default: the smallest integer).
    bits : {32, 16}
        Of stored integers.
    synthetic : Synthetic, optional
        Marks the image as no observation; see `marked`.

    Raises
    ------
    DataError
        A card that FITS cannot hold, a value that does not fit the integers.
    ValueError
        Arguments that do not go together.
    """
    raw = image_bytes(data, header, unit, **how)
    with atomic_path(path) as temporary:
        temporary.write_bytes(raw)
