"""``sunpipe status``: arrays at a glance, jobs of other data roots and of plain sbatch."""

from __future__ import annotations

import io
import subprocess
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from rich.text import Text

from hpc.slurm_query import Job
from hpc.status import accounting, again, elsewhere, jobs, table
from hpc.status.elsewhere import root_of, roots_of_jobs, sbatch_again
from hpc.status.find import find_runs
from sunpipe.errors import DataError
from tests.unit.test_status_jobs import NOW, job, parts, submit


@pytest.fixture(autouse=True)
def _a_fresh_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accounting, "_FINAL", set())
    monkeypatch.setattr(accounting, "_ENDED", {})
    monkeypatch.setattr(accounting, "_not_before", 0.0)


def cells(*told: Job) -> list[tuple[tuple[str, ...], list[str]]]:
    lines = [jobs.job_line(one, 0, NOW) for one in told]
    return table.job_cells(jobs.Queue("ok", lines, [], {}))


def test_tasks_of_an_array_that_run_are_one_line() -> None:
    running = [job(f"7_{n}", "running", started=NOW - 100 * n, left=1000.0 + n, nodes=1,
                   node_list=f"n{n % 5}", name="sunpipe-embed") for n in range(1, 41)]  # fmt: skip
    waits = job("7_[50-99%40]", reason="JobArrayTaskLimit", tasks=50, name="sunpipe-embed")
    other = job("8", "running", started=NOW - 5, node_list="n9")
    rows = cells(waits, *running[:20], other, *running[21:])
    assert [row[0][0] for row in rows] == ["7_[50-99%40] (50 tasks)",
                                           "7_[1-20,22-40] (39 tasks)", "8"]  # fmt: skip
    assert rows[1][0][2:] == ("running", "39 n1, n2, n3 and 2 more", "1:06:40, 16:41 left")
    two = [job("7_1", "running", node_list="n1"), job("7_2", "suspended", node_list="n1")]
    assert [row[0][0] for row in cells(*two)] == ["7_1", "7_2"]


def test_a_program_gets_each_task_and_its_whole_number() -> None:
    long = f"7_[{','.join(map(str, range(1, 999, 2)))}]"
    assert jobs.job_line(job(long, tasks=499), 0, NOW).id == long
    assert len(cells(job(long, tasks=499))[0][0][0]) < 60


def test_the_root_of_a_launched_job_is_in_its_script() -> None:
    script = "/data/b c/slurm/.submission_file_0123.sh"
    assert root_of(script) == Path("/data/b c")
    for command in ("(null)", "", "/home/me/jobs/embed.sh -c x", "/x/.submission_file_1.sh"):
        assert root_of(command) is None


def scontrol(folder: Path, monkeypatch: pytest.MonkeyPatch, **told: str) -> None:
    """Answers for each job."""
    folder.mkdir(exist_ok=True)
    lines = "".join(f"   {key}={value}\n" for key, value in told.items())
    (folder / "answer").write_text(f"JobId=1 JobName=x\n{lines}")
    program = folder / "scontrol"
    program.write_text(f'#!/bin/sh\necho "$@" >>{folder}/asked\ncat {folder}/answer\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def failed(array: str, *tasks: int, **more: Any) -> list[Job]:
    return [job(f"{array}_{n}", "failed", name="sunpipe-embed", **more) for n in tasks]


def test_what_failed_of_another_data_root_names_it(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    submit(other, "7", parts(3))
    scontrol(tmp_path / "bin", monkeypatch, Command=f"{other}/slurm/.submission_file_0.sh",
             StdOut="/x")  # fmt: skip
    monkeypatch.setenv("SUNPIPE_CLUSTER", "/p.toml")
    (found,) = again.failures(root, failed("7", 0, 2), NOW)
    assert (found.root, found.tasks) == (str(other), ["1/3", "3/3"])
    assert found.again == (
        f"for part in 1/3 3/3; do SUNPIPE_ROOT={other} sunpipe launch embed -c '/a b/x.toml'"
        " --set ssl.dim=8 --part $part; done"
    )
    lines = table.failed_lines(jobs.Queue("ok", [], [found], {}))[0]
    assert lines[1] == f"of the data root {other}"
    submit(other, "8", parts(3))  # there it was submitted again
    assert again.failures(root, failed("7", 0, 2), NOW) == []
    (other / "slurm/submitted.jsonl").unlink()  # nothing is known there
    (found,) = again.failures(root, failed("7", 0, 2), NOW)
    assert (found.root, found.tasks, found.again) == (str(other), ["0", "2"], "")
    (own,) = again.failures(other, failed("9", 0), NOW)
    assert own.tasks == ["0"]


def test_a_plain_job_is_submitted_from_its_folder(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scontrol(tmp_path / "bin", monkeypatch, WorkDir="/my sources", StdOut="/dev/null",
             Command="/my/jobs/embed.sh -c configs/x.toml --set a=$(touch;pwned)")  # fmt: skip
    every = [*failed("7", 2, 3, job="70"), job("7_1", "completed"), job("7_4", "running")]
    (found,) = again.failures(root, every, NOW)
    assert found.again == (
        "(cd '/my sources' && SUNPIPE_PARTS=4 sbatch --array=2,3 /my/jobs/embed.sh -c"
        " configs/x.toml --set 'a=$(touch;pwned)')"
    )
    assert subprocess.run(["bash", "-n", "-c", found.again], check=True).returncode == 0
    lines = table.failed_lines(jobs.Queue("ok", [], [found], {}))[0]
    assert lines[-1] == f"for this line, {again.UNKEPT}"
    # the number of a whole array would be answered with all of its tasks
    assert (tmp_path / "bin/asked").read_text() == "show job 7_2\n"
    assert sbatch_again("/my/jobs/report.sh", "", [], 1) == "sbatch /my/jobs/report.sh"


def test_a_controller_that_stopped_answering_is_not_asked_about_each_job(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(again, "PATIENCE_S", 0.0)
    monkeypatch.setattr(again, "show_job", asked.append)
    found = again.failures(root, [job(str(n), "failed") for n in range(50)], NOW)
    assert (len(found), asked) == (50, [])


def test_live_jobs_of_another_data_root_name_it(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, foreign, plain = (job(n, "running", started=NOW) for n in ("7", "8", "9"))
    submit(root, "7", [["train"]], "train")
    monkeypatch.setattr(jobs, "slurm_jobs", lambda *_, **__: [own, foreign, plain])
    monkeypatch.setattr(jobs, "slurm_restarts", lambda *_, **__: {})
    roots = {"7": root, "8": tmp_path / "b"}
    monkeypatch.setattr(jobs, "roots_of_jobs", lambda *_: roots)
    lines = jobs.read_queue(root, NOW).jobs
    assert [line.root for line in lines] == ["", str(tmp_path / "b"), ""]
    assert lines[1].as_json()["root"] == str(tmp_path / "b")
    (_, _, notes) = [notes for _, notes in table.job_cells(jobs.Queue("ok", lines, [], {}))]
    assert notes == []


def test_commands_of_the_queue_may_hold_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    def squeue(*argv: str, timeout: float) -> str:
        word = argv[-1].removeprefix("--format=").partition("%")[0]
        rows = [("7", "/d/slurm/.submission_file_1.sh"), ("8", "/x.sh a\nb | %A"), ("9", "(null)")]
        return "".join(f"{word}{job_}{word}{command}\n" for job_, command in rows)

    monkeypatch.setattr(elsewhere, "ask_slurm", squeue)
    assert roots_of_jobs("me") == {"7": Path("/d")}


def test_parts_that_were_submitted_in_another_number_are_made_good(root: Path) -> None:
    submit(root, "7", parts(4))
    states = [job(f"7_{n}", "failed" if n == 1 else "completed") for n in range(4)]
    assert again.failures(root, states, NOW)[0].tasks == ["2/4"]
    submit(root, "8", parts(8))
    states += [job(f"8_{n}", "running") for n in range(8)]
    assert again.failures(root, states, NOW) == []


def test_a_part_of_another_number_makes_nothing_good_alone(root: Path) -> None:
    submit(root, "6", parts(8)[1:])  # before: they do not count for what failed later
    submit(root, "7", parts(4))
    states = [job(f"7_{n}", "failed" if n in (1, 2) else "completed") for n in range(4)]
    submit(root, "8", parts(8)[:1])
    states.append(job("8", "running"))
    assert [one.tasks for one in again.failures(root, states, NOW)] == [["2/4", "3/4"]]
    submit(root, "9", parts(8)[1:7])
    assert [one.tasks for one in again.failures(root, states, NOW)] == [["2/4", "3/4"]]
    submit(root, "10", parts(8)[7:])  # and now all of the eighths
    assert again.failures(root, states, NOW) == []


def test_a_whole_stage_makes_its_parts_good(root: Path) -> None:
    submit(root, "7", [["embed"]])
    submit(root, "8", parts(2)[:1])
    states = [job("7", "failed"), job("8", "failed")]
    assert [one.id for one in again.failures(root, states, NOW)] == ["7", "8"]
    submit(root, "9", [["embed"]])
    assert again.failures(root, [*states, job("9", "running")], NOW) == []


def test_a_job_that_was_preempted_for_good_is_told(root: Path) -> None:
    submit(root, "7", [["train"]], "train")
    assert again.failures(root, [job("7", "preempted")], NOW)[0].state == "preempted"
    assert again.failures(root, [job("7", "pending")], NOW) == []  # it starts again


def test_a_low_window_says_what_it_does_not_show() -> None:
    console = Console(width=40, height=9, file=io.StringIO(), force_terminal=True)
    lines = [Text("head"), Text("x" * 100), *(Text(str(n)) for n in range(4))]  # 1 + 3 + 4 rows
    assert table.fitting(lines, console, 8) == lines
    shown = [text.plain for text in table.fitting(lines, console, 7)]
    assert shown[2:] == ["0", "1", "2 more lines: a taller window, or sunpipe status"]
    (only,) = table.fitting(lines, console, 1)
    assert only.plain.startswith("8 more lines")


def test_a_folder_of_runs_that_cannot_be_read_is_not_empty(tmp_path: Path) -> None:
    (tmp_path / "runs").symlink_to("runs")
    with pytest.raises(DataError, match=r"runs cannot be read \(Too many levels of symbolic links"):
        find_runs(tmp_path / "runs")
    (tmp_path / "file").touch()
    assert find_runs(tmp_path / "none") == find_runs(tmp_path / "file") == []
