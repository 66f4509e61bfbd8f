"""Which side of the split a record stands on: a pure function of its HARP, or of its time.

Neighbouring frames are almost the same image, so a split never cuts between
them: a HARP stands on one side as a whole; disks go by blocks of
``shard.block_days`` (27 days: one rotation), and records nearer than
``shard.gap_days`` to a block of the other side are left out.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq

from preprocess.archive import RecordName
from preprocess.times import DAY_S, tai_seconds
from sunpipe.errors import DataError
from sunpipe.fitsfile import FitsError
from sunpipe.shard_settings import ShardSettings


def held_out(kind: str, number: int, share: float) -> bool:
    """Whether item `number` belongs to the held-out `share`; the same in every archive."""
    word = hashlib.sha256(f"{kind} {number}".encode()).digest()[:8]
    return int.from_bytes(word, "big") < share * 2**64


def _block_split(seconds: float, settings: ShardSettings) -> str:
    block = math.floor(seconds / (settings.block_days * DAY_S))
    return "test" if held_out("block", block, settings.test_share) else "train"


def split_of(name: RecordName, settings: ShardSettings) -> str:
    """``train`` or ``test``.

    Raises
    ------
    FitsError
        ``split_gap``: a disk too near to a block of the other side.
    """
    if name.harpnum is not None:
        listed = name.harpnum in settings.test_harps
        return "test" if listed or held_out("harp", name.harpnum, settings.test_share) else "train"
    seconds = float(tai_seconds([name.t_rec])[0])
    side = _block_split(seconds, settings)
    gap = settings.gap_days * DAY_S
    for near in (seconds - gap, seconds + gap):
        if _block_split(near, settings) != side:
            raise FitsError(
                "split_gap",
                f"within {settings.gap_days:g} days of a block of the other side of the split",
            )
    return side


def check_splits(records: Path) -> Counter[str]:
    """Rows per split.

    Raises
    ------
    DataError
        Names the HARPs that stand on both sides.
    """
    table = pq.read_table(records, columns=["harpnum", "split"])
    sides: dict[int, set[str]] = {}
    for harp, split in zip(table["harpnum"].to_pylist(), table["split"].to_pylist(), strict=True):
        if harp is not None:
            sides.setdefault(harp, set()).add(split)
    if both := sorted(harp for harp, split in sides.items() if len(split) > 1):
        raise DataError(f"HARPs {both} stand in the training and in the test split")
    return Counter(table["split"].to_pylist())
