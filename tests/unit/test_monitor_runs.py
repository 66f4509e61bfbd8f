"""Run folders and the data root as metrics: right, incremental, and safe against what is torn."""

from __future__ import annotations

import errno
import fcntl
import json
import math
import os
import shutil
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from hpc.monitor import tail as tails
from hpc.monitor.data import Data, Journals, read_disk
from hpc.monitor.names import RUNS_SHOWN, TRAIN_STATES
from hpc.monitor.runs import Runs
from hpc.monitor.samples import families, label_text, sample, text
from hpc.monitor.tail import Tail
from preprocess.acquire.journal import open_journal
from preprocess.archive import relative_path
from preprocess.manifest import Entry, write_manifest
from sunpipe.errors import DataError
from sunpipe.lock import running
from sunpipe.paths import Layout
from sunpipe.run import Run

ROW = {"nimg": 2000, "kimg": 2.0, "sec_per_kimg": 10.0, "loss_G": 0.5, "loss_D": None,
       "logits_real": 1.5, "logits_fake": -0.5, "r1_penalty": 0.1, "data_wait_s": 3.0,
       "diversity": 0.9, "rank_work_s": [19.0, 20.0], "rank_peak_memory_bytes": [5e9, 6e9],
       "tick_s": 20.0, "time": 1.7e9}  # fmt: skip
STATUS = {"schema": 1, "state": "running", "time": "2026-11-22T05:45:45+00:00", "nimg": 2000,
          "target": 10_000, "warnings": ["one"], "stage": "train", "job": "17", "world": 2,
          "started": "2026-11-22T05:00:00+00:00", "requeues": 2, "nonfinite": 3, "energy_j": None,
          "checkpoint": {"name": "kimg-000002.000", "time": 1.7e9, "bytes": 123}}  # fmt: skip


def make_run(layout: Layout, name: str = "00000-demo", status: Any = STATUS, rows: Any = (ROW,)
             ) -> Path:  # fmt: skip
    folder = layout.runs / name
    folder.mkdir(parents=True)
    config = {"name": "demo", "train": {"loss": "hinge", "kimg": 99.0},
              "data": {"dataset": "d", "resolution": 32}}  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "status.json").write_text(status if isinstance(status, str) else json.dumps(status))
    (folder / "stats.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def values(layout: Layout) -> dict[tuple[str, ...], float]:
    return {(one.name.removeprefix("sunpipe_"), *one.labels): one.value
            for one in Runs(layout).read()}  # fmt: skip


def test_a_run_is_shown_as_it_is(root: Path) -> None:
    layout = Layout(root)
    folder = make_run(layout)
    metrics = {"nimg": 1, "fd_random": 7.5, "spectrum_db_k4": -1.0, "w1_p99_193": 2, "time": 1.0}
    (folder / "metric-generator.jsonl").write_text(json.dumps(metrics) + "\n")
    found, run = values(layout), "00000-demo"
    assert found["train_info", run, "demo", "train", "d", "32", "hinge", "2", "17", ""] == 1
    assert found["train_state", run, "running"] == 1
    assert found["train_state", run, "failed"] == 0
    assert found["train_kimg", run] == 2
    assert found["train_target_kimg", run] == 10
    assert found["train_eta_seconds", run] == 80
    assert found["train_loss", run, "G"] == 0.5
    assert math.isnan(found["train_loss", run, "D"])  # null in the file: it was not finite
    assert found["train_penalty", run, "r1"] == 0.1
    assert found["train_rank_work_seconds", run, "1"] == 20
    assert found["train_gpu_memory_peak_bytes", run, "1"] == 6e9
    assert found["train_requeues", run] == 2
    assert found["train_nonfinite", run] == 3
    assert found["train_last_checkpoint_timestamp_seconds", run] == 1.7e9
    assert found["train_checkpoint_bytes", run] == 123
    assert found["train_warnings", run] == 1
    assert found["train_metric", run, "fd", "random"] == 7.5
    assert found["train_metric", run, "spectrum_db", "k4"] == -1
    assert found["train_metric", run, "w1", "p99_193"] == 2
    assert ("train_energy_joules", run) not in found  # no device told: no series, no zero
    assert found["collector_faults", "runs"] == 0


def test_runs_of_old_versions_lack_keys_only(root: Path) -> None:
    layout = Layout(root)
    folder = make_run(layout, status={"schema": 1, "state": "done", "nimg": 2000},
                      rows=({"kimg": 1, "time": 100.0}, {"kimg": 2, "time": 130.0,
                             "peak_memory_bytes": 7}))  # fmt: skip
    done = folder / "checkpoints" / "kimg-000002.000" / "COMPLETE"
    done.parent.mkdir(parents=True)
    done.touch()
    found, run = values(layout), "00000-demo"
    assert found["train_tick_seconds", run] == 30
    assert found["train_target_kimg", run] == 99
    assert found["train_gpu_memory_peak_bytes", run, "0"] == 7
    assert found["train_last_checkpoint_timestamp_seconds", run] == done.stat().st_mtime
    assert ("train_requeues", run) not in found
    assert ("train_eta_seconds", run) not in found


@pytest.mark.parametrize("status", [
    "{", "", "[1]", "null", '{"state": {"a": 1}, "requeues": "x", "checkpoint": [1]}',
    '{"state": "running", "target": 1e999, "started": "0001-99-99"}', '{"a": 1, "a": 2}',
])  # fmt: skip
def test_a_damaged_run_costs_itself_only(
    root: Path, status: str, capsys: pytest.CaptureFixture[str]
) -> None:
    layout = Layout(root)
    make_run(layout, "00000-good")
    make_run(layout, "00001-bad", status)
    (make_run(layout, "00002-row") / "stats.jsonl").write_bytes(
        b'\xff\xfe\n[1]\n{"kimg": NaN}\n{"k'
    )
    (layout.runs / "00003-file").touch()
    runs = Runs(layout)
    for _ in range(2):
        found = {(one.name, *one.labels): one.value for one in runs.read()}
        assert found["sunpipe_train_kimg", "00000-good"] == 2
    said = capsys.readouterr().err
    assert said.count("runs: 00001-bad:") <= 1  # named once, not at every reading
    text(runs.read())  # and what is shown can be written


def test_shown_runs_are_bounded_and_running_ones_come_first(root: Path) -> None:
    layout = Layout(root)
    for number in range(RUNS_SHOWN + 10):
        folder = make_run(layout, f"{number:05d}-x", {"state": "done"}, ())
        os.utime(folder / "status.json", (1000.0 + number, 1000.0 + number))
    (layout.runs / "00000-x" / "status.json").write_text('{"state": "running"}')
    shown = {labels[1] for labels in values(layout) if labels[0] == "train_info"}
    assert len(shown) == RUNS_SHOWN
    assert {"00000-x", "00059-x"} <= shown
    assert "00001-x" not in shown


def test_many_ranks_show_their_extremes(root: Path) -> None:
    layout = Layout(root)
    make_run(layout, rows=({**ROW, "rank_work_s": [float(rank) for rank in range(1000)]},))
    work = {key[2]: value for key, value in values(layout).items()
            if key[0] == "train_rank_work_seconds"}  # fmt: skip
    assert work == {"min": 0.0, "max": 999.0}


def test_tail_reads_what_is_new_and_survives_a_rewind(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = Layout(root)
    folder = make_run(layout, rows=[{"nimg": n, "pad": "x" * 50} for n in range(1000)])
    monkeypatch.setattr(tails, "WINDOW", 1000)
    tail = Tail(folder / "stats.jsonl")
    assert [row["nimg"] for row in tail.look()] == [998, 999]
    size = tail._offset
    run = Run(folder)
    run.stats({"nimg": 1000})
    with open(folder / "stats.jsonl", "a") as handle:
        handle.write('{"nimg": 10')  # a line that is being written
    assert [row["nimg"] for row in tail.look()] == [999, 1000]
    assert size < tail._offset < (folder / "stats.jsonl").stat().st_size
    with open(folder / "stats.jsonl", "a") as handle:
        handle.write("01}\n")
    assert [row["nimg"] for row in tail.look()] == [1000, 1001]
    run.rewind_stats(500)
    assert [row["nimg"] for row in tail.look()] == [499, 500]
    run.stats({"nimg": 501, "pad": "x" * 50_000})  # a row longer than the window
    assert [row["nimg"] for row in tail.look()][-1] == 501
    (folder / "stats.jsonl").unlink()
    assert tail.look() == []


def test_names_are_escaped_and_bounded() -> None:
    hostile = 'a"b\\c\nd\x1b[31m\u2028' + "x" * 300
    body = text([sample("sunpipe_train_kimg", 1, run=hostile)])[0].decode()
    (line,) = [line for line in body.split("\n") if line.startswith("sunpipe_train_kimg{")]
    assert line.startswith('sunpipe_train_kimg{run="a\\"b\\\\c?d?[31m')
    assert len(label_text(hostile)) == 128
    with pytest.raises(AssertionError, match="has labels"):
        sample("sunpipe_train_kimg", 1, name="x")


def test_counters_end_in_total_once() -> None:
    (family,) = families([sample("sunpipe_train_requeues", 2, run="a")])
    assert [one.name for one in family.samples] == ["sunpipe_train_requeues_total"]


def entry(record: str, segment: str, state: str, when: str = "2026-01-01") -> Entry:
    name = f"hmi.sharp_cea_720s[{record}][2011.02.15_02:00:00_TAI]"
    return Entry(name, segment, relative_path(name, segment), "", 0, state, "", "", when)


def test_archive_counts_records_with_what_a_running_fetch_writes(root: Path) -> None:
    layout = Layout(root)
    rows = [entry("1", "Br", "fetched"), entry("1", "Bt", "wanted"), entry("2", "Br", "fetched"),
            entry("3", "Br", "missing"), entry("3", "Bt", "fetched")]  # fmt: skip
    layout.archive.mkdir()
    write_manifest(layout.archive, {one.key: one for one in rows})

    def counts() -> dict[str, float]:
        return {(one.labels or (one.name,))[0]: one.value for one in data.read()}

    data = Data(layout)
    before = counts()
    assert (before["wanted"], before["fetched"], before["missing"]) == (1, 1, 1)
    assert before["sunpipe_fetch_running"] == 0
    with open_journal(layout.archive) as journal:
        journal.write([entry("1", "Bt", "fetched", "2026-01-02"), entry("4", "Br", "failed")])
        during = counts()
        assert (during["wanted"], during["fetched"], during["failed"]) == (0, 2, 1)
        assert during["sunpipe_fetch_running"] == 1
        assert abs(during["sunpipe_fetch_last_change_timestamp_seconds"] - time.time()) < 60
    assert counts()["sunpipe_fetch_running"] == 0


def test_datasets_indices_and_a_damaged_one(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    layout = Layout(root)
    folder = layout.shards("good")
    folder.mkdir(parents=True)
    (folder / "dataset.json").write_text(
        json.dumps({"shards": {"shard-00000.h5": ""}, "counts": {"train": 5, "test": "x"}})
    )
    (layout.root / "shards" / ".building-new").mkdir()
    (layout.root / "shards" / ".building-new" / "shard-00000.h5").touch()
    for name, content in (("good", '{"count": 7}'), ("bad", "{"), ("odd", "[1]")):
        layout.index(name).mkdir(parents=True)
        (layout.index(name) / "index.json").write_text(content)
    found = {(one.name, *one.labels): one.value for one in Data(layout).read()}
    assert found["sunpipe_shards", "good", "complete"] == 1
    assert found["sunpipe_shards", "new", "building"] == 1
    assert found["sunpipe_shard_records", "good", "train"] == 5
    assert ("sunpipe_shard_records", "good", "test") not in found
    assert found["sunpipe_index_vectors", "good"] == 7
    assert found["sunpipe_collector_faults", "data"] == 2
    assert "index/bad" in capsys.readouterr().err


def test_disk_of_the_root(root: Path) -> None:
    found = {one.name: one.value for one in read_disk(Layout(root))}
    assert 0 < found["sunpipe_disk_free_bytes"] <= found["sunpipe_disk_size_bytes"]


def test_a_root_that_is_gone_is_no_empty_one(root: Path) -> None:
    gone = Layout(root / "none")
    for read in (Runs(gone).read, Data(gone).read, lambda: read_disk(gone)):
        with pytest.raises(DataError, match="none does not exist; set SUNPIPE_ROOT"):
            read()
    shutil.rmtree(root / "runs", ignore_errors=True)
    runs = Runs(Layout(root))
    assert len(runs.read()) == 1  # nothing has begun yet
    make_run(Layout(root))
    runs.read()
    shutil.rmtree(root / "runs")  # as a mount point shows itself when its file system goes
    with pytest.raises(DataError, match="was there, and is gone"):
        runs.read()


GONE: dict[str, str] = {}


@pytest.mark.parametrize(
    ("jobs", "ago", "more", "state"),
    [(GONE, 300, {}, "lost"), (None, 300, {}, "running"), ({"17": "running"}, 9e4, {}, "running"),
     ({"17": "pending"}, 300, {}, "stopped"), ({"17": "suspended"}, 300, {}, "stopped"),
     ({"17": "stopped"}, 300, {}, "running"),  # with SIGSTOP: it hangs
     (GONE, 30, {}, "running"),  # it may just have begun
     (GONE, 300, {"tick_s": 200.0}, "running"), (GONE, 300, {"state": "done"}, "done"),
     (GONE, 300, {"job": None, "host": "elsewhere"}, "running"),
     (GONE, 300, {"job": None, "host": socket.gethostname()}, "lost")],
)  # fmt: skip
def test_a_run_that_says_it_runs_and_does_not(
    root: Path, jobs: dict[str, str] | None, ago: float, more: dict[str, Any], state: str
) -> None:
    layout = Layout(root)
    row = {**ROW, "tick_s": more.pop("tick_s", 20.0)}
    folder = make_run(layout, status={**STATUS, **more}, rows=(row,))
    make_run(layout, "00001-alive", status={**STATUS, "job": "18"})
    lock = layout.root / "locks" / "train-demo.lock"
    lock.parent.mkdir()
    lock.touch()
    for name in ("status.json", "stats.jsonl"):
        os.utime(folder / name, (time.time() - ago,) * 2)
    found = Runs(layout, lambda: None if jobs is None else {**jobs, "18": "running"}).read()
    states = {one.labels: one.value for one in found if one.name == "sunpipe_train_state"}
    shown = [name for name in TRAIN_STATES if states["00000-demo", name]]
    assert shown == [state]
    assert states["00001-alive", "running"] == 1
    left = {one.labels[0] for one in found if one.name == "sunpipe_train_eta_seconds"}
    assert ("00000-demo" in left) is (state == "running")
    if state == "lost":  # it goes behind those that live
        assert found[0].labels[0] == "00001-alive"


def test_a_run_whose_lock_is_held_lives(root: Path) -> None:
    layout = Layout(root)
    status = {**STATUS, "job": None, "host": socket.gethostname(), "stage": "ssl"}
    folder = make_run(layout, "00000-demo-ssl", status=status)
    for name in ("status.json", "stats.jsonl"):
        os.utime(folder / name, (1e9, 1e9))
    with running(layout, "ssl", "demo"):
        assert values(layout)["train_state", "00000-demo-ssl", "running"] == 1
    assert values(layout)["train_state", "00000-demo-ssl", "lost"] == 1


def test_journals_are_looked_at_and_not_locked(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = Layout(root)
    with open_journal(layout.archive) as journal:
        other = journal.path.with_name("node7-1-abcdef01.jsonl")  # of a machine that is not this
        other.touch()
        tried: list[str] = []
        flock = fcntl.flock

        def noted(handle: Any, how: int) -> None:
            tried.append(Path(handle.name).name)
            flock(handle, how)

        monkeypatch.setattr(fcntl, "flock", noted)
        journals = Journals()
        for _ in range(3):
            assert journals.living([journal.path, other]) == 1
        assert tried == [other.name]  # once only, then it is known to be dead
        with open(other, "ab") as handle:
            flock(handle, fcntl.LOCK_EX)
            assert Journals().living([journal.path, other]) == 2

        def none(handle: Any, how: int) -> None:
            raise OSError(errno.ENOLCK, "no locks")

        monkeypatch.setattr(fcntl, "flock", none)
        assert Journals().living([journal.path, other]) is None
        found = [one.name for one in Data(layout).read()]
        monkeypatch.undo()
        other.unlink()
    assert "sunpipe_fetch_records" in found
    assert "sunpipe_fetch_running" not in found
