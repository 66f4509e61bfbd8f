"""An encoder of RICE_1 tiles in plain Python, and FITS files made of them, for the tests.

Written from FITS Standard 4.0, section 10.4.1, and independent of the decoder.
"""

from __future__ import annotations

import math

import numpy as np

CODES = {8: (3, 6), 16: (4, 14), 32: (5, 25)}  # bits of a block's code, split that means as it is


def encode(tile: np.ndarray, bits: int, block: int, splits: object = None) -> bytes:
    """One stream. `splits(block number)` forces a split, None chooses the shortest."""
    width, raw = CODES[bits]
    values = [int(value) for value in tile.ravel()]
    text = [f"{values[0] % 2**bits:0{bits}b}"]
    last = values[0]
    for number, first in enumerate(range(0, len(values), block)):
        folded = []
        for value in values[first : first + block]:
            step = (value - last + 2 ** (bits - 1)) % 2**bits - 2 ** (bits - 1)
            folded.append(2 * step if step >= 0 else -2 * step - 1)
            last = value
        sizes = {s: sum((f >> s) + 1 + s for f in folded) for s in range(raw)}
        split = min(sizes, key=sizes.__getitem__)
        if splits is not None:
            split = splits(number)
        elif sizes[split] >= bits * len(folded):
            split = raw
        if not any(folded) and splits is None:
            text.append("0" * width)
        elif split == raw:
            text.append(f"{raw + 1:0{width}b}" + "".join(f"{f:0{bits}b}" for f in folded))
        else:
            text.append(f"{split + 1:0{width}b}")
            for f in folded:
                low = f"{f % 2**split:0{split}b}" if split else ""
                text.append("0" * (f >> split) + "1" + low)
    stream = "".join(text)
    stream += "0" * (-len(stream) % 8)
    return int(stream, 2).to_bytes(len(stream) // 8, "big")


def card(key: str, value: object) -> bytes:
    if isinstance(value, bool):
        text = f"{'T' if value else 'F':>20}"
    elif isinstance(value, str):
        text = f"'{value:8}'"
    else:
        text = f"{value!r:>20}"
    return f"{key:8}= {text}".ljust(80).encode()


def header(cards: dict[str, object]) -> bytes:
    text = b"".join(card(key, value) for key, value in cards.items()) + b"END".ljust(80)
    return text.ljust(math.ceil(len(text) / 2880) * 2880)


def rice_file(
    image: np.ndarray,
    bits: int,
    tile: tuple[int, int],
    block: int = 32,
    *,
    form: str = "P",
    gap: int = 0,
    splits: object = None,
    streams: list[bytes] | None = None,
    **cards: object,
) -> bytes:
    """A FITS file with one RICE image without checksums; `cards` are added or changed."""
    rows, columns = image.shape
    if streams is None:
        streams = [
            encode(image[y : y + tile[0], x : x + tile[1]], bits, block, splits)
            for y in range(0, rows, tile[0])
            for x in range(0, columns, tile[1])
        ]
    lengths = np.array([len(stream) for stream in streams])
    table = np.stack([lengths, np.cumsum(lengths) - lengths], axis=1)
    table_bytes = table.astype(">i4" if form == "P" else ">i8").tobytes()
    heap = b"\xa5" * gap + b"".join(streams)
    values: dict[str, object] = {
        "XTENSION": "BINTABLE", "BITPIX": 8, "NAXIS": 2, "NAXIS1": 8 if form == "P" else 16,
        "NAXIS2": len(streams), "PCOUNT": len(heap), "GCOUNT": 1, "TFIELDS": 1,
        "TTYPE1": "COMPRESSED_DATA", "TFORM1": f"1{form}B({max(lengths)})",
        "THEAP": len(table_bytes) + gap,
        "ZIMAGE": True, "ZTENSION": "IMAGE", "ZBITPIX": bits, "ZNAXIS": 2, "ZNAXIS1": columns,
        "ZNAXIS2": rows, "ZTILE1": tile[1], "ZTILE2": tile[0], "ZCMPTYPE": "RICE_1",
        "ZNAME1": "BLOCKSIZE", "ZVAL1": block, "ZNAME2": "BYTEPIX", "ZVAL2": bits // 8,
    } | cards  # fmt: skip
    data = table_bytes + heap
    data = data.ljust(math.ceil(len(data) / 2880) * 2880, b"\0")
    return header({"SIMPLE": True, "BITPIX": 8, "NAXIS": 0}) + header(values) + data
