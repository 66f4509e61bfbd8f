"""``sunpipe plan``: before there are data, for a GPU elsewhere, and after a run."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import typer

from benchmarks.plan_memory import CASES, measure
from benchmarks.plan_memory import config as case_config
from hpc.plan.actual import compare
from hpc.plan.cli import plan
from sunpipe.config import load_config
from sunpipe.errors import DataError, UsageError
from sunpipe.train import gpus
from sunpipe.train.ledger import ledger
from sunpipe.train.plan import checkpoint_bytes, predicted, tensor_bytes
from tests.conftest import REPO

TINY = REPO / "configs/tiny.toml"
MEMORY = json.loads((REPO / "benchmarks/results/plan_memory.json").read_text())


def asked(capsys: pytest.CaptureFixture[str], **options: Any) -> dict[str, Any]:
    plan(TINY, json_=True, **options)
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


@pytest.mark.usefixtures("root")
def test_a_plan_before_there_are_data(capsys: pytest.CaptureFixture[str]) -> None:
    found = asked(capsys, gpu="h200", nodes=2, gpus_per_node=2)
    cfg = load_config(TINY)
    assert found["images"]["images"] is None
    assert found["target"]["ranks"] == 4
    memory = ledger(32, 3, cfg.train, 4, "cuda")
    assert found["memory"]["peak_bytes"] == memory.peak_bytes == sum(memory.parts.values())
    assert found["total"]["seconds"] == pytest.approx(
        found["pace"]["seconds_per_kimg"] * cfg.train.kimg)  # fmt: skip
    assert found["total"]["node_hours"] == pytest.approx(found["total"]["seconds"] / 1800)
    assert found["pace"]["communication_s"] > 0
    assert found["fits"] is True
    on = [row for row in found["levers"] if row["on"]]
    assert on
    for row in on:  # each says the same of the settings as they are
        assert row["peak_bytes"] == memory.peak_bytes
        assert row["seconds_per_kimg"] == pytest.approx(found["pace"]["seconds_per_kimg"])
    assert {verdict["about"] for verdict in found["verdicts"]} == {"memory", "time", "disk"}


@pytest.mark.usefixtures("root")
def test_what_does_not_fit_is_said_with_the_change_that_helps(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = load_config(TINY, ["train.batch=64"])
    found = ledger(32, 3, cfg.train, 1, "cuda")
    usable = (found.states + 0.6 * found.highest.total) / 2**30
    small = dataclasses.replace(gpus.KNOWN["h200"], name="small", memory_gib=(usable + 1) / 0.92)
    monkeypatch.setitem(gpus.KNOWN, "small", small)
    with pytest.raises(typer.Exit) as stop:
        plan(TINY, set_=["train.batch=64"], gpu="small", check=True, brief=True)
    assert stop.value.exit_code == 1
    out = capsys.readouterr().out
    assert "memory: does not fit" in out
    assert "smallest change: train.compute." in out
    with pytest.raises(UsageError, match=r"called 'gtx'; known: .*h200"):
        plan(TINY, gpu="gtx")
    with pytest.raises(UsageError, match="does not divide over 3 ranks"):
        plan(TINY, gpu="h200", gpus_per_node=3)
    with pytest.raises(UsageError, match="named twice"):
        plan(TINY, config=TINY)


def test_a_run_is_held_against_its_plan(tmp_path: Path) -> None:
    cfg = load_config(TINY)
    made = predicted(cfg, 32, 3, 1, "cpu")
    assert sum(made["parts"].values()) == made["memory_bytes"]
    assert made["parts"]["process"] > 50 * 2**20
    assert (made["gpu"], made["seconds_per_kimg"]) == (None, None)
    (tmp_path / "checkpoints/kimg-000001.000").mkdir(parents=True)
    (tmp_path / "checkpoints/kimg-000001.000/COMPLETE").write_text("x" * 100)
    old = {"nimg": 500, "sec_per_kimg": 30.0, "peak_memory_bytes": 2**29}
    new = {"nimg": 1000, "sec_per_kimg": 10.0, "peak_memory_bytes": 1, "energy_j": 7.2e6,
           "rank_peak_memory_bytes": [2**29, 2**30]}  # fmt: skip
    (tmp_path / "stats.jsonl").write_text(f"{json.dumps(old)}\n{json.dumps(new)}\n")
    (tmp_path / "status.json").write_text(json.dumps({"energy_j": 7.2e6}))  # of all starts
    bare = {row.what: (row.predicted, row.actual) for row in compare(tmp_path)}
    assert bare == {"memory of a rank": (None, 2**30), "seconds per kimg": (None, 20.0),
                    "checkpoint": (None, 100), "energy": (None, 2.0)}  # fmt: skip
    (tmp_path / "plan.json").write_text(json.dumps({**made, "seconds_per_kimg": 25.0}))
    rows = {row.what: row for row in compare(tmp_path)}
    assert rows["seconds per kimg"].ratio == 1.25
    (tmp_path / "plan.json").write_text(json.dumps({**made, "from_nimg": 500}))
    later = {row.what: row for row in compare(tmp_path, cpu_pace=8.0)}
    now = later["seconds per kimg (predicted now)"]
    assert (now.predicted, now.actual) == (8.0, 10.0)  # of the ticks since that start
    assert rows["checkpoint"].predicted == checkpoint_bytes(cfg, 32, 3)
    for damaged, said in (("[]", "holds no plan"), ('{"memory_bytes": "x"}', "is no number")):
        (tmp_path / "plan.json").write_text(damaged)
        with pytest.raises(DataError, match=said):
            compare(tmp_path)


def test_trainings_took_the_memory_that_is_predicted() -> None:
    assert MEMORY["cases"].keys() == CASES.keys()
    for name, (resolution, channels, changes) in CASES.items():
        t = case_config("measured", changes).train
        peak = ledger(resolution, channels, t, device="cpu").peak_bytes  # by the ledger as it is
        took = MEMORY["cases"][name]["measured_bytes"]
        assert peak / took == pytest.approx(1, abs=0.15), name


def test_a_whole_training_takes_what_its_plan_says(tiny_run_root: Path) -> None:
    rows = {row.what: row for row in compare(tiny_run_root / "runs/00000-tiny")}
    assert rows["memory of a rank"].ratio == pytest.approx(1, abs=0.15)
    assert rows["checkpoint"].ratio == pytest.approx(1, abs=0.01)


def test_tensors_that_are_there_are_no_part_of_the_process() -> None:
    before = tensor_bytes()
    held = torch.zeros(1000, 1000)
    views = [held[:10], held.t()]  # of one storage
    assert tensor_bytes() - before == pytest.approx(held.nbytes, abs=1000)
    del held, views


@pytest.mark.parametrize(
    "changes", [{"batch": 32}, {"batch": 32, "zero.stage": 1, "compute.checkpoint": "conv",
                                "compute.checkpoint_from": 16}]
)  # fmt: skip
def test_a_training_here_takes_what_was_predicted(changes: dict[str, Any]) -> None:
    widths = {"model.channel_base": 2048, "model.channel_max": 64, "model.mapping_layers": 2}
    row = measure(32, 1, {**widths, **changes})
    assert row["predicted_over_measured"] == pytest.approx(1, abs=0.15), row
