"""``sunpipe ssl`` on real patches: exact resume, several ranks, collapse, refusals, stopping."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from sunpipe.config import load_config
from sunpipe.embed.encoder import FieldEncoder
from sunpipe.errors import ConfigError, DataError, Stopped, UsageError
from sunpipe.files import read_json, sha256
from sunpipe.run import Run, read_stats
from sunpipe.settings import Config
from sunpipe.stop import StopFlag
from sunpipe.train import ssl_methods
from sunpipe.train.ssl import train_ssl
from tests.conftest import REPO, run_json
from tests.ranks import run_ranks

SHORT = ("ssl.kimg=0.128", "ssl.tick_kimg=0.032", "ssl.checkpoint_kimg=1")


def config(*overrides: str) -> Config:
    return load_config(REPO / "configs/tiny.toml", (*SHORT, *overrides))


class StopAfter(StopFlag):
    """Asks to stop after so many batches."""

    def __init__(self, batches: int) -> None:
        super().__init__()
        self.left = batches

    def __bool__(self) -> bool:
        self.left -= 1
        if self.left < 0:
            self.reason = "SIGTERM"
        return super().__bool__()


def weights(root: Path, run: str = "00000-tiny-ssl") -> dict[str, torch.Tensor]:
    """Everything in the newest checkpoint: encoder, heads, momentum."""
    folder = root / "runs" / run / "checkpoints"
    newest = folder / (folder / "latest").read_text().strip()
    return {f"{stem}.{name}": tensor for stem in ("encoder", "heads", "optimizer")
            for name, tensor in load_file(newest / f"{stem}.safetensors").items()}  # fmt: skip


def assert_equal(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> None:
    assert one.keys() == two.keys()
    assert any(name.startswith("optimizer.") for name in one)
    for name, tensor in one.items():
        assert torch.equal(tensor, two[name]), name


@pytest.fixture
def elsewhere(tiny_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Further data roots with the same shards."""

    def make(name: str) -> Path:
        folder = tmp_path / name
        shutil.copytree(tiny_root / "shards", folder / "shards")
        monkeypatch.setenv("SUNPIPE_ROOT", str(folder))
        return folder

    return make


def test_n_and_n_images_are_2n(elsewhere: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = elsewhere("whole")
    done = train_ssl(config())
    assert done is not None
    assert done["state"] == "done"
    assert done["nimg"] == 128
    broken = elsewhere("broken")
    backwards = itertools.count(2e9, -3600.0)  # the clock of the wall decides nothing
    monkeypatch.setattr(time, "time", lambda: next(backwards))
    with pytest.raises(Stopped, match=r"SIGTERM at 0\.\d+ kimg"):
        train_ssl(config(), stop=StopAfter(5))
    status = read_json(broken / "runs/00000-tiny-ssl/status.json")
    assert status["state"] == "stopped"
    assert 0 < status["nimg"] < 128
    assert (status["target"], status["stage"], status["requeues"]) == (128, "ssl", 0)
    assert status["signal"] == "SIGTERM"
    assert status["checkpoint"]["bytes"] > 1000
    assert list((broken / "runs/00000-tiny-ssl/tensorboard").iterdir())
    # A line beyond the checkpoint, as a killed run leaves it, is written again.
    Run(broken / "runs/00000-tiny-ssl").stats({"nimg": 999, "loss": 0.0})
    again = train_ssl(config())
    assert_equal(weights(whole), weights(broken))
    assert again is not None
    rows = read_stats(broken / "runs/00000-tiny-ssl")
    assert [row["nimg"] for row in rows] == sorted({row["nimg"] for row in rows})
    assert again["nimg"] == 128
    for key in ("nimg", "kimg", "sec_per_kimg", "loss", "collapse", "data_wait_s",
                "peak_memory_bytes", "lr", "time", "tick_s", "rank_work_s"):  # fmt: skip
        assert key in again


def test_a_signal_saves_and_the_run_continues(
    elsewhere: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    whole = elsewhere("whole")
    train_ssl(config())
    broken = elsewhere("broken")
    plain = Run.stats

    def stats(self: Run, row: dict[str, Any], name: str = "stats") -> None:
        plain(self, row, name)
        if row["nimg"] == 64:
            os.kill(os.getpid(), signal.SIGUSR2)

    monkeypatch.setattr(Run, "stats", stats)
    before = signal.getsignal(signal.SIGUSR2)
    with pytest.raises(Stopped, match=r"SIGUSR2 at 0\.08 kimg") as caught:
        train_ssl(config())
    assert caught.value.exit_code == 75
    assert signal.getsignal(signal.SIGUSR2) == before
    monkeypatch.setattr(Run, "stats", plain)
    train_ssl(config())
    assert_equal(weights(whole), weights(broken))
    # The newest checkpoint is damaged: the one before it is used, and ends the same.
    folder = broken / "runs/00000-tiny-ssl/checkpoints"
    (folder / "kimg-000000.128/encoder.safetensors").write_bytes(b"torn")
    train_ssl(config())
    assert_equal(weights(whole), weights(broken))


def test_continuing_refuses_what_matters_by_name(tiny_copy: Path) -> None:
    train_ssl(config("ssl.kimg=0.032"))
    for override in ("ssl.lr=0.1", "seed=3", "ssl.noise_g=0", "ssl.width=4", "ssl.kimg=0.064"):
        with pytest.raises(DataError, match=f"another {override.split('=')[0]}.*--new"):
            train_ssl(config("ssl.kimg=0.032", override))
    train_ssl(config("ssl.kimg=0.032", "ssl.tick_kimg=0.016", "ssl.keep_checkpoints=1"))
    assert len(list((tiny_copy / "runs").iterdir())) == 1
    train_ssl(config("ssl.kimg=0.032", "ssl.lr=0.1"), new=True)
    assert len(list((tiny_copy / "runs").iterdir())) == 2


def test_a_finished_run_says_so(tiny_copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = train_ssl(config("ssl.kimg=0.032"))
    stamp = (tiny_copy / "runs/00000-tiny-ssl/stats.jsonl").read_text()
    assert train_ssl(config("ssl.kimg=0.032")) == first
    assert "is finished at 0.032 kimg; nothing to do" in capsys.readouterr().err
    assert (tiny_copy / "runs/00000-tiny-ssl/stats.jsonl").read_text() == stamp


def test_a_projector_that_gives_one_vector_stops_the_run(
    tiny_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = ssl_methods.projector

    def dead(dim: int, hidden: int) -> torch.nn.Sequential:
        layers = plain(dim, hidden)
        torch.nn.init.zeros_(layers[-2].weight)  # type: ignore[arg-type]
        return layers

    monkeypatch.setattr(ssl_methods, "projector", dead)
    with pytest.raises(DataError, match=r"collapsed \(level 1\.00 > 0\.9 at 0\.032 kimg"):
        train_ssl(config("ssl.method=simsiam", "ssl.lr=1e-9", "ssl.weight_decay=0"))
    status = read_json(tiny_copy / "runs/00000-tiny-ssl/status.json")
    assert status["state"] == "failed"
    assert "collapsed" in status["reason"]


@pytest.mark.parametrize(
    ("method", "overrides"),
    [
        # nothing holds the outputs apart any more
        ("vicreg", ("ssl.vicreg.variance=0", "ssl.vicreg.covariance=0", "ssl.lr=0.05")),
        # no centre and no sharpening: one even distribution for all
        ("dino", ("ssl.dino.center_momentum=1", "ssl.dino.teacher_temperature=1")),
    ],
)
def test_collapse_stops_the_run(tiny_copy: Path, method: str, overrides: tuple[str, ...]) -> None:
    common = (f"ssl.method={method}", "ssl.kimg=2", "ssl.tick_kimg=0.25", "ssl.hidden=32",
              "ssl.dino.outputs=64")  # fmt: skip
    with pytest.raises(DataError, match=r"collapsed \(level 0\.9\d|collapsed \(level 1\.00"):
        train_ssl(config(*common, *overrides))
    row = read_stats(tiny_copy / "runs/00000-tiny-ssl")[-1]
    assert row["collapse"] > 0.9


@pytest.mark.parametrize("method", ["simsiam", "dino"])
def test_other_methods_resume_to_the_bit_and_embed(elsewhere: Any, method: str) -> None:
    settings = (f"ssl.method={method}", "ssl.dino.outputs=32", "ssl.hidden=32", "ssl.collapsed=1")
    whole = elsewhere("whole")
    train_ssl(config(*settings))
    broken = elsewhere("broken")
    with pytest.raises(Stopped):
        train_ssl(config(*settings), stop=StopAfter(3))
    train_ssl(config(*settings))
    assert_equal(weights(whole), weights(broken))
    encoder = FieldEncoder.load(broken / "runs/00000-tiny-ssl")
    assert encoder.card.method == method
    assert encoder.card.pixel_cm == pytest.approx(4 * 3.64e7, rel=0.02)  # shard.reduce=4
    kept = encoder.network.state_dict()
    heads = {key: value for key, value in weights(whole).items() if key.startswith("heads.")}
    student = {key.removeprefix("heads.encoder."): value for key, value in heads.items()
               if key.startswith("heads.encoder.")}  # fmt: skip
    assert student.keys() == (kept.keys() if method == "dino" else set())  # the teacher embeds
    assert encoder.vectors(torch.randn(2, 3, 32, 32) * 200).shape == (2, 16)


METHODS = ("simsiam", "vicreg", "dino")


@pytest.fixture(scope="module")
def on_ranks(tiny_root: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """How runs on two ranks went, of every method; one of them continued on one rank."""
    folder, jobs = tmp_path_factory.mktemp("ranks"), [{"world": 2, "argv": ["norm"]}]
    for method in METHODS:
        root = folder / method
        shutil.copytree(tiny_root / "shards", root / "shards")
        starts = ((2, "2"), (1, "0")) if method == "dino" else ((2, "0"),)
        jobs += [{"world": world, "argv": ["train", str(root), stop, *same_on_ranks(method)]}
                 for world, stop in starts]  # fmt: skip
    norm, *ended = run_ranks("tests.ssl_ranks", *jobs)
    return {"norm": norm, "jobs": list(zip(jobs[1:], ended, strict=True)), "folder": folder}


def same_on_ranks(method: str) -> list[str]:
    return [f"ssl.method={method}", "ssl.kimg=0.064", "ssl.tick_kimg=0.016", "ssl.hidden=32",
            "ssl.dino.outputs=32", "ssl.collapsed=1", "ssl.width=4"]  # fmt: skip


def test_batch_norm_over_ranks_is_that_of_the_whole_batch(on_ranks: dict[str, Any]) -> None:
    first, second = on_ranks["norm"]
    assert [first[0], second[0]] == [0, 0], first[2] + second[2]
    assert json.loads(first[1].splitlines()[-1])["gap"] < 1e-9


def test_a_stop_is_agreed_on(on_ranks: dict[str, Any]) -> None:
    for job, ranks in on_ranks["jobs"]:
        stopped = job["argv"][2] != "0"
        assert {rank[0] for rank in ranks} == {75 if stopped else 0}, ranks


@pytest.mark.parametrize("method", METHODS)
def test_any_number_of_ranks_gives_the_same(
    on_ranks: dict[str, Any], elsewhere: Any, method: str
) -> None:
    alone = elsewhere("alone")
    train_ssl(load_config(REPO / "configs/tiny.toml", same_on_ranks(method)))
    ours, whole = (
        read_stats(root / "runs/00000-tiny-ssl") for root in (on_ranks["folder"] / method, alone)
    )
    assert [row["nimg"] for row in whole] == [16, 32, 48, 64]
    for name in ("loss", "collapse"):
        found = [row[name] for row in ours]
        assert found == pytest.approx([row[name] for row in whole], rel=1e-4, abs=1e-5), name


def test_a_loss_that_is_not_finite_stops_the_run(tiny_copy: Path) -> None:
    with pytest.raises(DataError, match="the loss is not finite"):
        train_ssl(config("ssl.lr=1e38"))


def test_a_batch_that_does_not_divide_is_refused(
    tiny_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key, value in {"RANK": "0", "WORLD_SIZE": "3", "LOCAL_RANK": "0",
                       "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}.items():  # fmt: skip
        monkeypatch.setenv(key, value)
    with pytest.raises(UsageError, match=r"ssl\.batch=16 does not divide over 3 ranks"):
        train_ssl(config())
    assert not (tiny_copy / "runs").exists()


def test_one_patch_per_rank_is_refused(tiny_copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for key, value in {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0",
                       "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}.items():  # fmt: skip
        monkeypatch.setenv(key, value)
    with pytest.raises(UsageError, match=r"ssl\.batch=2 leaves one patch to each of 2 ranks"):
        train_ssl(config("ssl.batch=2"))
    assert not (tiny_copy / "runs").exists()


def test_weights_to_start_from_are_part_of_the_run(tiny_copy: Path) -> None:
    short = ("ssl.kimg=0.016", "ssl.collapsed=1")
    wrong = f'ssl.weights="{tiny_copy}/none.safetensors"'
    with pytest.raises(ConfigError, match=r"cannot read weights from .*none\.safetensors"):
        train_ssl(config(*short, wrong))
    assert not list((tiny_copy / "runs").glob("*"))
    train_ssl(config(*short))
    kept = next((tiny_copy / "runs/00000-tiny-ssl/checkpoints").glob("*/encoder.safetensors"))
    first, moved = (tiny_copy / f"{name}.safetensors" for name in ("first", "moved"))
    shutil.copyfile(kept, first)
    given = f'ssl.weights="{first}"'
    with pytest.raises(DataError, match=r"made with another ssl\.weights"):  # though it is done
        train_ssl(config(*short, given))
    with pytest.raises(ConfigError, match=r"ssl\.weights: .*none\.safetensors"):
        train_ssl(config(*short, wrong))
    train_ssl(config(*short, given), new=True)
    stored = read_json(tiny_copy / "runs/00001-tiny-ssl/config.json")
    assert stored["ssl"]["weights"] == f"sha256:{sha256(first)}"
    assert stored["weights_file"] == str(first)
    first.rename(moved)  # where it lies does not matter, what it holds does
    done = train_ssl(config(*short, f'ssl.weights="{moved}"'))
    assert done is not None
    assert done["nimg"] == 16


def test_command(tiny_copy: Path) -> None:
    tiny = REPO / "configs/tiny.toml"
    plan = run_json("ssl", "-c", tiny, "--dry-run", root=tiny_copy)
    assert plan["images"] == 256
    assert not (tiny_copy / "runs").exists()
    for key in ("ssl.batch=1", "ssl.crop=0", "ssl.shift=1", 'ssl.symmetries=["shear"]'):
        with pytest.raises(ConfigError, match=key.split("=")[0]):
            config(key)
    with pytest.raises(DataError, match="run sunpipe shard first"):
        train_ssl(config("dataset=none"))
