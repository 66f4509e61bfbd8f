"""``sunpipe shard``: the same bytes at any number of ranks, and nothing lost on the way."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow.parquet as pq
import pytest
from astropy.io import fits

from preprocess.fetch import fetch as fetch_stage
from preprocess.manifest import read_manifest, write_manifest
from preprocess.shard import shard as shard_stage
from sunpipe.config import load_config, validate
from sunpipe.errors import DataError
from sunpipe.files import sha256
from sunpipe.fits import COMPONENTS, read_vector
from sunpipe.shards.cut import cut_vector
from sunpipe.shards.reader import ShardReader
from sunpipe.shards.schema import QUARANTINE_COLUMNS, RECORD_COLUMNS, read_info
from tests.conftest import REPO, Cli, need

TINY = REPO / "configs/tiny.toml"
RECORD = "hmi.sharp_cea_720s[377][2011.02.15_02:00:00_TAI]"
pytestmark = pytest.mark.usefixtures("root")


@pytest.fixture
def archive(tiny_root: Path, root: Path) -> Path:
    """The sample archive, without any dataset."""
    shutil.copytree(tiny_root / "archive", root / "archive")
    return root / "archive"


def shard(dataset: str = "test", **changes: object) -> dict[str, Any]:
    """`sunpipe shard` in this process, coarse and quick."""
    values = {"stride": 64, "reduce": 4, "min_flux_mx": 5e20, "test_harps": [6060],
              "images_per_shard": 8, **changes}  # fmt: skip
    result = shard_stage(validate({"name": "test", "dataset": dataset, "shard": values}))
    assert result is not None
    return result


def segment_file(archive: Path, segment: str, record: str = RECORD) -> Path:
    return archive / read_manifest(archive)[record, segment].path


def digests(folder: Path) -> dict[str, str]:
    """Of everything in a dataset except the record of who made it, when."""
    return {path.name: sha256(path) for path in sorted(folder.iterdir())
            if path.name != "provenance.json"}  # fmt: skip


def quarantine(root: Path, dataset: str = "test") -> list[dict[str, Any]]:
    return pq.read_table(root / f"shards/{dataset}/quarantine.parquet").to_pylist()


# --- what a dataset is


def test_the_dataset_is_what_its_description_says(tiny_root: Path) -> None:
    folder = tiny_root / "shards/tiny"
    info = read_info(folder)
    records = pq.read_table(folder / "records.parquet")
    lines = pq.read_table(folder / "quarantine.parquet")
    assert records.column_names[: len(RECORD_COLUMNS)] == list(RECORD_COLUMNS)
    assert lines.column_names == list(QUARANTINE_COLUMNS)
    assert info.counts["records_in"] == records.num_rows + lines.num_rows
    assert 40 <= records.num_rows <= 150
    splits = Counter(zip(records["harpnum"].to_pylist(), records["split"].to_pylist(),
                         strict=True))  # fmt: skip
    assert set(splits) == {(377, "train"), (7115, "train"), (6060, "test")}
    assert info.channels == ["Br", "Bt", "Bp"]
    assert info.resolution == 32
    assert {name: sha256(folder / name) for name in {**info.shards, **info.files}} == {
        **info.shards, **info.files}  # fmt: skip


def test_the_demo_has_enough_tiles_of_active_regions(archive: Path, root: Path) -> None:
    config = load_config(REPO / "configs/demo.toml")
    result = shard_stage(config)
    assert result is not None
    assert 500 <= result["train"] <= 1200
    assert result["test"] > 20
    flux = pq.read_table(root / "shards" / config.dataset / "records.parquet")["flux_mx"]
    assert min(flux.to_pylist()) >= config.shard.min_flux_mx


def test_images_are_the_fits_pixels_to_the_stated_error(tiny_root: Path) -> None:
    folder = tiny_root / "shards/tiny"
    reader = ShardReader(folder)
    info = reader.info
    rows = [row for row in reader.records.to_pylist() if row["record"] == RECORD]
    paths = [segment_file(tiny_root / "archive", component) for component in COMPONENTS]
    found = read_vector(*paths)
    images, masks, offsets = cut_vector(found.fields, info.tile, info.stride, info.reduce)
    place = {tuple(offset): n for n, offset in enumerate(offsets.tolist())}
    assert len(rows) > 10
    for row in rows:
        n = place[row["tile_y"], row["tile_x"]]
        assert np.abs(reader.images([row["row"]])[0] - images[n]).max() <= info.max_error * 1.001
        assert np.array_equal(reader.masks([row["row"]])[0], masks[n])
        assert row["pixel_cm"] == pytest.approx(4 * found.pixel_cm)


def test_float32_holds_the_mean_exactly(archive: Path, root: Path) -> None:
    shard("float", dtype="float32")
    reader = ShardReader(root / "shards/float")
    row = reader.records.to_pylist()[0]
    found = read_vector(*(segment_file(archive, component) for component in COMPONENTS))
    y, x = row["tile_y"], row["tile_x"]
    tile = found.fields[:, y : y + 128, x : x + 128].reshape(3, 32, 4, 32, 4).mean(axis=(2, 4))
    assert np.abs(reader.images([0])[0] - tile).max() < 1e-3
    assert reader.info.scale == 1.0


def test_shards_say_what_they_hold(tiny_root: Path) -> None:
    with h5py.File(tiny_root / "shards/tiny/shard-00000.h5") as file:
        assert list(file.attrs["channels"]) == ["Br", "Bt", "Bp"]
        assert list(file.attrs["units"]) == ["Gauss"] * 3
        assert file.attrs["filter"] == "bitshuffle+lz4"
        assert file["images"].fletcher32
        assert file["images"].chunks == (1, 3, 32, 32)
        assert file["images"].dtype == np.int16


def test_a_whole_patch_on_a_canvas(archive: Path, root: Path) -> None:
    result = shard("canvas", tile=512, stride=0, min_flux_mx=0)  # padding is no loss
    assert (result["records_in"], result["rows"]) == (4, 4)
    reader = ShardReader(root / "shards/canvas")
    row = next(row for row in reader.records.to_pylist() if row["harpnum"] == 377)
    assert (row["tile_y"], row["tile_x"]) == ((377 - 512) // 2, (744 - 512) // 2)
    assert 1 - row["nan_share"] == pytest.approx(377 / 512, abs=0.01)


# --- ranks


@pytest.mark.mpi
def test_any_number_of_ranks_writes_the_same_bytes(archive: Path, root: Path) -> None:
    mpiexec = need("mpiexec")
    folder = root / "shards/tiny"
    seen = []
    for ranks in (1, 2, 3):
        shutil.rmtree(root / "shards", ignore_errors=True)
        command = [mpiexec, "-n", str(ranks), sys.executable, "-m", "sunpipe", "shard",
                   "--config", str(TINY), "--json"]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, cwd=REPO, check=False,
                              env={**os.environ, "SUNPIPE_ROOT": str(root)})  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["shards"] == 12
        seen.append(digests(folder))
    shutil.rmtree(root / "shards")
    shard_stage(load_config(TINY))
    assert seen[0] == seen[1] == seen[2] == digests(folder)


@pytest.mark.mpi
def test_an_error_on_one_rank_ends_all_with_one_line(archive: Path, root: Path) -> None:
    mpiexec = need("mpiexec")
    shutil.rmtree(archive)
    command = [mpiexec, "-n", "3", sys.executable, "-m", "sunpipe", "shard", "-c", str(TINY)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPO, check=False,
                          timeout=120, env={**os.environ, "SUNPIPE_ROOT": str(root)})  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.count("run sunpipe fetch first") == 1
    assert "Traceback" not in done.stderr


# --- doing it again


def test_a_second_run_is_up_to_date_and_changes_make_it_anew(
    archive: Path, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = shard()
    before = digests(root / "shards/test")
    assert shard() == {**first, "up_to_date": True, "seconds": pytest.approx(0, abs=60)}
    assert "up to date" in capsys.readouterr().err
    assert shard(min_flux_mx=2e21)["rows"] < first["rows"]
    assert "min_flux_mx" in capsys.readouterr().err
    shard()
    assert digests(root / "shards/test") == before
    segment_file(archive, "Bt").unlink()
    assert shard()["by_reason"]["missing_file"] == 1
    assert f"1 records changed, for example {RECORD}" in capsys.readouterr().err


def test_a_damaged_dataset_is_made_anew(archive: Path, root: Path) -> None:
    shard()
    before = digests(root / "shards/test")
    victim = root / "shards/test/shard-00001.h5"
    raw = bytearray(victim.read_bytes())
    raw[-200] ^= 1
    victim.write_bytes(raw)
    assert not shard()["up_to_date"]
    assert digests(root / "shards/test") == before


def test_an_edited_file_is_seen_without_a_new_fetch(archive: Path) -> None:
    shard()
    path = segment_file(archive, "Bp")
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)
    assert shard()["by_reason"]["checksum"] == 1
    assert shard()["up_to_date"]


def test_a_killed_run_publishes_nothing_and_its_shards_are_kept(
    archive: Path, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [sys.executable, "-m", "sunpipe", "shard", "-c", str(TINY), "-s",
               "shard.stride=24", "-s", "shard.images_per_shard=4"]  # fmt: skip
    building = root / "shards/.building-tiny"
    env = {**os.environ, "SUNPIPE_ROOT": str(root)}
    with subprocess.Popen(command, cwd=REPO, env=env, stderr=subprocess.DEVNULL) as running:
        deadline = time.monotonic() + 100
        while len(list((root / "shards/.notes-tiny").glob("shard-*.json"))) < 3:
            assert running.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.002)
        running.send_signal(signal.SIGKILL)
    assert not (root / "shards/tiny").exists()
    finished = sorted(building.glob("shard-*.h5"))
    finished[0].write_bytes(finished[0].read_bytes()[:-1])  # must not be trusted
    overrides = ["shard.stride=24", "shard.images_per_shard=4"]
    result = shard_stage(load_config(TINY, overrides))
    kept = [line for line in capsys.readouterr().err.splitlines() if "earlier run" in line]
    assert len(kept) == 1
    assert int(kept[0].split()[0]) >= 2
    assert result is not None
    assert not building.exists()
    whole = digests(root / "shards/tiny")
    shutil.rmtree(root / "shards/tiny")
    shard_stage(load_config(TINY, overrides))
    assert digests(root / "shards/tiny") == whole


def test_ctrl_c_leaves_nothing_half_written(archive: Path, root: Path) -> None:
    command = [sys.executable, "-m", "sunpipe", "shard", "-c", str(TINY), "-s",
               "shard.stride=16", "-s", "shard.images_per_shard=4"]  # fmt: skip
    env = {**os.environ, "SUNPIPE_ROOT": str(root)}
    with subprocess.Popen(command, cwd=REPO, env=env, stderr=subprocess.PIPE, text=True) as running:
        deadline = time.monotonic() + 100
        while not list((root / "shards/.building-tiny").glob("shard-*.h5")):
            assert time.monotonic() < deadline
            time.sleep(0.005)
        running.send_signal(signal.SIGINT)
        _, errors = running.communicate(timeout=60)
    assert running.returncode == 75
    assert "run the same command again" in errors
    assert list(root.rglob(".tmp-*")) == []
    assert not (root / "shards/tiny").exists()


def test_a_full_disk_is_one_line_and_nothing_looks_complete(archive: Path, root: Path) -> None:
    def small_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))

    command = [sys.executable, "-m", "sunpipe", "shard", "-c", str(TINY)]
    env = {**os.environ, "SUNPIPE_ROOT": str(root)}
    done = subprocess.run(
        command, cwd=REPO, env=env, capture_output=True, text=True, check=False,
        preexec_fn=small_files,
    )  # fmt: skip
    assert done.returncode == 1
    assert "File too large" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (root / "shards/tiny").exists()
    assert list(root.rglob("dataset.json")) == []
    assert list(root.rglob(".tmp-*")) == []
    assert shard_stage(load_config(TINY)) is not None


def test_a_rebuild_that_fails_leaves_the_old_dataset(archive: Path, root: Path) -> None:
    shard()
    before = digests(root / "shards/test")
    with pytest.raises(DataError, match="none of"):
        shard(min_flux_mx=1e30)
    assert digests(root / "shards/test") == before


# --- what cannot be used


def test_files_that_were_not_fetched_are_counted(archive: Path) -> None:
    (archive / "manifest.parquet").unlink()
    count = len(list(archive.rglob("*.fits")))
    with pytest.raises(DataError, match=rf"holds {count} FITS files, .* no manifest.parquet"):
        shard()
    foreign = fits.PrimaryHDU(np.ones((9, 9), np.float32))
    foreign.header["TELESCOP"], foreign.header["INSTRUME"] = "SOHO", "MDI"
    foreign.writeto(archive / "a.fits")  # the first by name
    with pytest.raises(DataError, match=r"besides, .*a\.fits was taken by SOHO MDI"):
        shard()


def test_an_empty_archive_names_the_remedy(cli: Cli) -> None:
    done = cli("shard", "--config", TINY)
    assert done.returncode == 1
    assert "run sunpipe fetch first" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 2  # the configuration, and this line


def _replace(archive: Path, segment: str, raw: bytes) -> None:
    """Put `raw` where a segment is, as if it had been fetched so."""
    manifest = read_manifest(archive)
    old = manifest[RECORD, segment]
    (archive / old.path).write_bytes(raw)
    changed = replace(old, sha256=sha256(archive / old.path), bytes=len(raw))
    write_manifest(archive, {**manifest, old.key: changed})


def _image(data: np.ndarray, **cards: object) -> bytes:
    import io

    header = fits.Header()
    header["TELESCOP"], header["INSTRUME"], header["BUNIT"] = "SDO/HMI", "HMI_SIDE1", "Gauss"
    header["HARPNUM"], header["T_REC"] = 377, "2011.02.15_02:00:00_TAI"
    header.update(cards)
    out = io.BytesIO()
    fits.PrimaryHDU(data, header).writeto(out, checksum=True)
    return out.getvalue()


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "not_fits"),
        (b"<html>maintenance</html>" * 300, "not_fits"),
        (_image(np.zeros((0, 0), np.float32)), "no_image"),
        (_image(np.zeros((3, 4), np.float32), TELESCOP="SOHO", INSTRUME="MDI"), "wrong_instrument"),
        (_image(np.zeros((3, 4), np.float32), BUNIT="DN/s"), "unknown_unit"),
        (_image(np.zeros((3, 4), np.float32)), "different_shapes"),
        (_image(np.zeros((377, 744), np.float32), HARPNUM=378), "different_records"),
        (_image(np.full((377, 744), np.nan, np.float32)), "all_nan"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_read_is_written_down(
    archive: Path, root: Path, raw: bytes, reason: str
) -> None:
    _replace(archive, "Bt", raw)
    result = shard()
    assert result["records_in"] == result["rows"] + result["quarantined"]
    (line,) = [line for line in quarantine(root) if line["record"] == RECORD]
    assert (line["reason"], line["tile_y"], line["harpnum"]) == (reason, None, 377)
    assert line["detail"]


def test_a_file_that_is_not_what_was_fetched_is_quarantined(archive: Path, root: Path) -> None:
    path = segment_file(archive, "Bt")
    path.write_bytes(segment_file(archive, "Br").read_bytes())
    shard()
    (line,) = [line for line in quarantine(root) if line["record"] == RECORD]
    assert line["reason"] == "changed"


def test_a_field_too_strong_for_int16_is_quarantined_not_clipped(archive: Path, root: Path) -> None:
    br = read_vector(*(segment_file(archive, component) for component in COMPONENTS))
    field = br.fields[0].astype(np.float32)
    field[200:240, 300:340] = 7000.0
    cards = {key: br.header[key] for key in (
        "CTYPE1", "CTYPE2", "CRPIX1", "CRPIX2", "CRVAL1", "CRVAL2", "CDELT1", "CDELT2", "RSUN_REF",
        "RSUN_OBS", "DSUN_OBS", "QUALITY")}  # fmt: skip
    _replace(archive, "Br", _image(field, **cards))
    result = shard()
    assert result["by_reason"]["overflow"] > 0
    assert "7000.0 does not fit" in next(line["detail"] for line in quarantine(root)
                              if line["reason"] == "overflow")  # fmt: skip


def test_stray_files_are_named_not_used(archive: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (archive / "mine.fits").write_bytes(b"")
    shard()
    assert "1 FITS files" in capsys.readouterr().err


def test_a_read_only_root_is_one_line(archive: Path, root: Path, cli: Cli) -> None:
    (root / "shards").write_text("in the way")
    done = cli("shard", "--config", TINY)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr


def test_dry_run_says_why_and_writes_nothing(archive: Path, root: Path, cli: Cli) -> None:
    done = cli("shard", "--config", TINY, "--dry-run", "--json")
    assert json.loads(done.stdout)["because"] == "there is no complete dataset yet"
    assert not (root / "shards").exists()


def test_fetching_again_mends_a_quarantined_record(archive: Path, root: Path) -> None:
    whole = shard()
    path = segment_file(archive, "Bp")
    path.write_bytes(path.read_bytes()[:5000])
    assert shard()["by_reason"]["truncated"] == 1
    fetch_stage(validate({"name": "test"}))
    assert shard()["rows"] == whole["rows"]
