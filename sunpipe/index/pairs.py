"""Which vector belongs to which patch: one digest for the rows of every source."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

IDENTITY = ("record", "tile_y", "tile_x")
BLOCK = 65_536


def pairs_digest(vectors: NDArray[np.float32], table: pa.Table, first: int, rows: int) -> str:
    """SHA-256 over record, tile and prepared vector of some rows, in their order."""
    found = hashlib.sha256()
    for start in range(first, first + rows, BLOCK):
        count = min(BLOCK, first + rows - start)
        part = table.select(IDENTITY).slice(start, count)
        names = zip(*(part[name].to_pylist() for name in IDENTITY), strict=True)
        found.update("\n".join(f"{record}\t{y}\t{x}" for record, y, x in names).encode())
        found.update(np.ascontiguousarray(vectors[start : start + count], "<f4").data)
    return found.hexdigest()


def unpaired(
    vectors: NDArray[np.float32], table: pa.Table, sources: Sequence[dict[str, Any]]
) -> list[str]:
    """Sources whose vectors and metadata do not belong together."""
    return [f"vectors and metadata of embedding {each['embedding'][:12]} (rows from"
            f" {each['first']} on) do not belong together; build the index again"
            for each in sources
            if pairs_digest(vectors, table, each["first"], each["rows"]) != each["pairs"]
            ]  # fmt: skip
