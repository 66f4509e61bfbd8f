"""A thousand damaged records: none of them crashes the sharder, none is silently wrong."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from preprocess.acquire.sample import sample_files
from preprocess.archive import relative_path
from preprocess.manifest import Entry, Manifest, write_manifest
from preprocess.shard import shard as shard_stage
from preprocess.verify import verify
from sunpipe.config import validate
from sunpipe.files import sha256
from sunpipe.fits import COMPONENTS, read_segment
from sunpipe.fitswrite import write_image
from sunpipe.shards.reader import ShardReader

SIDE = 48
SERIES = "hmi.sharp_cea_720s"
KINDS = ("truncate", "flip", "header", "zero", "insert")


def when(number: int) -> str:
    return f"2011.02.{1 + number // 96:02d}_{number % 96 // 4:02d}:{number % 4 * 12:02d}:00_TAI"


def damage(raw: bytes, kind: str, chance: np.random.Generator) -> bytes:
    """One of the five kinds of damage of which readers were tried (docs/data.md)."""
    place = int(chance.integers(0, len(raw)))
    if kind == "truncate":
        return raw[:place]
    if kind == "flip":
        return raw[:place] + bytes([raw[place] ^ 1 << int(chance.integers(8))]) + raw[place + 1 :]
    if kind == "header":
        out = bytearray(raw)
        for spot in chance.integers(0, min(len(raw), 11520), 16):
            out[spot] = int(chance.integers(256))
        return bytes(out)
    if kind == "zero":
        return raw[:place] + bytes(len(raw[place : place + 512])) + raw[place + 512 :]
    return raw[:place] + chance.bytes(int(chance.integers(1, 600))) + raw[place:]


@pytest.fixture
def patch() -> tuple[np.ndarray, dict[str, object]]:
    """A piece of a real active region, and its header."""
    paths = {segment: path for record, segment, path, _ in sample_files() if "[377]" in record}
    read = [read_segment(paths[name]) for name in COMPONENTS]
    fields = np.stack([segment.data[160 : 160 + SIDE, 330 : 330 + SIDE] for segment in read])
    header = {key: value for key, value in read[0].header.items() if value == value}
    return fields, header


def write_records(
    archive: Path, count: int, fields: np.ndarray, header: dict[str, object]
) -> tuple[Manifest, Counter[str]]:
    """`count` records of one patch; of each, one segment was damaged before it was fetched."""
    chance = np.random.default_rng(7)
    manifest: Manifest = {}
    harmless: Counter[str] = Counter()
    for number in range(count):
        t_rec = when(number)
        record = f"{SERIES}[377][{t_rec}]"
        victim, kind = COMPONENTS[number % 3], KINDS[number % len(KINDS)]
        for place, name in enumerate(COMPONENTS):
            path = archive / relative_path(record, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_image(path, fields[place], header | {"T_REC": t_rec}, "Mx/cm^2", bscale=0.01)
            if name == victim:
                raw = path.read_bytes()
                bad = damage(raw, kind, chance)
                harmless[kind] += bad == raw
                path.write_bytes(bad)
            manifest[record, name] = Entry(
                record, name, relative_path(record, name), sha256(path), path.stat().st_size,
                "fetched", "", "test", "",
            )  # fmt: skip
    write_manifest(archive, manifest)
    return manifest, harmless


def test_a_thousand_damaged_records(
    root: Path, patch: tuple[np.ndarray, dict[str, object]]
) -> None:
    fields, header = patch
    _, harmless = write_records(root / "archive", 1000, fields, header)
    settings = {"tile": SIDE, "stride": 0, "reduce": 1, "images_per_shard": 64,
                "dtype": "float32"}  # fmt: skip
    result = shard_stage(validate({"name": "t", "dataset": "damaged", "shard": settings}))
    assert result is not None
    assert result["records_in"] == 1000 == result["rows"] + result["quarantined"]
    assert verify(root / "shards/damaged") == []
    reader = ShardReader(root / "shards/damaged")
    right = np.round(fields / 0.01) * 0.01  # what the archive stores
    for row in range(result["rows"]):
        assert np.abs(reader.images([row])[0] - right).max() < 1e-3
    # nearly all damage is seen: what passes changed nothing that is used
    assert result["rows"] <= 60 + sum(harmless.values())
    reasons = pq.read_table(root / "shards/damaged/quarantine.parquet")["reason"].to_pylist()
    assert {"truncated", "checksum", "corrupt"} <= set(reasons)
