"""``sunpipe verify``: every kind of damage to a published dataset is found."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from preprocess.shard import shard
from preprocess.verify import verify
from sunpipe.config import validate
from sunpipe.errors import DataError
from sunpipe.files import sha256
from sunpipe.shards.reader import ShardReader
from sunpipe.shards.schema import TABLES
from tests.conftest import Cli


@pytest.fixture
def dataset(tiny_root: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "tiny"
    shutil.copytree(tiny_root / "shards/tiny", folder)
    return folder


def edit_info(folder: Path, **changes: Any) -> None:
    path = folder / "dataset.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def republish(folder: Path) -> None:
    """Make the digests fit again, as somebody who tampers would."""
    info = json.loads((folder / "dataset.json").read_text())
    edit_info(
        folder,
        shards={name: sha256(folder / name) for name in info["shards"]},
        files={name: sha256(folder / name) for name in TABLES},
    )


def edit_records(folder: Path, name: str, change: Callable[[list[Any]], list[Any]]) -> None:
    path = folder / "records.parquet"
    table = pq.read_table(path)
    place = table.schema.get_field_index(name)
    values = pa.array(change(table[name].to_pylist()), table.schema.field(name).type)
    pq.write_table(table.set_column(place, table.schema.field(name), values), path)
    republish(folder)


def words(folder: Path) -> str:
    problems = verify(folder)
    assert problems
    return " | ".join(problems)


def test_a_good_dataset_has_no_problems(dataset: Path) -> None:
    assert verify(dataset) == []


def test_the_command_says_ok_and_exits_1_when_not(tiny_copy: Path, cli: Cli) -> None:
    good = cli("verify", "tiny", "--json")
    assert (good.returncode, json.loads(good.stdout)["ok"]) == (0, True)
    (tiny_copy / "shards/tiny/shard-00003.h5").unlink()
    bad = cli("verify", str(tiny_copy / "shards/tiny"), "--json")
    assert bad.returncode == 1
    assert json.loads(bad.stdout)["problems"] == ["shard-00003.h5: missing"]


def test_a_dataset_that_is_not_there(tmp_path: Path) -> None:
    assert "run sunpipe shard first" in words(tmp_path / "nothing")


def test_flipped_bits_are_found(dataset: Path) -> None:
    rng = np.random.default_rng(3)
    names = [path.name for path in dataset.iterdir() if path.suffix in (".h5", ".parquet")]
    for _ in range(40):
        path = dataset / str(rng.choice(names))
        raw = path.read_bytes()
        place = int(rng.integers(len(raw)))
        changed = raw[:place] + bytes([raw[place] ^ 1 << int(rng.integers(8))]) + raw[place + 1 :]
        path.write_bytes(changed)
        assert path.name in words(dataset)
        path.write_bytes(raw)
    assert verify(dataset) == []


def test_flipped_chunks_are_found_even_with_a_fitting_digest(dataset: Path) -> None:
    path = dataset / "shard-00000.h5"
    with h5py.File(path) as file:
        place = file["images"].id.get_chunk_info(2).byte_offset + 40
    raw = bytearray(path.read_bytes())
    raw[place] ^= 4
    path.write_bytes(raw)
    republish(dataset)
    assert "shard-00000.h5" in words(dataset)
    with pytest.raises(DataError, match="damaged at image 2"):
        ShardReader(dataset).images([2])


def test_swapped_shards_are_found(dataset: Path) -> None:
    one, two = dataset / "shard-00000.h5", dataset / "shard-00001.h5"
    one.rename(dataset / "x")
    two.rename(one)
    (dataset / "x").rename(two)
    assert words(dataset).count("is not what was published") == 2


def test_truncated_and_extra_shards_are_found(dataset: Path) -> None:
    last = max(dataset.glob("shard-*.h5"))
    shutil.copy(last, dataset / "shard-77777.h5")
    last.write_bytes(last.read_bytes()[:-100])
    found = words(dataset)
    assert last.name in found
    assert "shard-77777.h5: is no part" in found


def test_a_shard_that_is_a_link_is_refused(dataset: Path, tmp_path: Path) -> None:
    path = dataset / "shard-00000.h5"
    path.rename(tmp_path / "elsewhere.h5")
    path.symlink_to(tmp_path / "elsewhere.h5")
    assert "not a plain file" in words(dataset)


def _external_link(path: Path, other: Path) -> None:
    with h5py.File(path, "r+") as file:
        del file["images"]
        file["images"] = h5py.ExternalLink(str(other), "/images")


def _soft_link(path: Path, other: Path) -> None:
    with h5py.File(path, "r+") as file:
        del file["mask"]
        file["mask"] = h5py.SoftLink("/images")


def _external_storage(path: Path, other: Path) -> None:
    with h5py.File(path, "r+") as file:
        shape, dtype = file["images"].shape, file["images"].dtype
        del file["images"]
        size = int(np.prod(shape)) * 2
        file.create_dataset("images", shape, dtype, external=[(str(other), 0, size)])


def _virtual(path: Path, other: Path) -> None:
    with h5py.File(path, "r+") as file:
        shape, dtype = file["images"].shape, file["images"].dtype
        del file["images"]
        layout = h5py.VirtualLayout(shape, dtype)
        layout[:] = h5py.VirtualSource(str(other), "images", shape)
        file.create_virtual_dataset("images", layout)


def _bomb(path: Path, other: Path) -> None:
    with h5py.File(path, "r+") as file:
        del file["images"], file["mask"]
        codec = hdf5plugin.Bitshuffle(cname="lz4")
        file.create_dataset("images", (16, 3, 60000, 60000), "i2", chunks=(1, 3, 1000, 1000),
                            fletcher32=True, **codec)  # fmt: skip
        file.create_dataset("mask", (16, 60000, 60000), "u1", chunks=(1, 1000, 1000),
                            fletcher32=True, **codec)  # fmt: skip


def _group(path: Path, other: Path) -> None:
    with h5py.File(path, "r+") as file:
        file.create_group("more")


@pytest.mark.parametrize(
    "poison", [_external_link, _soft_link, _external_storage, _virtual, _bomb, _group]
)
def test_shards_that_lead_elsewhere_are_refused(
    dataset: Path, tmp_path: Path, poison: Callable[[Path, Path], None]
) -> None:
    other = tmp_path / "other.h5"
    shutil.copy(dataset / "shard-00001.h5", other)
    poison(dataset / "shard-00000.h5", other)
    republish(dataset)
    assert "shard-00000.h5" in words(dataset)
    with pytest.raises(DataError, match=r"shard-00000\.h5"):
        ShardReader(dataset).images([0])


def test_a_value_outside_of_physics_is_found(dataset: Path) -> None:
    with h5py.File(dataset / "shard-00000.h5", "r+") as file:
        mask = file["mask"][0]
        mask[3, 3] = 0
        file["mask"][0] = mask
    republish(dataset)
    found = words(dataset)
    assert "image 0" in found


def test_a_harp_on_both_sides_is_found(dataset: Path) -> None:
    edit_records(dataset, "split", lambda values: ["test", *values[1:]])
    assert "in the training and in the test split" in words(dataset)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("row", lambda values: values[::-1]),
        ("position", lambda values: [0] * len(values)),
        ("split", lambda values: ["maybe", *values[1:]]),
        ("pixel_cm", lambda values: [None, *values[1:]]),
        ("flux_mx", lambda values: [-1.0, *values[1:]]),
        ("nan_share", lambda values: [0.5, *values[1:]]),
        ("mu", lambda values: [1.5, *values[1:]]),
        ("tile_x", lambda values: [values[1], *values[1:]]),
    ],
)
def test_impossible_records_are_found(
    dataset: Path, name: str, change: Callable[[list[Any]], list[Any]]
) -> None:
    edit_records(dataset, name, change)
    assert verify(dataset)


@pytest.mark.parametrize(
    "changes",
    [
        {"shards": {"../../x.h5": "0" * 64}},
        {"shards": {"/etc/passwd": "0" * 64}},
        {"shards": {}},
        {"shards": []},
        {"files": {}},
        {"counts": {"records_in": 1, "rows": 1, "quarantined": 1, "train": 1, "test": 0}},
        {"counts": None},
        {"scale": 0.1},
        {"reduce": 2},
        {"schema": 99},
        {"extra": 1},
    ],
    ids=str,
)
def test_poisoned_descriptions_are_found(dataset: Path, changes: dict[str, Any]) -> None:
    edit_info(dataset, **changes)
    assert verify(dataset)


def test_a_key_that_stands_twice_is_refused(dataset: Path) -> None:
    path = dataset / "dataset.json"
    path.write_text(path.read_text().replace('"name":', '"name": "other",\n  "name":', 1))
    assert "stands twice" in words(dataset)


def test_quarantine_that_does_not_add_up_is_found(dataset: Path) -> None:
    path = dataset / "quarantine.parquet"
    pq.write_table(pq.read_table(path).slice(1), path)
    republish(dataset)
    assert "quarantine.parquet" in words(dataset)


def test_uncompressed_shards_are_read_with_their_sums(tiny_root: Path, root: Path) -> None:
    shutil.copytree(tiny_root / "archive", root / "archive")
    settings = {"stride": 64, "reduce": 4, "storage": "contiguous", "images_per_shard": 16}
    shard(validate({"name": "plain", "dataset": "plain", "shard": settings}))
    folder = root / "shards/plain"
    assert verify(folder, root / "archive") == []
    victim = max(folder.glob("*.h5"), key=lambda path: path.stat().st_size)
    with h5py.File(victim) as file:
        first = file["images"].id.get_offset()
    raw = bytearray(victim.read_bytes())
    raw[first + 900] ^= 16
    victim.write_bytes(raw)
    republish(folder)
    assert "damaged at image 0" in words(folder)
