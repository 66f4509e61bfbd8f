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
from hpc.status import accounting, again, jobs, table
from hpc.status.again import Ended
from hpc.status.cli import status
from hpc.status.shell import shell_line, spans
from hpc.status.why import why_pending
from hpc.submitted import remember
from sunpipe.errors import DataError, UsageError

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
    queue = jobs.Queue("ok", [line], [], {})
    cells, why = table.job_cells(queue)[0]
    assert cells[:3] == ("7_[1-4] (4 tasks)", "train", "pending")
    assert why == ["others are before it in the queue"]


@pytest.fixture(autouse=True)
def _a_fresh_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accounting, "_FINAL", set())
    monkeypatch.setattr(accounting, "_ENDED", {})
    monkeypatch.setattr(accounting, "_not_before", 0.0)


def submit(root: Path, number: str, argv: list[list[str]], stage: str = "embed") -> Path:
    """What `hpc.launch.submit` leaves."""
    folder = root / "slurm"
    folder.mkdir(exist_ok=True)
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
    for _ in range(2):  # a watch asks once
        (found,) = again.failures(root, [], NOW)
        assert (found.tasks, found.state) == (["2/2"], "out_of_memory")
    assert (tmp_path / "asked").read_text().count("--jobs 7 ") == 1


class Accounting:
    """Answers in turn, in place of sacct."""

    def __init__(self, *answers: str) -> None:
        self.answers, self.asked = list(answers), 0

    def __call__(self, *_: str, timeout: float) -> str:
        self.asked += 1
        if not self.answers:
            raise DataError("accounting is down")
        return self.answers.pop(0)


def test_what_accounting_said_of_a_job_that_ran_is_not_kept(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The queue did not answer once, while the tasks ran."""
    submit(root, "7", parts(2))
    ask = Accounting("7_0|RUNNING\n7_1|RUNNING\n", "7_0|FAILED\n7_[1]|PENDING\n",
                     "7_0|FAILED\n7_1|COMPLETED\n")  # fmt: skip
    monkeypatch.setattr(accounting, "ask_slurm", ask)
    assert again.failures(root, [], NOW) == []
    for asked in (2, 3, 3):  # until all have ended
        (found,) = again.failures(root, [], NOW)
        assert (found.tasks, found.state, ask.asked) == (["1/2"], "failed", asked)
    # an administrator requeues the task: the queue is newer than what was kept
    assert again.failures(root, [job("7_0", "running"), job("7_1", "pending")], NOW) == []


def test_accounting_that_was_down_is_asked_again(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit(root, "7", parts(2))
    ask = Accounting()
    monkeypatch.setattr(accounting, "ask_slurm", ask)
    for _ in range(2):  # not each time: its time limit would slow a watch down
        assert again.failures(root, [], NOW) == []
    assert ask.asked == 1
    ask.answers = ["7_0|COMPLETED\n7_1|FAILED\n"]
    monkeypatch.setattr(accounting, "_not_before", 0.0)
    assert again.failures(root, [], NOW)[0].tasks == ["2/2"]


def test_a_task_that_the_queue_forgot_before_the_others_end(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit(root, "7", parts(3))
    monkeypatch.setattr(accounting, "ask_slurm", Accounting("7_0|FAILED\n7_[1-2]|PENDING\n"))
    (found,) = again.failures(root, [job("7_[1-2]", array="7", tasks=2)], NOW)
    assert found.tasks == ["1/3"]


def test_the_line_is_of_the_failed_submission_and_of_no_other(root: Path) -> None:
    for number, config in (("7", "/c/A.toml"), ("8", "/c/B.toml")):
        submit(root, number, [["train", "--config", config]], "train")
    row = json.loads((root / "slurm/submitted.jsonl").read_text().splitlines()[0])
    assert row["argv"] == ["train", "--config", "/c/A.toml"]
    assert again._options(row) == (["-c", "/c/A.toml"], [])
    assert again._cluster(row) == ["--cluster", "PROFILE"]  # not kept in older rows
    folder = root / "slurm"
    remember(folder, "train", "a", "9", [["train"]], Path("site.toml"))
    kept = json.loads((folder / "submitted.jsonl").read_text().splitlines()[-1])
    assert again._cluster(kept) == ["--cluster", str(Path.cwd() / "site.toml")]
    for argv in (None, "train", ["train", 3], ["ssl", "--config", "x"]):  # of before, or foreign
        assert again._options({**row, "argv": argv}) == (["-c", "CONFIG"], [])


def test_a_line_of_many_parts_is_whole(root: Path) -> None:
    submit(root, "7", parts(200))
    states = [job(f"7_{n}", "completed" if n == 50 else "failed") for n in range(200)]
    (found,) = again.failures(root, states, NOW)
    assert len(found.tasks) == 199
    assert found.again == (
        "for part in {1..50}/200 {52..200}/200; do sunpipe launch embed --cluster PROFILE"
        " -c '/a b/x.toml' --set ssl.dim=8 --part $part; done"
    )
    loop = found.again.partition(" do ")[0] + " do echo $part; done"
    run = subprocess.run(["bash", "-c", loop], capture_output=True, text=True, check=True)
    assert run.stdout.split() == found.tasks
    queue = jobs.Queue("ok", [], [found], {})
    assert table.failed_lines(queue)[0][0] == "job 7 embed parts 1-50/200, 52-200/200: failed"
    assert spans(["3", "4", "5", "9"]) == ["3-5", "9"]


def test_a_line_keeps_its_words_and_acts_on_no_terminal(root: Path) -> None:
    odd = ["/a  b/it's\x1b[31m\n\\x.toml", "a" * 2000, "\u00e9t\u00e9", "\u202e"]
    line = shell_line(odd)
    assert "\x1b" not in line
    assert "\n" not in line
    assert "\u202e" not in line
    echo = subprocess.run(["bash", "-c", rf"printf '%s\0' {line}"], capture_output=True, check=True)
    assert echo.stdout.decode().split("\0")[:-1] == odd
    folder = submit(root, "7", [["train", "--config", odd[0]]], "train")
    found = again.failures(root, [job("7", "failed")], NOW)[0]
    assert found.again.endswith(f" -c {shell_line(odd[:1])}")
    torn = json.loads((folder / "submitted.jsonl").read_text())
    torn["tasks"][0]["log"] = "x\x1b[2J\0.out"
    (folder / "submitted.jsonl").write_text(json.dumps(torn) + "\n")
    assert again.failures(root, [job("7", "failed")], NOW)[0].log.endswith("x\ufffd[2J\ufffd.out")


def test_failures_in_the_table() -> None:
    one = Ended("7", "embed", "failed", ["2/4"], "/log", "words", "line")
    queue = jobs.Queue("squeue does not answer", [], [one], None)
    lines = table.plain_lines([], queue, 0, "/r")
    assert lines[0] == "no runs under /r/runs"
    assert "job 7 embed parts 2/4: failed" in lines
    assert lines[-1] == "jobs are not shown: squeue does not answer"
    texts = [text.plain for text in table.tables([], queue, 0, "/r", 80)]
    assert "  again: line" in texts


def test_each_job_in_the_queue_runs_or_says_why_it_waits(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = [job("7", "running"), job("8", reason="BeginTime", started=NOW + 100),
            job("9", "failed"), job("10_[1-2]", job="10", array="10", name="other",
                                    reason="Resources")]  # fmt: skip
    monkeypatch.setattr(jobs, "slurm_jobs", lambda *_, **__: told)
    monkeypatch.setattr(jobs, "slurm_restarts", lambda *_, **__: {"8": 1})
    waits = "next in the queue; waits for nodes to become free"
    assert jobs.read_queue(root, NOW).known == {
        "7": "",
        "8": "starts again after a requeue, in 1:40",
        "10": waits,
        "10_[1-2]": waits,
    }


def test_without_slurm_runs_are_shown(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(root))
    queue = jobs.read_queue(root, NOW)
    assert (queue.state, queue.known, queue.jobs) == ("none", None, [])
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
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
