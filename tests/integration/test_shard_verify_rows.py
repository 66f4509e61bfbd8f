"""``sunpipe verify``: a dataset that was tampered with and sealed again is seen through."""

from __future__ import annotations

import ast
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from preprocess.dataset.check_quarantine import REASONS
from preprocess.dataset.hdf5 import write_shard
from preprocess.manifest import read_manifest, write_manifest
from preprocess.shard import shard
from preprocess.verify import verify
from sunpipe.config import validate
from sunpipe.files import sha256
from sunpipe.shards.schema import TABLES
from sunpipe.shards.stored import pixel_digest
from tests.conftest import REPO, Cli

Values = list[Any]
NAMES = {"records": 0, "quarantine": 1, "inputs": 2}


@pytest.fixture(scope="module")
def sealed(tiny_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with a dataset of native pixels. Do not write to it."""
    folder = tmp_path_factory.mktemp("verify") / "root"
    shutil.copytree(tiny_root / "archive", folder / "archive")
    settings = {"stride": 64, "reduce": 1, "min_flux_mx": 5e20, "test_harps": [6060],
                "images_per_shard": 24}  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SUNPIPE_ROOT", str(folder))
        shard(validate({"name": "native", "dataset": "native", "shard": settings}))
    return folder


@pytest.fixture
def dataset(sealed: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "native"
    shutil.copytree(sealed / "shards/native", folder)
    return folder


def edit_info(folder: Path, **changes: Any) -> None:
    path = folder / "dataset.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def seal(folder: Path) -> None:
    """Digests and counts as if nothing had happened."""
    info = json.loads((folder / "dataset.json").read_text())
    rows, lines = (pq.read_table(folder / name) for name in TABLES[:2])
    splits = rows["split"].to_pylist()
    edit_info(
        folder,
        shards={name: sha256(folder / name) for name in info["shards"]},
        files={name: sha256(folder / name) for name in TABLES},
        counts={"records_in": rows.num_rows + lines.num_rows, "rows": rows.num_rows,
                "quarantined": lines.num_rows,
                **{split: splits.count(split) for split in ("train", "test")}},
    )  # fmt: skip


def edit(folder: Path, table: str, **columns: Callable[[Values], Values]) -> None:
    path = folder / TABLES[NAMES[table]]
    found = pq.read_table(path)
    for name, change in columns.items():
        field = found.schema.field(name)
        values = pa.array(change(found[name].to_pylist()), field.type)
        found = found.set_column(found.schema.get_field_index(name), field, values)
    pq.write_table(found, path)
    seal(folder)


def drop(folder: Path, table: str, wrong: Callable[[dict[str, Any]], bool]) -> int:
    path = folder / TABLES[NAMES[table]]
    found = pq.read_table(path)
    kept = [row for row in found.to_pylist() if not wrong(row)]
    pq.write_table(pa.Table.from_pylist(kept, schema=found.schema), path)
    seal(folder)
    return found.num_rows - len(kept)


def rows_of(folder: Path, table: str = "records") -> list[dict[str, Any]]:
    return pq.read_table(folder / TABLES[NAMES[table]]).to_pylist()


def only(place: int, change: Callable[[Any], Any]) -> Callable[[Values], Values]:
    return lambda values: [change(v) if n == place else v for n, v in enumerate(values)]


def all_of(change: Callable[[Any], Any]) -> Callable[[Values], Values]:
    return lambda values: [change(value) for value in values]


def words(folder: Path, archive: Path | None = None) -> str:
    return "\n".join(verify(folder, archive))


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


# --- rows

ROWS: dict[str, tuple[dict[str, Callable[[Values], Values]], str]] = {
    "flux": ({"flux_mx": only(3, lambda v: 10 * v)}, "its pixels allow"),
    "flux of the patch": ({"flux_mx": only(3, lambda v: v * 1.0001)}, "Mx for the patch"),
    "flux and share": (
        {"flux_mx": all_of(lambda v: v / 10), "flux_share": all_of(lambda v: v / 10)},
        "its pixels allow",
    ),
    "share of nothing": ({"flux_share": only(0, lambda v: 0.0)}, "only one is 0"),
    "USFLUX": ({"USFLUX": all_of(lambda v: 10 * v)}, "flux_mx and flux_share allow"),
    "keyword": ({"USFLUX": only(4, lambda v: v * 1.001)}, "USFLUX is not that of the record's"),
    "crpix": ({"crpix1": only(4, lambda v: v + 100)}, "crpix1 and tile_x do not fit"),
    "crval": ({"crval1": all_of(lambda v: v + 30)}, "mu is"),
    "cdelt": ({"cdelt1": all_of(lambda v: 2 * v)}, "its coordinates give"),
    "no coordinates": ({"crpix2": only(0, lambda v: float("inf"))}, "no world coordinates"),
    "projection": ({"ctype1": all_of(lambda v: "RA---TAN")}, "a sharp_vector has 'CRLN-CEA'"),
    "unit": ({"cunit2": only(1, lambda v: "rad")}, "cunit2 is 'rad'"),
    "mu": ({"mu": all_of(lambda v: 0.3)}, "mu is 0.300000"),
    "no mu": ({"mu": all_of(lambda v: None)}, "mu is nan"),
    "simulated": ({"simulated": all_of(lambda v: not v)}, "simulated is True"),
    "no quality": ({"quality": only(5, lambda v: None)}, "row 5 ("),
    "quality": ({"quality": all_of(lambda v: -(2**31))}, "NODATA"),
    "tile": ({"tile_y": only(6, lambda v: v + 3)}, "is not on the grid of the patch"),
    "far tile": ({"tile_x": only(6, lambda v: 10**12)}, "is in no patch"),
    "infinite": ({"RSUN_OBS": all_of(lambda v: float("inf"))}, "must be finite"),
    "place": ({"position": only(0, lambda v: 1)}, "two rows stand at one place"),
    "range": ({"nan_share": only(0, lambda v: 2.0)}, "outside of 0 .. 1"),
    "HARP": ({"harpnum": only(0, lambda v: 378)}, "is not its record"),
    "series": ({"record": all_of(lambda v: v.replace("cea_720s", "720s"))}, "is no record of"),
    "no series": (
        {"record": only(0, lambda v: v.replace("720s", "720s_nrt"))}, "mixes the series"),
    "no record": ({"record": only(0, lambda v: "x")}, "'x' is not a record"),
    "split": ({"split": all_of(lambda v: "train")}, "its settings say test"),
    "time": ({"t_rec": only(0, lambda v: "2011.02.15_03:00:00_TAI")}, "is not its record"),
}  # fmt: skip


@pytest.mark.parametrize("kind", ROWS)
def test_rows_that_cannot_be(dataset: Path, kind: str) -> None:
    changes, text = ROWS[kind]
    edit(dataset, "records", **changes)
    problems = verify(dataset)
    assert any(text in line and "records.parquet" in line for line in problems), problems
    assert all("\n" not in line for line in problems)
    assert len(problems) < 40


def test_a_fault_of_many_rows_is_a_few_lines(dataset: Path) -> None:
    edit(dataset, "records", ctype1=all_of(lambda v: "RA---TAN"))
    count = len(rows_of(dataset))
    found = [line for line in verify(dataset) if "with this fault" in line or "ctype1" in line]
    assert len(found) == 4
    assert f"the last of {count} with this fault" in found[-1]


# --- quarantine and inputs

LINES: dict[str, tuple[str, dict[str, Callable[[Values], Values]], str]] = {
    "reason": ("quarantine", {"reason": only(0, lambda v: "banana")}, "'banana' is no reason"),
    "no detail": ("quarantine", {"detail": only(1, lambda v: "")}, "line 1 ("),
    "no reason": ("quarantine", {"reason": only(1, lambda v: None)}, "reason is null"),
    "half a place": ("quarantine", {"tile_y": only(0, lambda v: None)}, "has half a place"),
    "no place": (
        "quarantine",
        {"tile_y": only(0, lambda v: None), "tile_x": only(0, lambda v: None)},
        "a tile's reason, but no place",
    ),
    "HARP": ("quarantine", {"harpnum": all_of(lambda v: v + 1)}, "are not its record's"),
    "one HARP": ("quarantine", {"harpnum": only(9, lambda v: v + 1)}, "line 9 ("),
    "digest": ("inputs", {"digest": only(0, lambda v: "")}, "has no digest"),
    "twice": ("inputs", {"record": lambda values: [values[1], *values[1:]]}, "stands twice"),
    "other": ("inputs", {"record": only(0, lambda v: "x")}, "neither rows nor quarantine"),
}


@pytest.mark.parametrize("kind", LINES)
def test_lines_that_cannot_be(dataset: Path, kind: str) -> None:
    table, changes, text = LINES[kind]
    edit(dataset, table, **changes)
    problems = verify(dataset)
    assert any(text in line for line in problems), problems


def test_a_dropped_line_of_the_quarantine(dataset: Path) -> None:
    lines = rows_of(dataset, "quarantine")
    victim = next(line for line in lines if line["tile_y"] == 0 and line["tile_x"] == 64)
    assert drop(dataset, "quarantine", lambda line: line == victim) == 1
    assert f"({victim['record']}): has" in words(dataset)
    assert "tiles in rows and quarantine, its grid has" in words(dataset)


def test_a_tile_that_is_row_and_line(dataset: Path) -> None:
    row = rows_of(dataset)[0]
    of_record = [line["record"] == row["record"] for line in rows_of(dataset, "quarantine")]
    place = of_record.index(True)
    edit(dataset, "quarantine", tile_y=only(place, lambda v: row["tile_y"]),
         tile_x=only(place, lambda v: row["tile_x"]))  # fmt: skip
    assert "stands twice" in words(dataset)


def test_every_reason_is_known() -> None:
    """The words of the quarantine are those that are raised somewhere."""
    raised, texts = set(), set()
    for package in ("preprocess", "sunpipe"):
        for path in (REPO / package).rglob("*.py"):
            if path.name == "check_quarantine.py":
                continue
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    texts.add(node.value)
                if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "FitsError":
                    first = node.args[0]
                    both = [first.body, first.orelse] if isinstance(first, ast.IfExp) else [first]
                    raised |= {one.value for one in both if isinstance(one, ast.Constant)}
    assert raised <= REASONS
    assert texts >= REASONS


# --- the configuration


def test_settings_are_those_of_the_configuration(dataset: Path) -> None:
    info = json.loads((dataset / "dataset.json").read_text())
    edit_info(dataset, settings={**info["settings"], "test_harps": []})
    edit(dataset, "records", split=all_of(lambda v: "train"))
    assert verify(dataset) == [
        "config.json: shard.test_harps is [6060], dataset.json says []"
    ]  # fmt: skip


def test_the_configuration_is_there_and_of_this_dataset(dataset: Path) -> None:
    path = dataset / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "dataset": "other"}))
    assert "dataset is 'other'" in words(dataset)
    for text in ("[]", '{"dataset": "native", "shard": 3}', "{"):
        path.write_text(text)
        assert "config.json: cannot be read" in words(dataset)
    path.unlink()
    assert "config.json: missing" in words(dataset)


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
