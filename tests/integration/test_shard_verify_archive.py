"""``sunpipe verify``: pixels that are not their rows', and what only the archive tells."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from preprocess.dataset.hdf5 import write_shard
from preprocess.manifest import read_manifest, write_manifest
from preprocess.verify import verify
from sunpipe.shards.stored import pixel_digest
from tests.conftest import Cli
from tests.integration.tampering import (
    NAMES,
    Values,
    all_of,
    drop,
    edit,
    edit_info,
    native_root,
    only,
    rows_of,
    seal,
    words,
)


@pytest.fixture(scope="module")
def sealed(tiny_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with a dataset of native pixels. Do not write to it."""
    return native_root(tiny_root, tmp_path_factory.mktemp("verify") / "root")


@pytest.fixture
def dataset(sealed: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "native"
    shutil.copytree(sealed / "shards/native", folder)
    return folder


def test_the_dataset_is_good(dataset: Path, sealed: Path) -> None:
    assert verify(dataset, sealed / "archive") == []
    seal(dataset)
    assert verify(dataset, sealed / "archive") == []


# --- pixels


def swap(images: np.ndarray) -> np.ndarray:
    return images[[1, 0, *range(2, len(images))]]


def zero_inside(images: np.ndarray) -> np.ndarray:
    return images * 0


PIXELS = {
    "swapped": swap,
    "sign": lambda images: -images,
    "channels": lambda images: images[:, [2, 0, 1]],
    "upside down": lambda images: images[:, :, ::-1],
    "zero": zero_inside,
}


def change_pixels(folder: Path, kind: str, rows_too: bool) -> None:
    path = folder / "shard-00000.h5"
    with h5py.File(path, "r+") as file:
        images = np.ascontiguousarray(PIXELS[kind](file["images"][:]))
        masks = file["mask"][:]
        file["images"][...] = images
        file["mask"][...] = masks
    if rows_too:
        again = [pixel_digest(*pair) for pair in zip(images, masks, strict=True)]
        edit(folder, "records", pixels=lambda old: [*again, *old[len(again) :]])
    seal(folder)


@pytest.mark.parametrize("kind", PIXELS)
def test_pixels_belong_to_their_rows(dataset: Path, kind: str) -> None:
    change_pixels(dataset, kind, rows_too=False)
    found = words(dataset)
    row = rows_of(dataset)[0]
    assert (
        f"shard-00000.h5 image 0, records.parquet row 0 ({row['record']}): its pixels are not those"
        " that its row was written for"
    ) in found


@pytest.mark.parametrize("kind", ["swapped", "channels", "zero"])
def test_pixels_have_the_flux_of_their_rows(dataset: Path, kind: str) -> None:
    change_pixels(dataset, kind, rows_too=True)
    assert "image 0, records.parquet row 0" in words(dataset)
    assert "its pixels allow" in words(dataset)


@pytest.mark.parametrize("kind", ["sign", "upside down"])
def test_pixels_are_those_of_the_archive(dataset: Path, sealed: Path, kind: str) -> None:
    change_pixels(dataset, kind, rows_too=True)
    assert verify(dataset) == []  # nothing but the files can tell
    assert "its pixels are not what the files give" in words(dataset, sealed / "archive")


# --- the archive


def test_a_dropped_record(dataset: Path, sealed: Path) -> None:
    """All that tells of the record is gone; only the archive still has it."""
    rows = rows_of(dataset)
    last = rows[-1]["record"]
    shards = {row["shard"] for row in rows if row["record"] == last}
    # take it from the end of the last shard, so that no place is left empty
    keep = {s: sum(row["shard"] == s and row["record"] != last for row in rows) for s in shards}
    info = json.loads((dataset / "dataset.json").read_text())
    for number, count in keep.items():
        path = dataset / f"shard-{number:05d}.h5"
        if not count:
            path.unlink()
            del info["shards"][path.name]
            continue
        with h5py.File(path) as file:
            pairs = list(zip(file["images"][:count], file["mask"][:count], strict=True))
            names = ("channels", "units", "scale", "max_error", "max_relative_error")
            attributes = {key: file.attrs[key] for key in names}
        write_shard(path, pairs, count, 128, "int16", attributes)
    edit_info(dataset, shards=info["shards"])
    for table in NAMES:
        assert drop(dataset, table, lambda row: row["record"] == last)
    assert verify(dataset) == []
    assert verify(dataset, sealed / "archive") == [
        f"inputs.parquet: {last} is in the archive only"
    ]  # fmt: skip


def test_digests_of_other_files(dataset: Path, sealed: Path) -> None:
    edit(dataset, "inputs", digest=all_of(lambda v: "0" * 64))
    assert "is made of other files than the archive holds" in words(dataset, sealed / "archive")
    assert "4 in all" in words(dataset, sealed / "archive")


def test_a_record_that_the_archive_lacks(dataset: Path, sealed: Path, tmp_path: Path) -> None:
    shutil.copytree(sealed / "archive", tmp_path / "archive")
    manifest = read_manifest(tmp_path / "archive")
    for journal in (tmp_path / "archive").glob("*.jsonl"):
        journal.unlink()
    kept = {key: entry for key, entry in manifest.items() if "[377]" not in key[0]}
    write_manifest(tmp_path / "archive", kept)
    assert "is not in the archive any more" in words(dataset, tmp_path / "archive")


AGAINST: dict[str, tuple[str, dict[str, Callable[[Values], Values]], str]] = {
    "keyword": ("records", {"MEANGAM": all_of(lambda v: v + 1)}, "MEANGAM are not what the files"),
    "crpix": ("records", {"crpix1": all_of(lambda v: v + 100)}, "crpix1 are not what the files"),
    "reason": (
        "quarantine", {"reason": only(2, lambda v: "overflow")},
        "its reason is 'overflow', the files give 'low_flux'"),
}  # fmt: skip


@pytest.mark.parametrize("kind", AGAINST)
def test_what_only_the_files_tell(dataset: Path, sealed: Path, kind: str) -> None:
    table, changes, text = AGAINST[kind]
    edit(dataset, table, **changes)
    assert verify(dataset) == []
    assert text in words(dataset, sealed / "archive")


def test_a_last_column_of_tiles_that_is_gone(dataset: Path, sealed: Path) -> None:
    """Without it the grid looks like that of a smaller patch."""
    places: dict[str, int] = {}
    for row in [*rows_of(dataset), *rows_of(dataset, "quarantine")]:
        places[row["record"]] = max(places.get(row["record"], 0), row["tile_x"])
    used = {row["record"] for row in rows_of(dataset) if row["tile_x"] == places[row["record"]]}
    record = next(iter(sorted(set(places) - used)))
    gone = drop(dataset, "quarantine", lambda line: (line["record"], line["tile_x"])
                == (record, places[record]))  # fmt: skip
    assert gone
    assert "is in neither rows nor quarantine" in words(dataset, sealed / "archive")


def test_the_command_against_the_archive(tiny_copy: Path, cli: Cli) -> None:
    good = cli("verify", "tiny", "--against-archive", "--samples", "1", "--json")
    assert (good.returncode, json.loads(good.stdout)["ok"]) == (0, True)
    edit(tiny_copy / "shards/tiny", "inputs", digest=all_of(lambda v: "0" * 64))
    bad = cli("verify", "tiny", "--against-archive", "--json")
    assert bad.returncode == 1
    assert "is made of other files" in json.loads(bad.stdout)["problems"][0]
