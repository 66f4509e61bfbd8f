"""What is refused before a job is queued, what is only said, and what is let through."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from hpc.plan.fit import Finding, queue_check
from hpc.plan.levers import alternatives
from hpc.plan.plan import _notes, busy
from hpc.plan.subject import channels_made, subject
from hpc.plan.target import Target, host_bytes, target
from hpc.plan.trained import Trained, trained
from hpc.plan.verdict import (
    duration,
    host_verdict,
    memory_verdict,
    time_verdict,
)
from hpc.profile import Profile, Resources, StageResources
from preprocess.dataset.patches import Patches
from sunpipe.config import load_config, to_dict
from sunpipe.errors import DataError, UsageError
from sunpipe.settings import Config
from sunpipe.shard_settings import ShardSettings
from sunpipe.shards.schema import DatasetInfo
from sunpipe.train import gpus
from sunpipe.train.advice import _combinations, suggest
from sunpipe.train.ledger import ledger
from sunpipe.train.pace import least_seconds_per_kimg, pace
from sunpipe.train.refuse import check_layout
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
        (["train.batch=8"], 3, "train.batch=8 does not divide over 3 ranks; use a multiple of 3"),
        (
            ["train.batch=8", "train.compute.accumulate=4"],
            4,
            "4 ranks x train.compute.accumulate=4",
        ),
        (["train.compute.stripes=2"], 3, "3 ranks do not divide into groups"),
        (["train.batch=8", "train.compute.stripes=2"], 16, None),
        (["train.zero.stage=3"], 1, "not offered"),
    ],
)
def test_layouts_that_the_training_refuses(changes: list[str], ranks: int, said: Any) -> None:
    t = config(*changes).train
    if said is None:
        check_layout(t, ranks)
        return
    with pytest.raises(UsageError) as refused:
        check_layout(t, ranks)
    assert said in str(refused.value)


def test_what_the_training_refuses_of_its_images_is_refused_before(root: Path) -> None:
    wrong = {
        'train.diffaugment=["color"]': "train.diffaugment: color is for intensities",
        "train.compute.stripes=2": "train.compute: compute.stripes_from=256 is above",
        "train.normalize.scale=[1.0, 2.0]": "train.normalize lists 2 channels",
    }
    wanted = profile(tasks_per_node=2)
    for change, said in wrong.items():
        (early,) = queue_check(config(change), wanted, ["train"])
        assert early.level == "warn"  # the images may still be others
        assert early.text.startswith(said)
    make_dataset(root)
    for change, said in wrong.items():
        (late,) = queue_check(config(change), wanted, ["train"])
        assert late.level == "refuse"
        assert late.text.startswith(said)


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
    assert "sunpipe plan looks for settings" in found.text
    unknown = queue_check(config(), profile("gtx", gpus_per_node=1), ["train"])
    assert levels(unknown) == ["warn"]
    assert "no figures for a GPU called 'gtx'" in unknown[0].text
    assert queue_check(config(), profile("small"), ["train"]) == []  # no GPU is asked for


def test_nothing_fits_a_gpu_without_memory_of_its_own() -> None:
    """Less than what CUDA and the libraries take of it."""
    small = dataclasses.replace(gpus.KNOWN["h200"], memory_gib=0.9)
    place = Target(small, 1, 1, None, "test")
    assert place.memory_bytes == 0
    assert memory_verdict(config(), 32, 3, 10**6, place).word == "does not fit"


def test_suggestions_are_what_the_device_and_the_training_take() -> None:
    t = config("train.batch=64", "train.compute.bf16_from=4").train
    found = ledger(16, 3, t, 2)
    limit = found.states + 0.8 * found.highest.total
    for half, said in ((True, "precision = bf16"), (False, "accumulate = 2")):
        advised = suggest(16, 3, t, 2, limit, half=half)
        assert advised is not None
        assert advised.changes == (f"train.compute.{said}",)
    tf32 = config('train.compute.precision="tf32"').train
    as_it_is = suggest(16, 3, tf32, 1, 2**40, half=True)
    assert as_it_is is not None
    assert as_it_is.changes == ()  # what fits is not rounded more
    assert {one["stripes"] for one in _combinations(t, 32, 2, True)} == {1}  # from 256 pixels on
    names = [name for name, _ in alternatives(t, 1, half=False)]
    assert "compute.precision = bf16" not in names
    old = Target(gpus.KNOWN["v100"], 1, 1, None, "test")
    (note,) = _notes(config('train.compute.precision="bf16"'), old)
    assert note.startswith("a v100 has no units for bfloat16")


def test_a_run_that_cannot_go_on_is_no_part_of_what_is_done(root: Path) -> None:
    cfg = config()
    assert trained(cfg) == Trained(None, 0.0, "")
    run = root / "runs/00000-tiny"
    run.mkdir(parents=True)
    (run / "stats.jsonl").write_text('{"nimg": 16}\n')
    assert trained(cfg).refused  # without a config.json nothing goes on
    made = {"seed": cfg.seed, "train": to_dict(cfg.train), "data": {"dataset": "tiny"}}
    (run / "config.json").write_text(json.dumps(made))
    assert trained(cfg) == Trained(run, 0.016, "")
    assert trained(config("train.kimg=1")).kimg == 0.016  # may change
    other = trained(config("train.model.channel_base=128"))
    assert (other.run, other.kimg) == (run, 0.0)
    assert other.refused.endswith("another train.model.channel_base")
    (run / "stats.jsonl").write_text('{"kimg": 16}\n')
    with pytest.raises(DataError, match="lacks nimg"):
        trained(cfg)


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
    for product in ("sharp_vector", "sharp_los"):
        shard = ShardSettings(product=product)
        made = Patches(shard)
        assert channels_made(shard) == (tuple(made.channels), tuple(made.units))
    aia = ShardSettings(product="aia_fulldisk", dtype="float16", wavelengths=(171, 193),
                        magnetogram=True)  # fmt: skip
    assert channels_made(aia) == (("171", "193", "magnetogram"), ("DN/s", "DN/s", "Gauss"))


@pytest.mark.usefixtures("root")
def test_memory_of_the_host_is_held_against_mem(
    tmp_path: Path,
) -> None:
    assert host_bytes(Resources(mem="8G", tasks_per_node=2)) == 4 * 2**30
    assert host_bytes(Resources(mem="8G", tasks_per_node=2), 8) == 2**30
    assert host_bytes(Resources(mem="4096")) == 4 * 2**30  # MiB, as Slurm reads it
    for all_of_it in ("", "0", "0M"):
        assert host_bytes(Resources(mem=all_of_it)) is None
    (found,) = queue_check(config(), profile(mem="1M"), ["train"])
    assert (found.level, "of 1.0 MiB that it gets" in found.text) == ("warn", True)
    assert queue_check(config(), profile(mem="8G"), ["train"]) == []
    (moved,) = queue_check(config("train.zero.stage=1", "train.zero.offload=true"),
                           profile("h200", gpus_per_node=1, mem="512M"), ["train"])  # fmt: skip
    assert "on the host" in moved.text
    t = config().train
    cpu = Target(None, 1, 1, None, "test")
    assert host_verdict(ledger(32, 3, t, 1, "cpu"), cpu).text.endswith("set mem in the profile to"
                                                                       " compare")  # fmt: skip
    file = tmp_path / "cpu.toml"
    file.write_text('[stages.train]\nmem = "8G"\n')
    place = target(file, None, None, None)
    assert place.host_bytes == 8 * 2**30
    assert host_verdict(ledger(32, 3, t, 1, "cpu"), place).word == "fits"
    assert "asks for no GPU" in target(file, "h200", None, None).note


@pytest.mark.usefixtures("root")
def test_very_many_jobs_and_a_full_disk_are_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    changes = ("train.kimg=1e7", "train.tick_kimg=1e5", "train.image_kimg=1e5")
    (long,) = queue_check(config(*changes),
                          profile("v100", gpus_per_node=1, time="00:10:00"), ["train"])  # fmt: skip
    assert long.level == "warn"
    assert "takes more than" in long.text
    t, gpu = config().train, gpus.KNOWN["v100"]
    assert 0 < least_seconds_per_kimg(32, 3, t, gpu) < pace(32, 3, t, gpu).seconds_per_kimg
    monkeypatch.setattr("hpc.plan.storage.free_bytes", lambda root: 1000)
    (full,) = queue_check(config(), profile(), ["train"])
    assert full.level == "warn"
    assert "GB free" in full.text


def test_a_busy_machine_is_no_measure() -> None:
    assert busy(0.4, 2) is None
    assert "load 8.0 on 2 cores" in str(busy(8.0, 2))


def test_time_is_counted_in_jobs() -> None:
    assert time_verdict(3600, None).word == "unknown"
    assert time_verdict(4e7, None).word == "does not fit"  # more than a year
    assert time_verdict(2e7, 4000).word == "does not fit"  # 4999 restarts
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
