"""What an experiment takes on the disk: by formula, less what is there, and never said too soon."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hpc.plan.storage import Stored, archive, experiment, storage
from hpc.plan.subject import Subject, most_images, subject
from hpc.plan.verdict import disk_verdict
from preprocess.acquire.journal import open_journal
from preprocess.archive import relative_path
from preprocess.manifest import Entry, merge
from sunpipe.config import load_config
from sunpipe.errors import DataError
from sunpipe.train.plan import encoder_bytes
from tests.conftest import REPO
from tests.unit.test_plan_fit import config


def test_storage_is_summed_by_formula() -> None:
    cfg = config("train.kimg=100", "train.checkpoint_kimg=10", "train.keep_checkpoints=3",
                 "train.image_kimg=50", "sample.count=1000")  # fmt: skip
    images = Subject(32, 3, 2, 500, 400, 12345, "test")
    found = {one.what: one.bytes for one in storage(cfg, images, 10**6, 10**5)}
    assert found["shards"] == 12345
    assert found["checkpoints"] == 4 * 10**6
    assert found["image grids"] == 4 * 24 * 32 * 32 * 3
    assert found["samples"] == 1000 * (4 * (16 + 16) + 8 * 24)
    assert found["embeddings"] == 500 * (4 * cfg.ssl.dim + 64)
    assert found["search"] == cfg.search.queries * 3 * 32 * 32 * 4
    # configs/archive_hour.toml has two walks for each of 5 quantities, 10 components, a control;
    # its file, with 22 quantities measured and pictures compressed, took 6.60 MB
    demo = load_config(REPO / "configs/archive_hour.toml")
    walked = {one.what: one.bytes for one in storage(demo, images, 10**6, None)}["directions"]
    assert walked == pytest.approx(6_596_331, rel=0.05)
    kept = 1 + min(cfg.ssl.keep_checkpoints, round(cfg.ssl.kimg / cfg.ssl.checkpoint_kimg))
    assert found["encoder"] == kept * 10**5
    unknown = storage(cfg, dataclasses.replace(images, images=None, stored_bytes=None), 10**6, None)
    assert {one.what for one in unknown if one.bytes is None} == {
        "shards", "encoder", "embeddings", "index"}  # fmt: skip


def test_what_is_on_the_disk_is_not_counted_again(root: Path) -> None:
    cfg = config("sample.count=1000")
    folder = root / "latents/tiny"
    folder.mkdir(parents=True)
    (folder / "samples.h5").write_bytes(b"x" * 5000)
    (folder / "traverse.h5").write_bytes(b"x" * 7000)
    (root / "archive").mkdir()
    pq.write_table(pa.table({"bytes": pa.array([3, None, 4], pa.int64()),
                             "state": ["fetched", "missing", "fetched"]}),
                   root / "archive/manifest.parquet")  # fmt: skip
    rows = {one.what: one for one in experiment(cfg, subject(cfg), None)}
    assert (rows["archive"].bytes, rows["archive"].more) == (7, 0)
    assert rows["samples"].more == (rows["samples"].bytes or 0) - 5000 > 0
    assert rows["directions"].there == 7000
    assert rows["encoder"].bytes
    (root / "archive/manifest.parquet").write_bytes(b"no parquet")
    with pytest.raises(DataError, match=r"manifest\.parquet cannot be read"):
        archive(root / "archive")


def test_images_to_be_made_are_bounded_by_the_records_that_are_there(root: Path) -> None:
    shard = config("shard.stride=0").shard
    assert most_images(shard, root / "archive") is None
    merge(root / "archive", entries(range(4)))
    assert most_images(shard, root / "archive") == 4
    assert most_images(config("shard.stride=8").shard, root / "archive") is None  # how many tiles
    cfg = config("shard.stride=0")
    rows = {one.what: one for one in experiment(cfg, subject(cfg), None)}
    assert rows["shards"].bytes == 4 * 3 * 32 * 32 * 2
    assert rows["embeddings"].bytes == 4 * (4 * cfg.ssl.dim + 64)
    assert {what for what, one in rows.items() if one.at_most} == {"shards", "embeddings", "index"}


def entries(hours: Iterable[int], state: str = "fetched", final: bool = False) -> list[Entry]:
    """Three segments of a record an hour."""
    names = [f"hmi.sharp_cea_720s[377][2011.02.15_0{hour}:00:00_TAI]" for hour in hours]
    size, digest = (9, "0" * 64) if state == "fetched" else (0, "")
    return [Entry(name, part, relative_path(name, part), digest, size, state, "", "x", "2026",
                  final) for name in names for part in ("Br", "Bt", "Bp")]  # fmt: skip


@pytest.mark.parametrize("state", ["wanted", "staged", "failed"])
def test_an_archive_that_is_still_fetched_bounds_nothing(root: Path, state: str) -> None:
    cfg, folder = config("shard.stride=0"), root / "archive"
    merge(folder, entries(range(2)) + entries(range(2, 9), state))
    kept = experiment(cfg, subject(cfg), None)
    unknown = [one.what for one in kept if one.bytes is None]
    assert unknown == ["archive", "shards", "embeddings", "index"]
    assert kept[0].there == 2 * 3 * 9
    assert disk_verdict(kept, 10**12, "/root").word == "unknown"
    assert archive(folder, made=True).bytes == 2 * 3 * 9  # no more is needed
    with open_journal(folder) as journal:  # it was brought since, and is not in the table yet
        journal.write(dataclasses.replace(one, time="2027") for one in entries(range(2, 9)))
        assert archive(folder).bytes == 9 * 3 * 9
        assert most_images(cfg.shard, folder) == 9


def test_what_fetch_has_given_up_is_no_image(root: Path) -> None:
    cfg, folder = config("shard.stride=0"), root / "archive"
    lost = entries(range(2, 4), "failed", final=True) + entries([4], "missing")
    merge(folder, [*entries(range(2)), *entries([5])[:2], *lost])
    assert most_images(cfg.shard, folder) == 2  # one lacks Bp, three have nothing
    assert archive(folder).bytes == (2 * 3 + 2) * 9
    assert disk_verdict(experiment(cfg, subject(cfg), None), 10**12, "/root").word == "fits"


def test_an_upper_bound_is_no_prediction() -> None:
    sure = Stored("checkpoints", 10**9, "")
    kept = [sure, Stored("shards", 11 * 10**9, "", at_most=True)]
    verdict = disk_verdict(kept, 10 * 10**9, "/root")
    assert verdict.word == "unknown"
    assert verdict.text.startswith("at most 12 GB more, at least 1, 10 GB free in /root")
    assert disk_verdict(kept, 10**9 // 2, "/root").word == "does not fit"
    assert disk_verdict(kept, int(12.5e9), "/root").word == "tight"
    assert disk_verdict(kept, 10**12, "/root").word == "fits"
    some = disk_verdict([*kept, Stored("encoder", None, "")], 10 * 10**9, "/root")
    assert some.word == "unknown"
    assert some.text.startswith("at least 1 GB more")
    assert some.text.endswith("not known yet: encoder; at most 11 GB beside it: shards")


def test_a_disk_with_parts_unknown_is_never_said_to_fit() -> None:
    some = [Stored("checkpoints", 10**9, "", there=4 * 10**8), Stored("shards", None, "")]
    verdict = disk_verdict(some, 10**12, "/root")
    assert verdict.word == "unknown"
    assert verdict.text.startswith("at least 0.6 GB more")
    assert verdict.text.endswith("not known yet: shards")
    assert disk_verdict(some, 10**8, "/root").word == "does not fit"
    assert disk_verdict(some[:1], 10**12, "/root").word == "fits"


def test_an_encoder_of_the_demonstration_takes_what_was_seen() -> None:
    cfg = load_config(REPO / "configs/archive_hour.toml")
    assert encoder_bytes(cfg, 32, 3) == pytest.approx(9_224_652, rel=0.01)  # a checkpoint of it
    assert encoder_bytes(load_config(None, ['ssl.backbone="timm:resnet18"']), 32, 3) is None
