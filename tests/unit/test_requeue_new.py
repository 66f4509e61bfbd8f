"""``--new`` begins one run for a job, however often the job is started."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from sunpipe.files import write_json
from sunpipe.paths import Layout
from sunpipe.run import Run
from sunpipe.train import cli, gan, ssl

KEYS = ("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "RANK",
        "WORLD_SIZE", "LOCAL_RANK", "PMI_RANK", "OMPI_COMM_WORLD_RANK", *cli.RESTARTS)  # fmt: skip
TORCHRUN = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": "29400"}  # fmt: skip


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for key in KEYS:
        monkeypatch.delenv(key, raising=False)


def begin(name: str = "mine") -> str:
    return Run.open(Layout.current(), name, {}, frozenset(), new=True).folder.name


def test_a_requeued_job_continues_the_run_it_began(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "41")
    begin()
    monkeypatch.setenv("SLURM_JOB_ID", "42")
    assert cli.starts_new(True, "mine")
    assert not cli.starts_new(False, "mine")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert cli.starts_new(True, "mine"), "it was lost before it had begun a run"
    assert cli.starts_new(True, "other")
    ours = begin()
    assert capsys.readouterr().err == ""
    for _ in range(2):
        assert not cli.starts_new(True, "mine")
    assert capsys.readouterr().err.splitlines() == 2 * [
        f"sunpipe: this job was started again: --new is ignored, {ours} is continued"
    ]


def test_torchrun_restarts_continue_the_run_of_their_command(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["sunpipe", "train"])
    begin()
    monkeypatch.setattr(sys, "argv", ["sunpipe", "train", "--new"])
    for key, value in {**TORCHRUN, "TORCHELASTIC_RESTART_COUNT": "0"}.items():
        monkeypatch.setenv(key, value)
    assert cli.starts_new(True, "mine")
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert cli.starts_new(True, "mine")
    begin()
    assert not cli.starts_new(True, "mine")
    assert "--new is ignored, 00001-mine is continued" in capsys.readouterr().err
    monkeypatch.setenv("RANK", "1")
    cli.starts_new(True, "mine")
    assert capsys.readouterr().err == ""  # one rank says it


def test_both_commands_ask(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def note(cfg: object, new: bool) -> None:
        asked.append(new)

    monkeypatch.setattr(gan, "train", note)
    monkeypatch.setattr(ssl, "train_ssl", note)
    monkeypatch.setenv("SLURM_JOB_ID", "42")
    for name in ("default", "default-ssl"):
        begin(name)
    for restarts in ("0", "1"):
        monkeypatch.setenv("SLURM_RESTART_COUNT", restarts)
        for command in (cli.train, cli.ssl):
            command(set_=['name="default"'], new=True)
    assert asked == [True, True, False, False]


def test_a_record_without_a_job_is_not_ours(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = root / "runs" / begin()
    write_json(folder / "provenance.json", {"slurm": {}, "command": sys.argv})
    monkeypatch.setenv("SLURM_JOB_ID", "42")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "3")
    assert cli.starts_new(True, "mine")
