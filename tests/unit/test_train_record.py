"""What ``status.json`` and ``stats.jsonl`` tell of a run: restarts, ranks, energy."""

from __future__ import annotations

import ctypes
import math
from pathlib import Path
from typing import Any

import pytest

from sunpipe.dist import Ranks
from sunpipe.files import read_json, write_json
from sunpipe.run import Run
from sunpipe.train import record
from sunpipe.train.energy import Energy, Meter, nvml_meters, rapl_meters, share
from sunpipe.train.shares import rank_row

ALONE = Ranks(0, 1, 0, "127.0.0.1", 0, "single")


@pytest.mark.parametrize(
    ("before", "restart", "count"),
    [
        ({}, 0, 0),
        ({}, 2, 0),  # lost before it had begun a run
        ({"state": "done", "requeues": 2}, 0, 2),
        ({"state": "stopped", "requeued": False}, 0, 0),  # by hand, after ctrl-C
        ({"state": "stopped", "requeued": True, "requeues": 1}, 1, 2),
        ({"state": "stopped", "requeued": True}, 0, 1),
        ({"state": "failed", "requeues": 3}, 0, 4),
        ({"state": "running"}, 0, 1),  # killed
        ({"state": "stopped", "requeued": False, "requeues": 5}, 1, 6),
        ({"state": "failed", "requeues": "many"}, 0, 1),
    ],
)
def test_restarts_are_counted(before: dict[str, Any], restart: int, count: int) -> None:
    assert record.requeues(before, restart) == count


def test_a_run_keeps_its_totals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    kept = tmp_path / "checkpoints/kimg-000001.000"
    kept.mkdir(parents=True)
    (kept / "G.safetensors").write_bytes(b"12345678")
    (kept / "COMPLETE").write_text("{}")
    write_json(tmp_path / "status.json",
               {"state": "failed", "requeues": 1, "nonfinite": 4, "energy_j": 10.0})  # fmt: skip
    run = Run(tmp_path)
    record.begin(run, "train", ALONE)
    record.resumes_from(run, kept)
    record.tell(run, "running", nimg=5, target=9)
    record.add_tick(run, {"skipped": 2.0, "energy_j": 5.5})
    record.add_tick(run, {"skipped": None})
    record.tell(run, "failed", reason="why")
    status = read_json(tmp_path / "status.json")
    assert (status["nimg"], status["target"], status["reason"]) == (5, 9, "why")
    assert (status["job"], status["restart"], status["requeues"]) == ("77", 1, 2)
    assert (status["nonfinite"], status["energy_j"], status["world"]) == (6, 15.5, 1)
    assert status["nodes"] == 1
    assert status["checkpoint"]["name"] == "kimg-000001.000"
    assert status["checkpoint"]["bytes"] == 10
    assert status["checkpoint"]["time"] == (kept / "COMPLETE").stat().st_mtime


def test_a_checkpoint_that_was_passed_over_is_not_the_newest(tmp_path: Path) -> None:
    run, folder = Run(tmp_path), tmp_path / "checkpoints"
    for name in ("kimg-000001.000", "kimg-000002.000"):
        (folder / name).mkdir(parents=True)
        (folder / name / "COMPLETE").write_text("{}")
    (folder / "latest").write_text("kimg-000002.000\n")  # which is torn
    record.begin(run, "train", ALONE)
    record.resumes_from(run, folder / "kimg-000001.000")
    record.tell(run, "running")
    assert read_json(tmp_path / "status.json")["checkpoint"]["name"] == "kimg-000001.000"
    (folder / "latest").write_text("kimg-000002.000\n")  # written anew
    record.tell(run, "running")
    assert read_json(tmp_path / "status.json")["checkpoint"]["name"] == "kimg-000002.000"


def test_a_run_of_an_older_version(tmp_path: Path) -> None:
    run = Run(tmp_path)
    (tmp_path / "status.json").write_text("{torn")
    run.stats({"nimg": 1, "skipped": 2.0})
    run.stats({"nimg": 2, "loss": 0.0})
    record.begin(run, "ssl", ALONE)
    assert run.facts["nonfinite"] == 2
    record.resumes_from(run, None)
    assert run.facts["checkpoint"] is None
    assert run.facts["requeues"] == 0


def test_the_slowest_rank_has_the_most_work() -> None:
    row = rank_row(10.0, [[10.0, 1.0, 6.0, 100, math.nan], [10.0, 0.5, 0.5, 200, 30.0]])
    assert row["rank_work_s"] == [3.0, 9.0]
    assert row["rank_data_wait_s"] == [1.0, 0.5]
    silent = rank_row(10.0, [[10.0, 1.0, 6.0, 100, math.inf], [10.0, 0.5, 0.5, 200, 30.0]])
    assert "energy_j" not in silent
    assert row["rank_peak_memory_bytes"] == [100, 200]
    assert row["energy_j"] == 30.0
    assert "energy_j" not in rank_row(1.0, [[1.0, 0.0, 0.0, 1, math.nan]])


def zone(folder: Path, name: str, of: str, energy_uj: int, span_uj: int = 1_000_000_000) -> Path:
    path = folder / name
    path.mkdir(parents=True)
    (path / "name").write_text(f"{of}\n")
    (path / "max_energy_range_uj").write_text(f"{span_uj}\n")
    (path / "energy_uj").write_text(f"{energy_uj}\n")
    return path


def test_rapl_counts_sockets_and_memory_over_a_turn_of_the_counter(tmp_path: Path) -> None:
    socket = zone(tmp_path, "intel-rapl:0", "package-0", 999_000_000)
    zone(tmp_path, "intel-rapl:0:0", "core", 5)
    memory = zone(tmp_path, "intel-rapl:0:1", "dram", 1_000_000)
    zone(tmp_path, "intel-rapl:1", "psys", 5)
    broken = zone(tmp_path, "intel-rapl:2", "package-1", 5)
    (broken / "energy_uj").write_text("not a number")
    meters = rapl_meters(tmp_path, "here")
    assert [meter.key for meter in meters] == ["here/intel-rapl:0", "here/intel-rapl:0:1"]
    energy = Energy(meters, ALONE)
    assert energy.used() == 0.0
    (socket / "energy_uj").write_text("2000000")  # through 1000 J
    (memory / "energy_uj").write_text("1500000")
    assert energy.used() == pytest.approx(3.0 + 0.5)
    (socket / "energy_uj").unlink()
    assert energy.used() == math.inf  # not a sum without the socket, now or later
    assert energy.used() == math.inf
    assert Energy([], ALONE).used() is None
    assert rapl_meters(tmp_path / "none") == []


def test_a_device_that_two_ranks_see_is_read_once() -> None:
    seen = [["a/0", "gpu-1"], ["a/0", "gpu-2"], ["b/0", "gpu-2"]]
    assert [share(seen, rank) for rank in range(3)] == [{"a/0", "gpu-1"}, {"gpu-2"}, {"b/0"}]


class FakeNvml:
    """The three calls, with a counter in millijoules."""

    def __init__(self, code: int = 0) -> None:
        self.code, self.total = code, 5000

    def nvmlInit_v2(self) -> int:
        return 0

    def nvmlDeviceGetHandleByUUID(self, uuid: bytes, handle: Any) -> int:
        return 0 if uuid == b"GPU-1" else 6

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: Any, total: Any) -> int:
        ctypes.cast(total, ctypes.POINTER(ctypes.c_ulonglong))[0] = self.total
        return self.code


def test_a_gpu_counts_millijoules() -> None:
    library = FakeNvml()
    (meter,) = nvml_meters("GPU-1", library)
    library.total = 7500
    assert meter.used() == 2.5
    library.total = 300  # its driver was loaded again
    assert meter.used() == 0.3
    assert nvml_meters("GPU-2", library) == []
    assert nvml_meters("GPU-1", FakeNvml(code=3)) == []  # not supported by this device


def test_a_counter_with_a_span_turns_once() -> None:
    values = iter([4.0, 1.0])
    meter = Meter("x", lambda: next(values), span=10.0, last=2.0)
    assert [meter.used(), meter.used()] == [2.0, 7.0]
