"""The command line: light to ask, clear when misused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from sunpipe.cli import commands, guarded
from tests.conftest import Cli

HEAVY = ("torch", "astropy", "sunpy", "deepspeed", "faiss", "sklearn", "matplotlib", "h5py", "drms",
         "mpi4py", "submitit")  # fmt: skip


def imported(*args: str) -> set[str]:
    code = (
        f"import sys; sys.argv = ['sunpipe', *{list(args)!r}]\n"
        "from sunpipe.cli import main\n"
        "try: main()\n"
        "except SystemExit as stop: assert not stop.code, stop.code\n"
        f"print('MODULES', *[m for m in {HEAVY!r} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split()[1:])


def test_help_loads_nothing_heavy() -> None:
    assert imported("--help") == set()


@pytest.mark.parametrize("command", list(commands()))
def test_help_of_a_command_is_light_and_says_what_it_does(command: str, cli: Cli) -> None:
    assert imported(command, "--help") == set()


def test_help_lists_every_command_with_a_line(cli: Cli) -> None:
    out = cli("--help").stdout
    for name, (_, text) in commands().items():
        assert name in out
        assert text.split()[0] in out


@pytest.mark.parametrize(
    ("args", "words"),
    [(["trainn"], "Did you mean 'train'"), (["train", "--no-such"], "No such option"),
     (["physics"], "--br"), (["index", "search"], "DIR"), (["--seed"], "No such option")],
)  # fmt: skip
def test_options_that_do_not_fit_are_one_line(args: list[str], words: str, cli: Cli) -> None:
    done = cli(*args)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert words in done.stderr


def test_nothing_asked_shows_the_help(cli: Cli) -> None:
    done = cli()
    assert done.returncode == 2
    assert "pipeline" in done.stderr + done.stdout


def test_usage_faults_exit_2_with_one_line(cli: Cli) -> None:
    done = cli("train", "--config", "no-such.toml")
    assert done.returncode == 2
    assert done.stderr.strip().count("\n") == 0
    assert "no-such.toml" in done.stderr
    done = cli("train", "--set", "train.bach=3")
    assert done.returncode == 2
    assert "did you mean batch?" in done.stderr


def test_missing_input_exits_1_and_names_the_remedy(cli: Cli) -> None:
    done = cli("train")
    assert done.returncode == 1
    assert "sunpipe shard" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_version(cli: Cli) -> None:
    import sunpipe

    assert cli("--version").stdout.strip() == f"sunpipe {sunpipe.__version__}"


@pytest.mark.parametrize("root", ["{file}", "{file}/below"])
def test_a_data_root_that_cannot_be_made_is_named(
    root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "file"
    file.touch()
    named = root.format(file=file)
    monkeypatch.setenv("SUNPIPE_ROOT", named)
    with pytest.raises(SystemExit):
        guarded(lambda: (Path(named) / "archive").mkdir(parents=True))
    said = capsys.readouterr().err
    assert said.endswith(f"; the data root {named} cannot be made, choose another folder with"
                         " SUNPIPE_ROOT\n")  # fmt: skip
    with pytest.raises(SystemExit):
        guarded(lambda: (tmp_path / "other/x").mkdir())
    assert capsys.readouterr().err == f"sunpipe: No such file or directory: {tmp_path}/other/x\n"
