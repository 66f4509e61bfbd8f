"""TensorBoard, W&B and MLflow of a run, read back as their own tools read them."""

from __future__ import annotations

import gc
import importlib.util
import json
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sunpipe import plots
from sunpipe.errors import UsageError
from sunpipe.files import write_json
from sunpipe.run import Run
from sunpipe.track_settings import TrackSettings
from sunpipe.train import sinks
from sunpipe.train.sink_tensorboard import TensorboardSink
from sunpipe.train.sinks import check_sinks, history, numbers, open_sinks

BOTH = TrackSettings(sinks=("wandb", "mlflow"), project="sun")
CONFIG = {"name": "tiny", "train": {"kimg": 0.064}, "fetch": {"email": None}}


def row(nimg: int, loss: float | None) -> dict[str, Any]:
    return {"nimg": nimg, "kimg": nimg / 1000, "loss_G": loss, "rank_work_s": [2.0, 1.0]}


def wandb_records(data: bytes) -> Iterator[bytes]:
    """Records of a ``.wandb`` file: a log as LevelDB writes it, after a header of 7 bytes."""
    assert data[:4] == b":W&B"
    place, kept, block, head = 7, b"", 32768, 7
    while place + head <= len(data):
        if block - place % block < head:  # what is left of a block holds no header
            place += block - place % block
            continue
        size, kind = struct.unpack_from("<HB", data, place + 4)
        kept += data[place + head : place + head + size]
        place += head + size
        if kind in (1, 4):  # whole, or the last part
            yield kept
            kept = b""


def wandb_points(folder: Path) -> list[dict[str, Any]]:
    """Rows of the history in the one offline file, as W&B's own schema has them."""
    from wandb.proto.wandb_internal_pb2 import Record

    (file,) = folder.glob("wandb/offline-run-*/run-*.wandb")
    found = []
    for data in wandb_records(file.read_bytes()):
        record = Record.FromString(data)
        if record.WhichOneof("record_type") == "history":
            found.append({".".join(item.nested_key) or item.key: json.loads(item.value_json)
                          for item in record.history.item})  # fmt: skip
    return found


def mlflow_points(folder: Path, key: str) -> list[tuple[int, float]]:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=(folder / "mlflow").as_uri())
    (experiment,) = client.search_experiments(filter_string="name = 'sun'")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.data.params["train.kimg"] == "0.064"
    assert [file.path for file in client.list_artifacts(run.info.run_id, "images")] == [
        "images/fakes-kimg-000000.016.png"
    ]
    return [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, key)]


def tensorboard_points(folder: Path, key: str) -> list[tuple[int, float]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars(key)]


@pytest.mark.filterwarnings("default")  # of the packages themselves
def test_a_run_that_goes_on_has_every_point_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "planted-secret-" + 25 * "x")
    folder = tmp_path / "00003-tiny"
    (folder / "images").mkdir(parents=True)
    write_json(folder / "provenance.json", {"time": "then"})
    run, grid = Run(folder), folder / "images/fakes-kimg-000000.016.png"
    with open_sinks(run, BOTH, CONFIG, nimg=0) as first:
        assert list(first.sinks) == ["tensorboard", "wandb", "mlflow"]
        for nimg in (16, 32, 48):
            run.stats(row(nimg, nimg / 10))
            first.add(row(nimg, nimg / 10))
            if nimg == 16:
                plots.save(plots.field_grid(np.ones((8, 4, 4)), 8, limit=1.0, unit="G",
                                            label="Br", title="x"), grid)  # fmt: skip
                first.image(nimg, grid)
    (ours,) = (folder / "mlflow").glob("*/*/metrics/loss_G")
    with open(ours, "a") as handle:
        handle.write("17 4.")  # the process was killed
    run.stats({"nimg": 16, "kimg": 0.016, "fd_random": 3.0}, "metric-generator")
    run.rewind_stats(32)  # it goes on from a checkpoint there
    with open_sinks(run, BOTH, CONFIG, nimg=32) as again:
        run.stats(row(48, None))
        again.add(row(48, None))
        again.add(row(64, 6.5))

    points = wandb_points(folder)
    assert [(p["_step"], p["loss_G"]) for p in points if "loss_G" in p] == [
        (16, 1.6), (32, 3.2), (64, 6.5)
    ]  # fmt: skip
    (drawn,) = [p for p in points if any(key.startswith("generated") for key in p)]
    assert drawn["_step"] == 16
    assert [p["fd_random"] for p in points if "fd_random" in p] == [3.0]
    assert mlflow_points(folder, "loss_G") == [(16, 1.6), (32, 3.2), (64, 6.5)]
    assert mlflow_points(folder, "rank_work_s/max") == [(s, 2.0) for s in (16, 32, 48, 64)]
    assert ours.is_file()  # the same run
    assert [step for step, _ in tensorboard_points(folder, "loss_G")] == [16, 32, 64]
    assert [step for step, _ in tensorboard_points(folder, "fd_random")] == [16]
    assert [v for _, v in tensorboard_points(folder, "rank_work_s/max")] == [2.0] * 4
    for file in folder.rglob("*"):
        assert not file.is_file() or b"planted-secret" not in file.read_bytes(), file
    assert "wandb" not in capfd.readouterr().out  # stdout belongs to the result


@pytest.mark.filterwarnings("default")
def test_what_an_earlier_start_could_not_write_is_added(tmp_path: Path) -> None:
    folder = tmp_path / "00004-tiny"
    (folder / "images").mkdir(parents=True)
    run = Run(folder)
    mlflow = TrackSettings(sinks=("mlflow",), project="sun")

    def start(config: dict[str, Any], nimg: int) -> str:
        """Id of MLflow's run."""
        with open_sinks(run, mlflow, config, nimg) as both:
            run.stats(row(nimg + 16, 1.0))
            both.add(row(nimg + 16, 1.0))
        (found,) = folder.glob("mlflow/*/*/metrics")
        return found.parent.name

    first = start(CONFIG, 0)
    run.stats(row(32, 1.0))  # when the disk was full
    (events,) = folder.glob("tensorboard/*")
    assert start(CONFIG, 32) == first
    assert not events.exists()
    (events,) = folder.glob("tensorboard/*")
    events.write_bytes(events.read_bytes()[:-9])
    assert start({**CONFIG, "name": "other"}, 48) != first
    (meta,) = folder.glob("mlflow/*/*/meta.yaml")
    assert start({**CONFIG, "name": "other"}, 64) == meta.parent.name
    meta.write_text("")  # torn
    start({**CONFIG, "name": "other"}, 80)
    moved = folder.rename(tmp_path / "00005-tiny")
    run.folder = folder = moved
    start({**CONFIG, "name": "other"}, 96)
    steps = list(range(16, 113, 16))
    assert [step for step, _ in tensorboard_points(folder, "loss_G")] == steps
    (points,) = folder.glob("mlflow/*/*/metrics/loss_G")
    assert [int(line.split()[2]) for line in points.read_text().splitlines()] == steps
    assert str(moved) in (points.parents[1] / "meta.yaml").read_text()


def test_tensorboard_on_a_full_disk(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    said: list[str] = []
    sink = TensorboardSink(tmp_path, 0, [])
    os.dup2(os.open("/dev/full", os.O_WRONLY), sink._file.fileno())
    kept = sinks.Sinks({"tensorboard": sink}, said.append)
    for nimg in (1, 2):
        kept.add(row(nimg, 1.0))
    del sink
    gc.collect()
    (line,) = said
    assert line.startswith("warning: nothing more is written for tensorboard ([Errno 28] No space")
    assert capfd.readouterr().err == ""


def test_a_sink_that_fails_does_not_end_the_training(tmp_path: Path) -> None:
    class Broken:
        added = 0

        def add(self, row: sinks.Row) -> None:
            self.added += 1
            raise OSError(28, "No space left on device")

        def image(self, nimg: int, path: Path) -> None:
            raise AssertionError("it was dropped before")

        close = image  # type: ignore[assignment]

    said: list[str] = []
    broken = Broken()
    both = sinks.Sinks({"mlflow": broken}, said.append)
    both.add(row(1, 1.0))
    both.add(row(2, 1.0))
    both.image(2, tmp_path)
    both.close()
    assert broken.added == 1
    (line,) = said
    assert "mlflow" in line
    assert "No space left on device" in line


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    check_sinks(TrackSettings())
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r'names wandb, .*pip install "sunpipe\[track\]"'):
        check_sinks(BOTH)


def test_what_is_drawn_of_a_row(tmp_path: Path) -> None:
    drawn = {"nimg": 5, "kimg": 0.005, "time": 1.0, "loss": 2, "lost": None, "of": [3, 1], "no": []}
    assert numbers(drawn) == {"loss": 2.0, "of/min": 1.0, "of/max": 3.0}
    (tmp_path / "images").mkdir()
    for name in ("fakes-kimg-000001.000.png", "fakes-kimg-000002.500.png", "fakes-x.png"):
        (tmp_path / "images" / name).touch()
    rows, grids = history(tmp_path, 2000)
    assert (rows, [nimg for nimg, _ in grids]) == ([], [1000])
