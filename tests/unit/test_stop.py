"""Signals, in this process and in real ones; a stand-in ``scontrol`` notes what it is asked."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from sunpipe.stop import SIGNALS, StopFlag, interrupting, requeue, slurm_job

SLURM_VARIABLES = ("SLURM_JOB_ID", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID", "SLURM_PROCID",
                   "SLURM_STEP_ID", "SLURM_STEP_NUM_TASKS")  # fmt: skip


@pytest.fixture
def scontrol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a ``scontrol`` on PATH that appends its arguments to the returned file."""
    asked = tmp_path / "asked.txt"
    program = tmp_path / "bin" / "scontrol"
    program.parent.mkdir()
    program.write_text(
        f'#!/bin/sh\necho "$@" >> {asked}\ncase $2 in\n'
        "13) echo no >&2; exit 1 ;;\n14) kill -TERM $$ ;;\nesac\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    for name in SLURM_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    return asked


def test_flag_notes_the_first_signal_and_gives_the_handlers_back() -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    with StopFlag() as stop:
        assert not stop
        os.kill(os.getpid(), signal.SIGUSR2)
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop
        assert stop.reason == "SIGUSR2"
        assert stop.requeue
    assert [signal.getsignal(number) for number in SIGNALS] == before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_only_usr2_asks_for_a_requeue(number: signal.Signals) -> None:
    with StopFlag() as stop:
        os.kill(os.getpid(), number)
        assert stop.reason == number.name
        assert not stop.requeue


def test_a_burst_of_signals_sets_one_flag() -> None:
    with StopFlag() as stop:
        for _ in range(100):
            os.kill(os.getpid(), signal.SIGUSR2)
        assert stop.reason == "SIGUSR2"


def test_a_second_ctrl_c_does_not_wait() -> None:
    with StopFlag() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_a_signal_that_was_held_back_arrives_when_the_handler_is_there() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
    # to this thread: another one, of a library, would take it at once and end the process
    signal.pthread_kill(threading.get_ident(), signal.SIGUSR2)
    with StopFlag() as stop:
        assert stop.reason == "SIGUSR2"


def test_job_in_the_form_scontrol_takes(monkeypatch: pytest.MonkeyPatch, scontrol: Path) -> None:
    assert slurm_job() is None
    monkeypatch.setenv("SLURM_JOB_ID", "18")
    assert slurm_job() == "18"
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "17")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "0")
    assert slurm_job() == "17_0"


def test_requeue(
    monkeypatch: pytest.MonkeyPatch, scontrol: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not requeue()  # outside Slurm
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    assert requeue()
    monkeypatch.setenv("SLURM_JOB_ID", "13")
    assert not requeue()
    monkeypatch.setenv("SLURM_JOB_ID", "14")
    assert requeue()  # ended by the requeue it asked for
    assert scontrol.read_text() == "requeue 12\nrequeue 13\nrequeue 14\n"
    assert capsys.readouterr().err == "sunpipe: scontrol requeue 13: no\n"
    monkeypatch.setenv("PATH", "/nonexistent")
    assert not requeue()
    assert "scontrol not found" in capsys.readouterr().err


def test_usr2_outside_loops_requeues_and_interrupts(
    monkeypatch: pytest.MonkeyPatch, scontrol: Path
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    with pytest.raises(KeyboardInterrupt), interrupting():
        os.kill(os.getpid(), signal.SIGUSR2)
    assert scontrol.read_text() == "requeue 12\n"


def test_sigterm_outside_loops_interrupts_once(
    monkeypatch: pytest.MonkeyPatch, scontrol: Path
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    with interrupting():
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)  # while cleaning up
    assert "requeue" not in scontrol.read_text()  # it was looked whether that is a preemption


def test_other_ranks_leave_usr2_to_rank_0(monkeypatch: pytest.MonkeyPatch, scontrol: Path) -> None:
    for name, value in (("SLURM_JOB_ID", "12"), ("SLURM_PROCID", "1"), ("SLURM_STEP_ID", "0"),
                        ("SLURM_STEP_NUM_TASKS", "2"), ("SLURM_LOCALID", "0"),
                        ("MASTER_ADDR", "h")):  # fmt: skip
        monkeypatch.setenv(name, value)
    with interrupting():
        os.kill(os.getpid(), signal.SIGUSR2)
    assert not scontrol.exists()


def test_a_flag_inside_takes_the_signals_over(scontrol: Path) -> None:
    with interrupting():
        with StopFlag() as stop:
            os.kill(os.getpid(), signal.SIGUSR2)
            assert stop.requeue
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)


STAGE = """
import sys, time
from pathlib import Path
from sunpipe.cli import guarded
from sunpipe.stage import run_stage

def work(cfg):
    Path(sys.argv[1]).touch()
    time.sleep(60)

guarded(lambda: run_stage("nap", work, config=None, overrides=None, dry_run=False, as_json=False))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR2])
def test_a_stage_without_a_loop_stops_and_can_be_requeued(
    number: signal.Signals, scontrol: Path, tmp_path: Path
) -> None:
    started = tmp_path / "started"
    env = {**os.environ, "SLURM_JOB_ID": "12", "SUNPIPE_ROOT": str(tmp_path)}
    with subprocess.Popen(
        [sys.executable, "-c", STAGE, str(started)], env=env, stderr=subprocess.PIPE, text=True
    ) as child:
        while not started.exists():
            assert child.poll() is None
        child.send_signal(number)
        _, err = child.communicate(timeout=30)
    assert child.returncode == 75
    assert "nap interrupted; run the same command again" in err
    assert "Traceback" not in err
    asked = scontrol.read_text() if scontrol.exists() else ""
    assert ("requeue 12" in asked) == (number == signal.SIGUSR2)
