"""``sunpipe status``: which runs live, where clocks, locks and Slurm do not say it plainly."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from hpc.status import alive, runs
from hpc.status.runs import read_run
from hpc.status.why import why_idle, why_pending
from tests.unit.test_status import NOW, make_run
from tests.unit.test_status_jobs import job

HOUR = 3600.0


@pytest.mark.parametrize(
    ("state", "words"),
    [("suspended", "scontrol resume 7"), ("stopped", "scancel --signal=CONT 7"),
     ("configuring", "its nodes are being started"), ("running", ""), ("completing", "")],
)  # fmt: skip
def test_a_job_that_has_nodes_and_does_nothing_says_why(state: str, words: str) -> None:
    assert why_idle(job(state=state)).endswith(words)
    assert bool(why_idle(job(state=state))) == bool(words)


@pytest.mark.parametrize("ago", [30, 40_000])
def test_a_run_whose_job_is_suspended_waits(ago: float, root: Path) -> None:
    run = make_run(root, ago=ago, nimg=12000, target=20000, job="7", host="elsewhere")
    line = read_run(run, {"7": why_idle(job(state="suspended"))}, NOW)
    assert (line.state, line.left_s) == ("waiting", None)
    assert line.note.startswith("job 7 waits: suspended by Slurm or an administrator")


def test_a_job_that_is_held_is_not_expected() -> None:
    for reason in ("JobHeldUser", "job requeued in held state"):
        said = why_pending(job(reason=reason, started=NOW + 9), NOW)
        assert said.endswith("scontrol release 7")


def test_a_stop_whose_job_is_held_is_not_started_again_by_itself(root: Path) -> None:
    run = make_run(root, state="stopped", requeued=True, signal="SIGUSR2", job="7")
    why = why_pending(job(reason="JobHeldUser"), NOW)
    assert read_run(run, {"7": why}, NOW).note == (
        "by SIGUSR2; its job 7 waits: held by you: scontrol release 7")  # fmt: skip


def test_files_of_the_future_are_no_sign_of_life(root: Path) -> None:
    """The node's clock was an hour ahead; its job is gone."""
    told: dict[str, Any] = {"nimg": 12000, "job": "7", "host": "elsewhere"}
    run = make_run(root, ago=-HOUR, **told)
    line = read_run(run, {}, NOW)
    assert (line.state, line.silent_s) == ("lost?", None)
    assert line.note == ("job 7 is not in the queue any more; its files are dated 1:00:00 ahead of"
                         " this clock")  # fmt: skip
    json.dumps(line.as_json(), allow_nan=False)
    line = read_run(run, {"7": ""}, NOW)
    assert (line.state, line.note) == ("running", "its files are dated 1:00:00 ahead of this clock")
    # the file server's clock is right: it tells how long ago the last sign was
    os.utime(run / "stats.jsonl", (NOW - 300, NOW - 300))
    line = read_run(run, {}, NOW)
    assert (line.state, line.silent_s) == ("lost?", 300.0)
    os.utime(run / "stats.jsonl", (NOW - 20, NOW - 20))
    assert read_run(run, {}, NOW).state == "running"  # it writes: another cluster's job
    done = make_run(root, "00001-x", ago=-HOUR, state="done")
    assert read_run(done, {}, NOW).note == ""


def test_clocks_that_differ_by_seconds_are_no_news(root: Path) -> None:
    line = read_run(make_run(root, ago=-2, job="7", host="elsewhere"), {"7": ""}, NOW)
    assert (line.state, line.note, line.silent_s) == ("running", "", 0.0)


def test_a_copy_of_a_run_is_as_old_as_the_run(root: Path) -> None:
    run = make_run(root, ago=HOUR, state="done")
    for path in (*run.iterdir(), run / "checkpoints/kimg-000010.000/COMPLETE"):
        os.utime(path, (NOW - 1, NOW - 1))
    line = read_run(run, None, NOW)
    assert (line.silent_s, line.changed, line.checkpoint_age_s) == (HOUR, NOW - HOUR, HOUR)
    live = make_run(root, "00001-x", ago=HOUR, host="elsewhere")
    os.utime(live / "stats.jsonl", (NOW - 1, NOW - 1))
    assert read_run(live, None, NOW).silent_s == 1.0  # there each file is a sign


def tables(path: Path, kind: str, device: str | None = None) -> tuple[str, str]:
    """``/proc/locks`` with a lock on `path`, and a table of mounts with its file system.

    Whatever this machine's is: its device is that of stat(2), if it is not given.
    """
    there = path.stat()
    major, _, minor = (device or f"{os.major(there.st_dev)}:{os.minor(there.st_dev)}").partition(
        ":"
    )
    held = f"1: FLOCK  ADVISORY  WRITE 7 {int(major):02x}:{int(minor):02x}:{there.st_ino} 0 EOF\n"
    mount = f"{alive._mount_id(path)} 1 {major}:{minor} / / rw,relatime shared:1 - {kind} x rw\n"
    return held, f"1 0 0:1 / /proc rw - proc proc rw\n{mount}"


@pytest.mark.parametrize(
    ("kind", "device", "free"),
    [("ext4", None, False), ("btrfs", "0:251", False),  # a device that stat(2) does not give
     ("overlay", None, False), ("overlay", "0:251", None)],
)  # fmt: skip
def test_a_lock_is_found_by_the_device_of_its_file_system(
    kind: str, device: str | None, free: bool | None, tmp_path: Path
) -> None:
    lock = tmp_path / "lock"
    lock.touch()
    held, mounts = tables(lock, kind, device)
    assert alive.lock_held(lock, held, mounts) is True
    assert alive.lock_held(lock, held.replace("FLOCK", "POSIX"), mounts) is free
    assert alive.lock_held(lock, f"1: -> {held[3:]}", mounts) is free  # it only waits for it
    assert alive.lock_held(lock, "", mounts) is free
    assert alive.lock_held(lock, "", "") is None  # its mount is not in the table
    assert alive.lock_held(lock) in (False, None)  # this machine's, as it is
    assert alive.lock_held(tmp_path / "none") is None


def test_a_lock_that_is_not_told_leaves_it_to_the_silence(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(root, nimg=12000, host=runs.socket.gethostname())
    for told, state in ((False, "lost?"), (True, "running"), (None, "running")):
        monkeypatch.setattr(runs, "lock_held", lambda *_, told=told: told)
        assert read_run(run, None, NOW).state == state
