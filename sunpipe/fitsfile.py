"""The bytes of a FITS file: header-data units, defensive card values, checksums.

Checksums are computed on the stored bytes, because astropy's check of a
decompressed view verifies nothing, and its check of a table re-formats cards
such as ``R_VALUE = nan`` and then finds every SHARP wrong.

References
----------
FITS Standard 4.0 (2018): sections 3 and 4 (structure, cards), appendix J (checksum).
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sunpipe.errors import DataError

BLOCK = 2880
CARD = 80
MAX_HEADER = 400 * BLOCK
LARGE = 1 << 20  # bytes from which compiled code pays
MAX_AXES = 999  # FITS Standard 4.0, section 4.4.1.1
_END = b"END     "
_NAME = re.compile(r"[A-Z0-9_-]{0,8} *$")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([ED][+-]?\d+)?$", re.IGNORECASE)
STRUCTURE = re.compile(
    r"(XTENSION|BITPIX|NAXIS\d?|PCOUNT|GCOUNT|TFIELDS|THEAP"
    r"|(TTYPE|TFORM)\d+|Z(IMAGE|SIMPLE|TENSION|BITPIX|NAXIS\d?|TILE\d|CMPTYPE|NAME\d|VAL\d))$"
)

_TEXT = bytes(range(0x20, 0x7F))
_INTEGER = re.compile(r"[+-]?\d+$")
_STRING = re.compile(r"'((?:[^']|'')*)'")
_ONCE = frozenset({"BSCALE", "BZERO", "BLANK", "ZBLANK", "CHECKSUM", "DATASUM"})

Value = str | int | float | bool | None


class FitsError(DataError):
    """A FITS file that cannot be used.

    Attributes
    ----------
    reason : str
        Machine-readable code, for the quarantine.
    detail : str
        What a person wants to know.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{detail} [{reason}]")
        self.reason = reason
        self.detail = detail

    def __reduce__(self) -> tuple[Any, ...]:  # travels between MPI ranks
        return type(self), (self.reason, self.detail)


@dataclass(frozen=True)
class Unit:
    """One header-data unit: its header and where its bytes lie."""

    header: dict[str, Value]
    start: int
    data: int
    end: int


def card_value(text: str) -> Value:
    """Value of a card's value field; bare ``nan`` and ``inf`` are numbers here."""
    text = text.strip()
    if text.startswith("'"):
        match = _STRING.match(text)
        return match.group(1).replace("''", "'").rstrip() if match else None
    text = text.partition("/")[0].strip()
    if text in ("T", "F"):
        return text == "T"
    if _INTEGER.match(text):
        return int(text)
    if _NUMBER.match(text):
        return float(text.upper().replace("D", "E"))
    if text.lower().lstrip("+-") in ("nan", "inf"):
        return float(text)
    return None


def _header(raw: bytes, start: int, name: str) -> tuple[dict[str, Value], int]:
    """Parse one header; returns it and the offset of the data."""
    header: dict[str, Value] = {}
    for place in range(start, min(len(raw), start + MAX_HEADER), CARD):
        card = raw[place : place + CARD]
        if len(card) < CARD:
            break
        if card.translate(None, _TEXT):
            raise FitsError("corrupt", f"{name}: a header card holds bytes that are not text")
        text = card.decode("ascii")
        keyword = text[:8]
        if not _NAME.match(keyword):
            raise FitsError("corrupt", f"{name}: {keyword!r} is not a FITS keyword")
        keyword = keyword.rstrip()
        if keyword == "END":
            if text[8:].strip():
                raise FitsError("corrupt", f"{name}: the END card is damaged")
            return header, start + math.ceil((place + CARD - start) / BLOCK) * BLOCK
        if text[8:10] == "= ":
            if keyword in header and (STRUCTURE.match(keyword) or keyword in _ONCE):
                raise FitsError("corrupt", f"{name}: {keyword} stands twice in one header")
            header[keyword] = card_value(text[10:])
    raise FitsError("truncated", f"{name}: a header has no END")


def count(header: Mapping[str, Value], key: str, name: str, default: int | None = None) -> int:
    """A card that must be a whole number of at least 0; `name` is the file's, for messages."""
    value = header.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise FitsError("corrupt", f"{name}: {key} = {value!r} is not a count")
    return value


def _check_begin(raw: bytes, name: str, rest: int = 0) -> None:
    """Refuse a unit that does not begin as one; `rest` bytes follow an earlier one, 0 for none."""
    if rest and not raw.startswith(b"XTENSION="):
        raise FitsError("corrupt", f"{name}: {rest} stray bytes after the last unit")
    if not rest and not raw.startswith(b"SIMPLE  ="):
        kind = "is empty" if not raw else "does not begin as a FITS file"
        raise FitsError("not_fits", f"{name} {kind}")


def units(raw: bytes, name: str) -> list[Unit]:
    """Split a FITS file into its header-data units.

    Raises
    ------
    FitsError
        ``not_fits``, ``truncated`` or ``corrupt``.
    """
    _check_begin(raw, name)
    found: list[Unit] = []
    start = 0
    while start < len(raw):
        if found:
            _check_begin(raw[start : start + CARD], name, len(raw) - start)
        found.append(_unit(raw, start, len(raw), name))
        start = found[-1].end
    return found


def _unit(raw: bytes, start: int, size: int, name: str, offset: int = 0) -> Unit:
    """The unit whose header begins at `start` of `raw`, which is the file from `offset` on.

    `size` is the file's; the unit's data need not be in `raw`.
    """
    header, data = _header(raw, start, name)
    bits = header.get("BITPIX")
    if bits not in (8, 16, 32, 64, -32, -64):
        raise FitsError("corrupt", f"{name}: BITPIX = {bits!r}")
    axes = count(header, "NAXIS", name)
    if axes > MAX_AXES:
        raise FitsError("corrupt", f"{name}: NAXIS = {axes}")
    body = 0
    if axes:
        body = math.prod(count(header, f"NAXIS{axis}", name) for axis in range(1, axes + 1))
        body = abs(int(bits)) // 8 * (body + count(header, "PCOUNT", name, 0))
    end = offset + data + math.ceil(body / BLOCK) * BLOCK
    if end > size:
        raise FitsError("truncated", f"{name}: {size} bytes where its header says {end}")
    return Unit(header, offset + start, offset + data, end)


def peek_units(path: Path) -> list[Unit]:
    """`units` of a file of which only the headers are read, whatever its size.

    Raises
    ------
    FitsError
        With the reasons of `units`.
    """
    size, found, start = path.stat().st_size, list[Unit](), 0
    with open(path, "rb") as handle:
        while start < size or not found:
            handle.seek(start)
            raw = b""
            while len(raw) <= MAX_HEADER and (block := handle.read(BLOCK)):
                raw += block
                if any(block.startswith(_END, place) for place in range(0, len(block), CARD)):
                    break
            _check_begin(raw, path.name, size - start if found else 0)
            found.append(_unit(raw, 0, size, path.name, start))
            start = found[-1].end
    return found


def ones_sum(raw: bytes | memoryview) -> int:
    """32-bit ones' complement sum of big-endian words (FITS Standard 4.0, J.1)."""
    if len(raw) < LARGE or sys.byteorder != "little":
        return _carried(int(np.frombuffer(raw, dtype=">u4").sum(dtype=np.uint64)))
    from sunpipe.checksum_kernels import sum_big_endian

    words = np.require(np.frombuffer(raw, dtype="<u4"), requirements="A")
    words.flags.writeable = False
    return _carried(int(sum_big_endian(words)))


def _carried(total: int) -> int:
    while total >> 32:
        total = (total & 0xFFFFFFFF) + (total >> 32)
    return total


def verify_sums(raw: bytes, unit: Unit, name: str) -> bool:
    """Check DATASUM and CHECKSUM of one unit; False when it carries neither.

    Raises
    ------
    FitsError
        ``checksum``: a sum is wrong, or one of the two cards is missing.
    """
    view = memoryview(raw)
    sums = [unit.header.get("DATASUM"), unit.header.get("CHECKSUM")]
    if sums == [None, None]:
        return False
    if None in sums:
        raise FitsError("checksum", f"{name}: only one of DATASUM and CHECKSUM is there")
    data = ones_sum(view[unit.data : unit.end])
    try:
        stated = int(str(sums[0]))
    except ValueError:
        raise FitsError("checksum", f"{name}: DATASUM = {sums[0]!r}") from None
    if data != stated:
        raise FitsError("checksum", f"{name}: DATASUM says {stated}, the data give {data}")
    if _carried(ones_sum(view[unit.start : unit.data]) + data) not in (0, 0xFFFFFFFF):
        raise FitsError("checksum", f"{name}: the header does not fit its CHECKSUM")
    return True
