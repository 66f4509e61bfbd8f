"""What is refused before a job is queued, what is only said, and what is let through."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from hpc.plan.fit import Finding, layout_fault, queue_check
from hpc.plan.storage import storage
from hpc.plan.subject import Subject, planes, subject
from hpc.plan.verdict import duration, time_verdict
from hpc.profile import Profile, Resources, StageResources
from sunpipe.config import load_config
from sunpipe.errors import DataError
from sunpipe.settings import Config
from sunpipe.shard_settings import ShardSettings
from sunpipe.shards.schema import DatasetInfo
from sunpipe.train import gpus
from tests.conftest import REPO


def config(*changes: str) -> Config:
    return load_config(REPO / "configs/tiny.toml", changes)


def profile(gpu: str = "", stage: str = "train", **wanted: Any) -> Profile:
    return Profile(gpu=gpu, stages=StageResources(**{stage: Resources(**wanted)}))


def levels(found: list[Finding]) -> list[str]:
    return [one.level for one in found]


def make_dataset(root: Path, side: int = 32, rows: int = 10) -> None:
    """A description of shards, without the shards."""
    folder = root / "shards/tiny"
    folder.mkdir(parents=True)
    DatasetInfo(
        name="tiny", product="sharp_vector", channels=["Br", "Bt", "Bp"], units=["Gauss"] * 3,
        resolution=side, tile=side, stride=0, reduce=1, dtype="int16", storage="contiguous",
        scale=0.5, max_error=0.25, max_relative_error=0.0, shards={}, files={},
        counts={"rows": rows, "train": rows - 2, "test": 2}, settings={}, versions={},
    ).write(folder)  # fmt: skip


@pytest.mark.usefixtures("root")
def test_what_fits_is_let_through() -> None:
    stages = ["fetch", "shard", "train", "sample", "ssl", "report"]
    assert queue_check(config(), profile(), stages) == []
    assert queue_check(config(), profile("h200", gpus_per_node=1), stages) == []


@pytest.mark.usefixtures("root")
def test_a_job_that_would_be_stopped_as_it_starts_is_refused() -> None:
    (found,) = queue_check(config(), profile(stage="fetch", time="00:05:00"), ["fetch"])
    assert found == Finding("refuse", "fetch", "time = 00:05:00 is not longer than signal_s = 300:"
                            " it would be asked to stop as it starts")  # fmt: skip
    assert queue_check(config(), profile(stage="fetch", time="00:06:00"), ["fetch"]) == []


@pytest.mark.usefixtures("root")
def test_ranks_and_gpus_must_agree() -> None:
    many = queue_check(config(), profile(tasks_per_node=4, gpus_per_node=2), ["train"])
    assert levels(many) == ["refuse"]
    assert "4 tasks a node share 2 GPUs" in many[0].text
    idle = queue_check(config(), profile(tasks_per_node=2, gpus_per_node=4), ["train"])
    assert levels(idle) == ["warn"]
    assert "2 of 4 GPUs" in idle[0].text


@pytest.mark.parametrize(
    ("changes", "ranks", "said"),
    [
        (["train.batch=8"], 4, None),
        (["train.batch=8"], 3, "train.batch = 8 does not divide over 3 ranks; use a multiple of 3"),
        (["train.batch=8", "train.compute.accumulate=4"], 4, "4 ranks x 4 passes"),
        (["train.compute.stripes=2"], 3, "3 ranks do not divide into groups"),
        (["train.batch=8", "train.compute.stripes=2"], 16, None),
        (["train.zero.stage=3"], 1, "not offered"),
    ],
)
def test_layouts_that_the_training_refuses(changes: list[str], ranks: int, said: Any) -> None:
    found = layout_fault(config(*changes), ranks)
    assert found is None if said is None else said in str(found)


@pytest.mark.usefixtures("root")
def test_an_encoder_needs_two_patches_a_rank() -> None:
    wanted = profile(stage="ssl", tasks_per_node=16)
    assert levels(queue_check(config("ssl.batch=16"), wanted, ["ssl"])) == ["refuse"]
    assert queue_check(config("ssl.batch=32"), wanted, ["ssl"]) == []


def test_memory_is_refused_only_where_it_is_certain(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = dataclasses.replace(gpus.KNOWN["h200"], name="small", memory_gib=0.501)
    monkeypatch.setitem(gpus.KNOWN, "small", small)
    wanted = profile("small", gpus_per_node=1)
    before = queue_check(config(), wanted, ["train"])
    assert levels(before) == ["warn"]  # the images may still be others
    make_dataset(root)
    (found,) = queue_check(config(), wanted, ["train"])
    assert found.level == "refuse"
    assert "a small has 0.501 GiB" in found.text
    unknown = queue_check(config(), profile("gtx", gpus_per_node=1), ["train"])
    assert levels(unknown) == ["warn"]
    assert "no figures for a GPU called 'gtx'" in unknown[0].text
    assert queue_check(config(), profile("small"), ["train"]) == []  # no GPU is asked for


def test_images_that_no_network_takes(root: Path) -> None:
    odd = config("shard.tile=96", "shard.reduce=2")
    assert levels(queue_check(odd, profile(), ["train"])) == ["warn"]
    make_dataset(root, side=48)
    assert levels(queue_check(config(), profile(), ["train"])) == ["refuse"]
    # they are about to be made again
    assert queue_check(config(), profile(), ["shard", "train"]) == []


def test_images_are_known_before_there_are_any(root: Path) -> None:
    early = subject(config())
    assert (early.resolution, early.channels, early.images) == (32, 3, None)
    assert early.raw_bytes == 3 * 32 * 32 * 2
    make_dataset(root)
    late = subject(config())
    assert (late.resolution, late.channels, late.images, late.trained) == (32, 3, 10, 8)
    assert late.stored_bytes == (root / "shards/tiny/dataset.json").stat().st_size
    (root / "shards/tiny/dataset.json").write_text("{}")
    with pytest.raises(DataError):
        subject(config())  # damaged is not the same as not there
    for product, dtype, count in (("sharp_los", "int16", 1), ("hmi_fulldisk", "int16", 1),
                                  ("aia_fulldisk", "float16", 3)):  # fmt: skip
        made: Any = {"product": product, "dtype": dtype, "wavelengths": (171, 193)}
        assert planes(ShardSettings(**made, magnetogram=product == "aia_fulldisk")) == count


def test_storage_is_summed_by_formula() -> None:
    cfg = config("train.kimg=100", "train.checkpoint_kimg=10", "train.keep_checkpoints=3",
                 "train.image_kimg=50", "sample.count=1000")  # fmt: skip
    images = Subject(32, 3, 2, 500, 400, 12345, "test")
    found = {one.what: one.bytes for one in storage(cfg, images, 10**6)}
    assert found["shards"] == 12345
    assert found["checkpoints"] == 4 * 10**6
    assert found["image grids"] == 4 * 24 * 32 * 32 * 3
    assert found["samples"] == 1000 * (4 * (16 + 16) + 8 * 24)
    assert found["embeddings"] == 500 * (4 * cfg.ssl.dim + 64)
    unknown = storage(cfg, dataclasses.replace(images, images=None, stored_bytes=None), 10**6)
    assert {one.what for one in unknown if one.bytes is None} == {"shards", "embeddings", "index"}


def test_time_is_counted_in_jobs() -> None:
    assert time_verdict(3600, None).word == "fits"
    assert time_verdict(3600, 7200).text == "60 min in all, 2 h 0 min in one job".replace(
        "60 min", "1 h 0 min"
    )
    three = time_verdict(10_000, 4000)
    assert three.word == "fits"
    assert "queued again 2 times" in three.text
    assert time_verdict(1e6, 4000).word == "tight"
    assert time_verdict(10, 0).word == "does not fit"
    assert [duration(s) for s in (40, 3000, 7500, 300_000)] == [
        "40 s", "50 min", "2 h 5 min", "3 d 11 h"]  # fmt: skip
