"""Cards and header-data units as bytes, with their checksums.

References
----------
FITS Standard 4.0 (2018): cards 4.2, CONTINUE 4.2.1.2, checksums J.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from sunpipe.errors import DataError
from sunpipe.fitsfile import BLOCK, CARD, ones_sum


def card(key: str, value: Any) -> str:
    """One card, or several with CONTINUE.

    Raises
    ------
    DataError
        What FITS cannot say: NaN, infinity, letters beyond ASCII, a wrong keyword.
    """
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
            return _continued(key, quoted)
        text = f"'{quoted:8}'"
    elif isinstance(value, float):
        digits, _, power = repr(value).upper().partition("E")
        digits = digits if "." in digits else digits + ".0"
        text = f"{digits + ('E' + power if power else ''):>20}"
    else:
        text = f"{value:>20}"
    return f"{key:8}= {text}".ljust(CARD)


def _continued(key: str, quoted: str) -> str:
    """A long text over several cards; a doubled quote is not torn."""
    parts = []
    while quoted:
        at = 67 if len(quoted) > 68 else 68
        # an odd run of quotes before the cut is the first half of a doubled one
        at -= (len(quoted[:at]) - len(quoted[:at].rstrip("'"))) % 2 if len(quoted) > at else 0
        parts.append(quoted[:at])
        quoted = quoted[at:]
    cards = [f"'{part}&'" for part in parts[:-1]] + [f"'{parts[-1]}'"]
    heads = [f"{key:8}= "] + ["CONTINUE  "] * (len(cards) - 1)
    return "".join((head + text).ljust(CARD) for head, text in zip(heads, cards, strict=True))


def unit_bytes(text: str, body: bytes) -> bytes:
    """A header-data unit of cards `text` and data `body`, with DATASUM and CHECKSUM (J.1, J.3)."""
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
