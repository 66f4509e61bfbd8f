"""Growing datasets: new records append new shards, old shards are not touched."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from preprocess.manifest import Manifest, read_manifest, write_manifest
from preprocess.shard import shard as shard_stage
from preprocess.verify import verify
from sunpipe.config import load_config, validate
from sunpipe.files import sha256
from sunpipe.shards.reader import ShardReader
from tests.conftest import REPO, need

TINY = REPO / "configs/tiny.toml"
LAST = "hmi.sharp_cea_720s[7115][2017.09.01_22:00:00_TAI]"
FIRST = "hmi.sharp_cea_720s[377][2011.02.15_02:00:00_TAI]"


@pytest.fixture
def archive(tiny_root: Path, root: Path) -> Path:
    shutil.copytree(tiny_root / "archive", root / "archive")
    return root / "archive"


def shard(fresh: bool = False, **changes: object) -> dict[str, Any]:
    values = {"stride": 64, "reduce": 4, "min_flux_mx": 5e20, "test_harps": [6060],
              "images_per_shard": 8, **changes}  # fmt: skip
    config = validate({"name": "test", "dataset": "test", "shard": values})
    result = shard_stage(config, fresh)
    assert result is not None
    return result


def without(archive: Path, *records: str) -> Manifest:
    """Take records out of the manifest; returns the whole one."""
    whole = read_manifest(archive)
    write_manifest(archive, {key: entry for key, entry in whole.items() if key[0] not in records})
    return whole


def shards(folder: Path) -> dict[str, tuple[int, str]]:
    """Name to (inode, digest)."""
    return {path.name: (path.stat().st_ino, sha256(path)) for path in folder.glob("*.h5")}


def content(folder: Path) -> dict[tuple[Any, ...], bytes]:
    """Every image by its record and tile, wherever it stands."""
    reader = ShardReader(folder)
    return {
        (row["record"], row["tile_y"], row["tile_x"]): reader.images([row["row"]]).tobytes()
        for row in reader.records.to_pylist()
    }


@pytest.mark.parametrize("late", [LAST, FIRST])
def test_new_records_append_shards_wherever_they_sort(archive: Path, root: Path, late: str) -> None:
    folder = root / "shards/test"
    whole = without(archive, late)
    before = shard()
    old = shards(folder)
    write_manifest(archive, whole)
    after = shard()
    new = shards(folder)
    assert before["kept"] == 0
    assert after["kept"] >= len(old)  # groups without an image stay as well
    assert {name: new[name] for name in old} == old  # not even copied
    assert len(new) > len(old)
    assert after["records_in"] == after["rows"] + after["quarantined"]
    assert verify(folder, archive) == []
    assert shard()["up_to_date"]
    grown = content(folder)
    once = shard(fresh=True)
    assert (once["rows"], once["quarantined"]) == (after["rows"], after["quarantined"])
    assert content(folder) == grown


def test_a_record_that_goes_takes_its_images_along(archive: Path, root: Path) -> None:
    folder = root / "shards/test"
    whole = shard()
    old = shards(folder)
    without(archive, FIRST)
    less = shard()
    assert 0 < less["rows"] < whole["rows"]
    assert verify(folder, archive) == []
    table = pq.read_table(folder / "records.parquet")
    assert FIRST not in set(table["record"].to_pylist())
    new = shards(folder)
    untouched = {name for name in old if new.get(name) == old[name]}
    assert untouched  # those of the other records


def test_a_damaged_shard_is_made_again_alone(archive: Path, root: Path) -> None:
    folder = root / "shards/test"
    shard()
    old = shards(folder)
    victim = folder / "shard-00002.h5"
    raw = bytearray(victim.read_bytes())
    raw[-300] ^= 4
    victim.write_bytes(raw)
    again = shard()
    new = shards(folder)
    assert again["kept"] >= len(old) - 1
    assert {name: digest for name, (_, digest) in new.items()} == {
        name: digest for name, (_, digest) in old.items()}  # fmt: skip
    assert [name for name in old if new[name][0] != old[name][0]] == [victim.name]


@pytest.mark.mpi
def test_growing_is_the_same_at_any_number_of_ranks(archive: Path, root: Path) -> None:
    folder = root / "shards/test"
    whole = without(archive, LAST)
    shard()
    shutil.copytree(folder, root / "first")
    write_manifest(archive, whole)
    shard()
    one = shards(folder)
    shutil.rmtree(folder)
    (root / "first").rename(folder)
    values = ["stride=64", "reduce=4", "min_flux_mx=5e20", "test_harps=[6060]",
              "images_per_shard=8"]  # fmt: skip
    command = [need("mpiexec"), "-n", "2", sys.executable, "-m", "sunpipe", "shard", "--json",
               "-s", "name='test'", "-s", "dataset='test'"]  # fmt: skip
    for value in values:
        command += ["-s", f"shard.{value}"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPO, check=False,
                          env={**os.environ, "SUNPIPE_ROOT": str(root)})  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["kept"] > 0
    assert {name: two[1] for name, two in shards(folder).items()} == {
        name: two[1] for name, two in one.items()}  # fmt: skip


def test_kills_at_random_moments_end_with_the_same_bytes(archive: Path, root: Path) -> None:
    """Killed again and again, until a run comes through."""
    command = [sys.executable, "-m", "sunpipe", "shard", "-c", str(TINY), "-s", "shard.stride=24",
               "-s", "shard.images_per_shard=4"]  # fmt: skip
    env = {**os.environ, "SUNPIPE_ROOT": str(root)}
    folder = root / "shards/tiny"
    chance = random.Random(1)
    kills = 0
    while kills < 6:
        with subprocess.Popen(command, cwd=REPO, env=env, stderr=subprocess.DEVNULL,
                              stdout=subprocess.DEVNULL) as running:  # fmt: skip
            try:
                running.wait(timeout=chance.uniform(0.8, 3.0))
            except subprocess.TimeoutExpired:
                running.kill()
                kills += 1
        if folder.exists():
            shutil.rmtree(folder)
        time.sleep(0.01)
    config = load_config(TINY, ["shard.stride=24", "shard.images_per_shard=4"])
    shard_stage(config)
    killed = {path.name: sha256(path) for path in folder.iterdir()
              if path.name != "provenance.json"}  # fmt: skip
    assert verify(folder, archive) == []
    shutil.rmtree(folder)
    shard_stage(config)
    assert killed == {path.name: sha256(path) for path in folder.iterdir()
                      if path.name != "provenance.json"}  # fmt: skip
