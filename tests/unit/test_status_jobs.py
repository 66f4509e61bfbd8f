"""Jobs in ``sunpipe status``: why they wait, and the line that runs what failed again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from hpc.slurm_query import Job
from hpc.status import again, jobs, table
from hpc.status.again import Ended
from hpc.status.cli import status
from hpc.status.why import why_pending
from hpc.submitted import remember
from sunpipe.errors import DataError, UsageError
from sunpipe.files import write_json

NOW = datetime.now(UTC).timestamp()


def job(number: str = "7", state: str = "pending", **more: Any) -> Job:
    given: dict[str, Any] = {
        "id": number, "job": number, "array": number.partition("_")[0], "user": "me",
        "partition": "gpu", "state": state, "reason": "None", "nodes": 2, "cpus": 2,
        "node_list": "", "submitted": NOW - 60, "started": None, "ends": None, "limit": 3600.0,
        "left": 3600.0, "dependency": "", "gres": "", "name": "sunpipe-train", **more,
    }  # fmt: skip
    return Job(**given)


@pytest.mark.parametrize(
    ("reason", "more", "words"),
    [("Priority", {}, "others are before it in the queue"),
     ("Resources", {"started": NOW + 100}, "next in the queue; waits for nodes to become free;"
      " expected in 1:40"),
     ("Resources", {"started": NOW - 5}, "next in the queue; waits for nodes to become free"),
     ("Dependency", {"dependency": "afterok:12_*(unfulfilled),afterok:14(unfulfilled)"},
      "waits for job 12, job 14"),
     ("DependencyNeverSatisfied", {}, "a job before it failed: cancel it and submit again"),
     ("JobHeldUser", {}, "held by you: scontrol release 7"),
     ("QOSMaxJobsPerUserLimit", {}, "a limit of your QOS is reached (QOSMaxJobsPerUserLimit)"),
     ("AssocGrpGRES", {}, "a limit of your account is reached (AssocGrpGRES)"),
     ("ReqNodeNotAvail, UnavailableNodes:n[1-2]", {}, "nodes it needs are down, drained or"
      " reserved"),
     ("Nodes_\x1b[31mX", {}, "Slurm says: Nodes_\ufffd[31mX")],
)  # fmt: skip
def test_why_a_job_waits(reason: str, more: dict[str, Any], words: str) -> None:
    assert why_pending(job(reason=reason, **more), NOW) == words


def test_a_requeued_job_starts_again_by_itself() -> None:
    waits = job(reason="BeginTime", started=NOW + 100)
    assert why_pending(waits, NOW, 1) == "starts again after a requeue, in 1:40"
    assert why_pending(waits, NOW) == "starts at the time asked for, in 1:40"


def test_a_job_as_a_line() -> None:
    line = jobs.job_line(job(state="running", started=NOW - 7200, left=1800.0, node_list="n[1-2]"),
                         1, NOW)  # fmt: skip
    assert (line.stage, line.elapsed_s, line.restarts, line.why) == ("train", 7200.0, 1, "")
    assert jobs.time_words(line) == "2:00:00, 30:00 left"
    line = jobs.job_line(job("7_[1-4]", reason="Priority", tasks=4), 0, NOW)
    queue = jobs.Queue("ok", [line], [], frozenset())
    cells, why = table.job_cells(queue)[0]
    assert cells[:3] == ("7_[1-4] (4 tasks)", "train", "pending")
    assert why == "others are before it in the queue"


def submit(root: Path, number: str, argv: list[list[str]], stage: str = "embed") -> Path:
    """What `hpc.launch.submit` leaves."""
    folder = root / "slurm"
    folder.mkdir(exist_ok=True)
    write_json(folder / f"arguments-{number}.json", argv[0])
    remember(folder, stage, "tiny", number, argv)
    return folder


def parts(count: int, *more: str) -> list[list[str]]:
    return [["embed", "--config", "/a b/x.toml", "--set", "ssl.dim=8", "--part", f"{n}/{count}",
             *more] for n in range(1, count + 1)]  # fmt: skip


def test_failed_tasks_are_told_with_log_and_the_line_for_just_them(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUNPIPE_CLUSTER", "/p.toml")
    folder = submit(root, "7", parts(4, "--anew"))
    (folder / "7_1_0_log.out").write_text("sunpipe: shard-00001.h5 is damaged\nsrun: error: x\n")
    states = [job(f"7_{n}", "failed" if n in (1, 3) else "completed", name="sunpipe-embed")
              for n in range(4)]  # fmt: skip
    (found,) = again.failures(root, states, NOW)
    assert (found.id, found.stage, found.state, found.tasks) == ("7", "embed", "failed",
                                                                 ["2/4", "4/4"])  # fmt: skip
    assert found.log == str(folder / "7_1_0_log.out")
    assert found.words == "sunpipe: shard-00001.h5 is damaged"
    assert found.again == (
        "for part in 2/4 4/4; do sunpipe launch embed -c '/a b/x.toml' --set ssl.dim=8"
        " --part $part -- --anew; done"
    )
    submit(root, "8", parts(4, "--anew")[1:2])  # one of the two was submitted again
    (found,) = again.failures(root, [*states, job("8", "running")], NOW)
    assert found.tasks == ["4/4"]
    assert found.again.endswith("--part 4/4 -- --anew")
    submit(root, "9", parts(4))  # and then all of them
    assert again.failures(root, [*states, job("9_0", "running")], NOW) == []


def test_old_torn_and_foreign_submissions_are_left_out(root: Path) -> None:
    folder = submit(root, "7", [["train"]], "train")
    with open(folder / "submitted.jsonl", "a") as handle:
        for row in ({"stage": "rm -rf", "name": "x", "job": "8", "tasks": [{"log": "x"}]},
                    {"stage": "embed", "name": "x", "job": "8;rm", "tasks": [{"log": "x"}]},
                    {"stage": "embed", "name": "x", "job": "8", "tasks": [{"log": 3}]},
                    {"stage": "embed", "name": [], "job": "8", "tasks": []}):  # fmt: skip
            handle.write(json.dumps(row) + "\n")
        handle.write('{"stage": "emb')
    (found,) = again.failures(root, [job("7", "timeout")], NOW)
    assert (found.id, found.state, found.tasks) == ("7", "timeout", [])
    assert again.failures(root, [job("7", "timeout")], NOW + 8 * 86400) == []
    assert again.failures(root, [job("7", "completed")], NOW) == []
    assert again.failures(root, [], NOW) == []


def test_accounting_remembers_what_the_queue_forgot(
    root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    submit(root, "7", parts(2))
    program = tmp_path / "bin/sacct"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\nprintf "7_0|COMPLETED\\n'
                       '7_1|CANCELLED by 0\\n7_1|OUT_OF_MEMORY\\n"\n')  # fmt: skip
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setattr(again, "_ASKED", set())
    monkeypatch.setattr(again, "_TOLD", {})
    for _ in range(2):  # a watch asks once
        (found,) = again.failures(root, [], NOW)
        assert (found.tasks, found.state) == (["2/2"], "out_of_memory")
    assert (tmp_path / "asked").read_text().count("--jobs 7 ") == 1


def test_tasks_of_plain_arrays_keep_their_number_of_parts() -> None:
    assert again._sbatch_again("jobs/embed.sh -c x.toml", [3], 4) == (
        "SUNPIPE_PARTS=4 sbatch --array=3 jobs/embed.sh -c x.toml")  # fmt: skip
    assert again._sbatch_again("jobs/report.sh", [], 1) == "sbatch jobs/report.sh"


def test_failures_in_the_table() -> None:
    one = Ended("7", "embed", "failed", ["2/4"], "/log", "words", "line")
    queue = jobs.Queue("squeue does not answer", [], [one], None)
    lines = table.plain_lines([], queue, 0, "/r")
    assert lines[0] == "no runs under /r/runs"
    assert "job 7 embed parts 2/4: failed" in lines
    assert lines[-1] == "jobs are not shown: squeue does not answer"
    texts = [text.plain for text in table.tables([], queue, 0, "/r", 80)]
    assert "  again: line" in texts


def test_without_slurm_runs_are_shown(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(root))
    queue = jobs.read_queue(root, NOW)
    assert (queue.state, queue.numbers, queue.jobs) == ("none", None, [])
    slow = root / "squeue"
    slow.write_text("#!/bin/sh\nexec /bin/sleep 30\n")
    slow.chmod(0o755)
    monkeypatch.setattr(jobs, "PATIENCE_S", 0.3)
    assert "no answer" in jobs.read_queue(root, NOW).state


def test_the_command(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(root))
    (root / "runs/00000-x").mkdir(parents=True)
    status(json_=True)
    found = json.loads(capsys.readouterr().out)
    assert (found["slurm"], found["runs"][0]["run"], found["runs"][0]["state"]) == (
        "none", "00000-x", "new")  # fmt: skip
    status(["x"])
    assert capsys.readouterr().out.split()[-3:] == ["00000-x", "train", "new"]
    with pytest.raises(DataError, match="the newest are: 00000-x"):
        status(["nosuch"])
    with pytest.raises(UsageError, match="do not go together"):
        status(watch=True, json_=True)


def test_a_watch_ends_cleanly_with_ctrl_c(root: Path, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "sunpipe", "status", "--watch", "--every", "1"],
        env={**os.environ, "SUNPIPE_ROOT": str(root), "PATH": str(tmp_path)},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout
    for _ in range(3):
        assert process.stdout.readline()
    process.send_signal(2)
    _, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (0, "")
