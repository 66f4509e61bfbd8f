"""``sunpipe status``: runs from their folders, old, half-written and hostile ones too."""

from __future__ import annotations

import json
import os
import socket
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from hpc.status import alive, files, find, pace, runs, table
from hpc.status.find import read_runs
from hpc.status.jobs import Queue
from hpc.status.runs import RunLine, read_run
from hpc.status.text import duration, plain
from sunpipe.errors import DataError
from sunpipe.lock import exclusive

NOW = 1_800_000_000.0


def stamp(ago: float) -> str:
    return datetime.fromtimestamp(NOW - ago, UTC).isoformat(timespec="seconds")


def make_run(root: Path, folder: str = "00000-tiny", ago: float = 30.0, **status: Any) -> Path:
    """A run folder as a training leaves it, its last tick some seconds ago."""
    run = root / "runs" / folder
    (run / "checkpoints/kimg-000010.000").mkdir(parents=True)
    (run / "checkpoints/kimg-000010.000/COMPLETE").touch()
    (run / "checkpoints/kimg-000012.000").mkdir()  # half written
    os.utime(run / "checkpoints/kimg-000010.000/COMPLETE", (NOW - 600, NOW - 600))
    told = {"schema": 1, "state": "running", "time": stamp(ago), **status}
    (run / "status.json").write_text(json.dumps(told))
    rows = [{"nimg": n * 1000, "kimg": n, "sec_per_kimg": 20.0, "tick_s": 40.0,
             "time": NOW - ago - 40 * (12 - n)} for n in range(1, 13)]  # fmt: skip
    (run / "stats.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (run / "config.json").write_text(json.dumps({"train": {"kimg": 100.0}}))
    for name in ("stats.jsonl", "status.json", "config.json"):
        os.utime(run / name, (NOW - ago, NOW - ago))
    return run


def test_a_run_that_runs(root: Path) -> None:
    run = make_run(root, nimg=12000, target=20000, job="7", host="n1", requeues=2, nonfinite=3,
                   warnings=["D is winning"],
                   checkpoint={"name": "kimg-000011.000", "time": NOW - 100})  # fmt: skip
    line = read_run(run, {"7": ""}, NOW)
    assert (line.state, line.kimg, line.target_kimg, line.seconds_per_kimg) == (
        "running", 12.0, 20.0, 20.0)  # fmt: skip
    assert line.left_s == pytest.approx(8 * 20.0)
    assert (line.checkpoint, line.checkpoint_age_s) == ("kimg-000011.000", 100.0)
    assert (line.requeues, line.nonfinite, line.warnings) == (2, 3, ["D is winning"])
    assert line.share == pytest.approx(0.6)
    assert line.silent_s == pytest.approx(30.0)


def test_a_run_of_before_has_fewer_facts(root: Path) -> None:
    line = read_run(make_run(root, nimg=12000), None, NOW)
    assert (line.state, line.target_kimg) == ("running", 100.0)  # from its configuration
    assert (line.checkpoint, line.checkpoint_age_s) == ("kimg-000010.000", 600.0)
    assert (line.job, line.host, line.requeues) == (None, None, 0)
    done = read_run(make_run(root, "00001-b", state="done", nimg=12000), None, NOW)
    assert (done.target_kimg, done.share, done.left_s) == (12.0, 1.0, None)
    old_ssl = make_run(root, "00002-b-ssl", state="failed", total=60000, reason="collapsed")
    (old_ssl / "config.json").write_text(json.dumps({"kind": "ssl", "ssl": {"kimg": 9}}))
    line = read_run(old_ssl, None, NOW)
    assert (line.stage, line.state, line.target_kimg, line.note) == (
        "ssl", "failed", 60.0, "collapsed")  # fmt: skip


@pytest.mark.parametrize(
    ("status", "jobs", "ago", "note"),
    [({"job": "7"}, {"8": ""}, 90, "job 7 is not in the queue any more"),
     ({"job": "7"}, {"7": ""}, 30, ""),
     ({"job": "7"}, None, 30, ""),  # Slurm does not tell
     ({"job": "7"}, {"7": ""}, 4000, "silent for 1:06:40, though job 7 is there"),
     ({}, {"8": ""}, 4000, "silent for 1:06:40"), ({}, None, 300, "")],
)  # fmt: skip
def test_a_run_that_says_it_runs_and_does_not(
    status: dict[str, str], jobs: dict[str, str] | None, ago: float, note: str, root: Path
) -> None:
    line = read_run(make_run(root, ago=ago, nimg=12000, host="elsewhere", **status), jobs, NOW)
    assert line.note == note
    assert line.state == ("lost?" if note else "running")
    assert (line.left_s is None) == bool(note)


def test_a_run_of_somebody_else_is_not_in_my_queue(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: dict[str, Any] = {"nimg": 12000, "job": "7", "host": "elsewhere"}
    run = make_run(root, ago=300, **told)
    stopped = make_run(root, "00001-x", state="stopped", requeued=True, **told)
    assert read_run(run, {}, NOW).state == "lost?"
    monkeypatch.setattr(runs.os, "getuid", lambda: run.stat().st_uid + 1)
    line = read_run(run, {}, NOW)
    assert (line.state, line.note) == ("running", "")
    assert line.left_s is not None
    assert read_run(stopped, {}, NOW).note == "on request; Slurm starts it again"
    assert read_run(make_run(root, "00002-x", ago=4000, **told), {}, NOW).state == "lost?"


def test_a_run_that_writes_lives_whatever_this_queue_says(root: Path) -> None:
    line = read_run(make_run(root, ago=5, job="7", host="elsewhere"), {}, NOW)
    assert line.state == "running"
    assert line.note == "job 7 is not in this queue, but files changed 5 s ago"


@pytest.mark.parametrize("ago", [30, 40_000])
def test_a_run_whose_job_waits_to_start_again_is_neither_running_nor_lost(
    ago: float, root: Path
) -> None:
    run = make_run(root, ago=ago, nimg=12000, target=20000, job="7", host="elsewhere")
    line = read_run(run, {"7": "starts again after a requeue, in 1:40"}, NOW)
    assert (line.state, line.left_s) == ("waiting", None)
    assert line.note == "job 7 waits: starts again after a requeue, in 1:40"
    cells = table.run_cells(line)
    assert cells[2] == "waiting"


def rows_of(*ticks: tuple[int, float]) -> list[dict[str, Any]]:
    """Rows of ticks of so many images at so many seconds per kimg."""
    done, rows = 0, []
    for images, seconds in ticks:
        done += images
        rows.append({"nimg": done, "sec_per_kimg": seconds, "tick_s": seconds * images / 1000})
    return rows


def test_a_tick_of_a_batch_does_not_set_the_pace(root: Path) -> None:
    rows = rows_of(*[(2000, 15.0)] * 6, (2000, 17.0), (16, 554.0))
    assert pace.usual_pace(rows) == 15.0
    assert pace.usual_tick(rows) == 34.0
    assert pace.usual_pace(rows_of((2000, 15.0), (16, 554.0))) == 15.0
    assert pace.usual_pace(rows_of((16, 554.0))) == 554.0  # better than nothing
    back = rows_of((2000, 15.0), (2000, 16.0), (-1000, 30.0), (2000, 17.0))
    assert pace.usual_pace(back) == 16.0  # a continuation begins at its checkpoint
    assert (pace.usual_pace([]), pace.usual_tick([])) == (None, None)
    assert pace.usual_pace([{"nimg": "x"}, {"nimg": 5, "sec_per_kimg": None}]) is None
    run = make_run(root, nimg=12016, target=20016, host="elsewhere")
    with open(run / "stats.jsonl", "a") as handle:
        handle.write(json.dumps({"nimg": 12016, "sec_per_kimg": 900.0, "tick_s": 14.0}) + "\n")
    line = read_run(run, None, NOW)
    assert (line.kimg, line.seconds_per_kimg, line.left_s) == (12.016, 20.0, 160.0)


def test_slow_runs_may_be_silent_for_longer() -> None:
    assert alive.sign_of_life(None, None, None, 1000, 300) == ""
    assert alive.sign_of_life(None, None, None, 1000, 40) == "silent for 16:40"
    assert alive.sign_of_life(None, None, True, 10**6, 40) == ""  # its lock is held
    assert "lock" in alive.sign_of_life(None, None, False, 1, 40)


def test_a_lock_that_a_process_holds_is_seen_and_not_taken(root: Path) -> None:
    lock = root / "locks/train-tiny.lock"
    run = make_run(root, nimg=12000, host=socket.gethostname())
    assert alive.lock_held(lock) is None
    with exclusive(lock, "x"):
        held = alive.lock_held(lock)
        assert read_run(run, None, NOW).state == "running"
    free = alive.lock_held(lock)
    # None: an overlay may hide the number that the kernel lists a lock by
    assert (held, free) in ((True, False), (True, None), (None, None))
    assert read_run(run, None, NOW).state == ("lost?" if free is False else "running")


def test_a_stop_says_whether_it_goes_on(root: Path) -> None:
    told: dict[str, Any] = {"state": "stopped", "nimg": 12000, "signal": "SIGUSR2", "job": "7"}
    run = make_run(root, requeued=True, **told)
    assert read_run(run, {"7": ""}, NOW).note == "by SIGUSR2; Slurm starts it again"
    assert read_run(run, {}, NOW).note == "by SIGUSR2; its job 7 is gone, start it again"
    run = make_run(root, "00001-x", requeued=False, **told)
    assert read_run(run, {"7": ""}, NOW).note == "by SIGUSR2"


@pytest.mark.parametrize(
    "content",
    ["", "{", '{"state": "runn', "[]", "null", '{"state": NaN}', '"x"', "\x00\xff", "[" * 100_000,
     '{"state": {"a": 1}, "nimg": "12", "target": true, "checkpoint": [], "warnings": {"a": 1},'
     ' "requeues": "x", "time": 7, "job": {}, "host": [1], "reason": ["x"], "stage": 3}',
     '{"state": "running", "nimg": 1e999, "target": -5, "time": "0001-01-01T00:00:00",'
     ' "checkpoint": {"time": "x"}, "requeues": -3}',
     '{"state": "failed", "reason": "\\u001b[2J\\u202e\\nx", "nimg": 1, "host": "\\u0007"}'],
)  # fmt: skip
def test_a_damaged_status_breaks_nothing(content: str, root: Path) -> None:
    run = make_run(root)
    (run / "status.json").write_text(content, errors="surrogateescape")
    (run / "config.json").write_text(content, errors="surrogateescape")
    with open(run / "stats.jsonl", "a") as handle:
        handle.write('[]\n{"nimg": NaN, "sec_per_kimg": "x"}\n{"half')
    line = read_run(run, {"7": ""}, NOW)
    said = json.dumps(line.as_json(), allow_nan=False)
    assert "\\u001b" not in said
    lines = table.plain_lines([line], Queue("ok", [], [], {}), 0, "/r")
    assert not any(ord(one) < 32 for one in "".join(lines))


def test_hostile_folders_break_nothing(root: Path) -> None:
    folder = root / "runs"
    make_run(root, "00000-\x1b[31mred\n")
    (folder / "00001-file").touch()
    (folder / "00002-loop").symlink_to("00002-loop")
    (folder / "00003-empty").mkdir()
    pipes = folder / "00004-pipes"
    pipes.mkdir()
    for name in ("status.json", "stats.jsonl", "config.json"):
        os.mkfifo(pipes / name)
    folders = folder / "00005-folders"
    (folders / "status.json").mkdir(parents=True)
    (folders / "stats.jsonl").symlink_to("stats.jsonl")
    (folders / "checkpoints").symlink_to("/dev/null")
    (folder / "notes").mkdir()
    found = read_runs(folder, [], None, NOW)
    assert {line.run.partition("-")[0] for line in found} == {"00000", "00003", "00004", "00005"}
    assert all("\x1b" not in line.run and "\n" not in line.run for line in found)
    assert read_runs(root / "none", [], None, NOW) == []


def test_runs_are_found_by_name_number_or_folder(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("00000-a", "00001-b", "00002-a"):
        make_run(root, name)
    folder = root / "runs"

    def names(*asked: str) -> list[str]:
        return sorted(line.run for line in read_runs(folder, asked, None, NOW))

    assert names("a") == ["00000-a", "00002-a"]
    assert names("runs/00001-b") == names("1") == names("00001-b") == ["00001-b"]
    assert names("2", "a") == ["00000-a", "00002-a"]
    for asked in ("c", "7", ""):
        with pytest.raises(DataError, match=r"no run '.*: 00000-a, 00001-b, 00002-a"):
            names(asked)
    # of another data root: read there, and refused where it does not exist
    other = make_run(tmp_path / "other", "00000-a", nimg=77000)
    (line,) = read_runs(folder, [str(other)], None, NOW)
    assert (line.run, line.kimg) == ("00000-a", 77.0)
    for path in (tmp_path / "other/runs/00001-b", tmp_path, root / "runs"):
        with pytest.raises(DataError, match="is not the folder of a run"):
            names(str(path))
    monkeypatch.chdir(other)
    assert [line.kimg for line in read_runs(folder, ["."], None, NOW)] == [77.0]
    (other.parent / "00007-z").mkdir()
    (other.parent / "00007-z/config.json").write_text("{}")
    monkeypatch.chdir(other.parent)
    assert names("00007-z") == ["00007-z"]
    (line,) = read_runs(folder, ["00000-a"], None, NOW)
    assert line.kimg == 12.0  # a name is first one of this data root


def test_those_that_run_or_are_lost_come_first() -> None:
    made = [RunLine(f"{n}", "train", state, changed=n)
            for n, state in enumerate(("lost?", "done", "running", "failed"))]  # fmt: skip
    assert [line.run for line in find.order(made)] == ["2", "0", "3", "1"]


def bytes_read() -> int:
    """What this process has read so far, by the kernel's own count."""
    rows = Path("/proc/self/io").read_text().splitlines()
    return int(dict(row.split(": ") for row in rows)["rchar"])


def test_only_the_ends_of_long_runs_are_read(root: Path) -> None:
    run = make_run(root)
    row = (run / "stats.jsonl").read_bytes().splitlines(keepends=True)[-1]
    long = root / "long.jsonl"
    long.write_bytes(row * (20 * 2**20 // len(row)))
    for number in range(1, 50):
        other = make_run(root, f"{number:05d}-x")
        (other / "stats.jsonl").unlink()
        os.link(long, other / "stats.jsonl")
    before = bytes_read()
    found = read_runs(root / "runs", [], {}, NOW)
    taken = bytes_read() - before
    assert len(found) == 50
    assert all(line.kimg == 12.0 for line in found)
    assert 49 * files.TAIL_BYTES <= taken < 60 * files.TAIL_BYTES  # of 980 MiB


def test_only_the_end_of_a_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text("".join(f'{{"n": {n}}}\n' for n in range(1000)))
    assert [row["n"] for row in files.last_rows(path, 30)] == [998, 999]
    assert len(files.last_rows(path)) == 1000
    path.write_text("sunpipe: no disk\n\nsrun: error: n1: task 0: Exited with exit code 1\n")
    assert files.last_words(path) == "sunpipe: no disk"
    path.write_text("srun: error: killed\n")
    assert files.last_words(path) == "srun: error: killed"
    assert files.last_words(tmp_path / "none") == ""


def test_tables_fit_their_terminal(root: Path) -> None:
    run = make_run(root, "00000-a_name_of_sixty_letters_that_goes_on_and_on_and_on_and_on_to_60",
                   nimg=12345678, target=25000000, job="7", requeues=2,
                   warnings=["the discriminator wins"])  # fmt: skip
    line = read_run(run, {"7": ""}, NOW)
    queue = Queue("ok", [], [], {"7": ""})
    for width in (80, 120):
        lines = [text.plain for text in table.tables([line], queue, 3, "/r", width)]
        assert max(map(len, lines)) <= width, lines
        assert "12,346/25,000" in lines[1]
        assert "warning: the discriminator wins" in lines[2]
        assert "3 older runs: --all" in lines[3]
    assert "#####-------" in lines[1]
    assert "requeues" in lines[0]


def test_words_for_people() -> None:
    assert [duration(s) for s in (-3, 45, 100, 11229, 190000)] == [
        "0 s", "45 s", "1:40", "3:07:09", "2 d 4 h"]  # fmt: skip
    assert plain("a\x1b[31m\nb\u202ec") == "a\ufffd[31m b\ufffdc"
    assert plain("x" * 500, 10) == "xxxxxxx..."
    assert [table.figure(n) for n in (None, 3.79425, 554.16, 12345.6, 0.008)] == [
        "", "3.79", "554", "12,346", "0.008"]  # fmt: skip
    assert table.bar(0.5, 4) == "[##--]"
