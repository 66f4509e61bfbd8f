"""Nothing of a configuration becomes shell text: every text setting, with values made to hurt."""

from __future__ import annotations

import dataclasses
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import pytest

from hpc.argv import stage_argv
from hpc.launch import batch_script, cache_folder
from hpc.profile import Profile, Resources, load_profile
from hpc.script import again_lines, arguments_file, setup_lines
from sunpipe.config import load_config
from sunpipe.errors import ConfigError, UsageError
from sunpipe.files import write_json
from sunpipe.requeue import stored_arguments
from sunpipe.settings import Config
from tests.conftest import REPO

TINY = REPO / "configs/tiny.toml"
VALUES = ["$(touch X)", "`touch X`", '"; touch X; "', "'; touch X; '", "a\nsrun touch X",
          "a\n#SBATCH --output=X", "a\r\ntouch X", "%j\\n$HOME ${IFS}*", "\x1b[2Ja", "-- --x=1",
          "a\u2028touch X", "]]; touch X", "x" * 5000]  # fmt: skip


def text_settings(kind: Any, prefix: str = "") -> Iterator[str]:
    """Dotted names of all settings that take text; lists of text as ``name[]``."""
    for field in dataclasses.fields(kind):
        hint = get_type_hints(kind, include_extras=False)[field.name]
        name = f"{prefix}{field.name}"
        if dataclasses.is_dataclass(hint):
            yield from text_settings(hint, f"{name}.")
        elif hint is str or str in get_args(hint):
            yield f"{name}[]" if get_origin(hint) is tuple else name


NAMES = sorted(text_settings(Config))


def script_of(words: list[str], profile: Profile) -> str:
    """Batch script of a training with these arguments, without the name of their file."""
    text = batch_script("train", [words], profile, Resources())
    return text.replace(arguments_file(Path("/"), words).name, "ARGUMENTS")


def test_there_are_text_settings_of_all_kinds() -> None:
    assert {"name", "dataset", "report.title", "search.where", "fetch.url"} <= set(NAMES)
    assert any(name.endswith("[]") for name in NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_hostile_setting_is_refused_or_leaves_the_script_as_it_is(root: Path, name: str) -> None:
    plain = script_of(stage_argv("train", TINY), Profile())
    for value in VALUES:
        quoted = '"' + "".join(f"\\U{ord(character):08X}" for character in value) + '"'
        for written in (quoted, value):
            item = f"[{written}]" if name.endswith("[]") else written
            override = f"{name.removesuffix('[]')}={item}"
            try:
                load_config(TINY, [override])
                words = stage_argv("train", TINY, [override])
            except (ConfigError, UsageError):
                continue
            assert words[-1] == override  # one argument, to the letter
            assert script_of(words, Profile()) == plain


@pytest.mark.parametrize("value", VALUES)
def test_a_hostile_path_of_a_configuration_stays_one_argument(root: Path, value: str) -> None:
    path = Path("/tmp") / value.replace("/", "_")
    try:
        words = stage_argv("train", path)
    except UsageError:
        return
    assert words[-1] == str(path)
    assert script_of(words, Profile()) == script_of(stage_argv("train", TINY), Profile())


def test_the_script_of_a_full_profile_reads_back_as_it_was_meant(root: Path) -> None:
    profile = Profile(modules=("a/1", "b"), setup="/sw/s.sh", container="/i.sif", scratch="$TMPDIR",
                      python="/usr/bin/python3", interface="ib0")  # fmt: skip
    words = ["train", "--config", "/a b/$(x).toml"]
    text = batch_script("train", [words], profile, Resources(gpus_per_node=1))
    assert subprocess.run(["bash", "-n"], input=text, text=True, check=False).returncode == 0
    inside = ["apptainer", "exec", "--nv", "--bind", str(root), "--bind", "${TMPDIR}", "/i.sif",
              "/usr/bin/python3"]  # fmt: skip
    commands = [shlex.split(line.strip().replace("$TMPDIR", "${TMPDIR}"))
                for line in text.splitlines() if "apptainer" in line]  # fmt: skip
    again, started = commands
    assert again == [f"SUNPIPE_ROOT={root}", *inside, "-m", "sunpipe.requeue", "--arguments",
                     str(arguments_file(root, words)), "$1", "||", "true"]  # fmt: skip
    assert started[0] == "srun"
    place = started.index("apptainer")
    assert started[place : place + len(inside)] == inside
    assert "$(x)" not in text
    assert text.index("module load a/1 b || exit 1") < text.index("source /sw/s.sh || {")
    assert text.index("source /sw/s.sh") < text.index("trap 'sunpipe_again $?' EXIT")


@pytest.mark.parametrize("code", [0, 1, 2, 75, 76, 134, 137])
def test_what_a_batch_script_does_when_a_training_ends(root: Path, code: int) -> None:
    """The lines themselves, in a shell, with a Python that notes how it is called."""
    (root / "requeues").mkdir()
    python, bin_ = root / "python", root / "bin"
    bin_.mkdir()
    python.write_text(f'#!/bin/bash\necho "$SUNPIPE_ROOT $*" >> {root}/called\n'
                      'touch "$SUNPIPE_REQUEUE_FILE"\n')  # fmt: skip
    (bin_ / "scontrol").write_text(f'#!/bin/bash\necho "$*" >> {root}/scontrol\n'
                                   'echo "JobId=7 JobState=RUNNING Reason=None"\n')  # fmt: skip
    for program in (python, bin_ / "scontrol"):
        program.chmod(0o755)
    words = ["train", "--set", "report.title='; touch X"]
    lines = again_lines("train", Profile(python=str(python)), Resources(), root, words)
    env = {"PATH": f"{bin_}:/usr/bin:/bin", "SLURM_JOB_ID": "7"}
    done = subprocess.run(["bash", "-c", "\n".join([*lines, f"exit {code}"])], env=env, cwd=root,
                          capture_output=True, text=True, check=False)  # fmt: skip
    assert done.returncode == code
    called = root / "called"
    if code in (76, 134, 137):
        file = arguments_file(root, words)
        assert called.read_text() == f"{root} -m sunpipe.requeue --arguments {file} {code}\n"
        assert (root / "scontrol").read_text().splitlines()[-1] == "requeue 7"
        write_json(file, words)
        assert stored_arguments(file) == words[1:]
    else:
        assert not called.exists()
    assert list((root / "requeues").iterdir()) == []


@pytest.mark.parametrize(
    ("asked", "time", "again"),
    [("requeue", "None", True), ("preempted", "None", False),
     ("preempted", "2026-01-01T00:00:00", True)],
)  # fmt: skip
def test_after_a_sigterm_slurm_is_asked_whether_it_preempts(
    root: Path, asked: str, time: str, again: bool
) -> None:
    (root / "requeues").mkdir()
    shown = f"JobId=7 JobState=RUNNING Reason=None PreemptEligibleTime=2026 PreemptTime={time} X=1"
    (root / "scontrol").write_text(
        f'#!/bin/bash\necho "$SLURM_TIME_FORMAT $*" >> {root}/called\necho "{shown}"\n'
    )
    (root / "scontrol").chmod(0o755)
    inside = Profile(container="/i.sif")
    lines = again_lines("embed", inside, Resources(), root, ["embed"])
    script = "\n".join([*lines, f'echo {asked} > "$SUNPIPE_REQUEUE_FILE"', "exit 75"])
    env = {"PATH": f"{root}:/usr/bin:/bin", "SLURM_JOB_ID": "7"}
    done = subprocess.run(["bash", "-c", script], env=env, check=False, capture_output=True)
    assert done.returncode == 75
    called = (root / "called").read_text()
    assert called.startswith("standard --oneliner show job 7\n")
    assert ("requeue 7" in called) is again
    assert list((root / "requeues").iterdir()) == []


def test_a_setup_file_that_does_not_end_well_is_named(root: Path) -> None:
    (root / "s.sh").write_text("export A=1\n[[ -e /nowhere ]]\n")
    lines = setup_lines("report", Profile(setup=f"{root}/s.sh"), Resources(), root, ["report"])
    done = subprocess.run(["bash", "-c", "\n".join([*lines, "echo on"])], check=False,
                          capture_output=True, text=True)  # fmt: skip
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"sunpipe: {root}/s.sh (setup of the profile) ended with exit code 1\n"


def test_only_what_may_start_again_has_such_lines(root: Path) -> None:
    inside = Profile(container="/i.sif")
    assert again_lines("report", Profile(), Resources(), root, ["report"]) == []
    assert again_lines("shard", Profile(), Resources(), root, ["shard"]) == []
    text = "\n".join(again_lines("embed", inside, Resources(), root, ["embed"]))
    assert "sunpipe.requeue" not in text
    assert "scontrol requeue" in text


@pytest.mark.parametrize(
    "value", ["$(touch X)", "$A B", "$A;x", "relative", "/a b", "/a'", "$1", "${A}", "/a\n", "$"]
)
def test_scratch_is_a_path_or_a_variable(tmp_path: Path, value: str) -> None:
    quoted = "".join(f"\\U{ord(character):08X}" for character in value)
    (tmp_path / "cluster.toml").write_text(f'scratch = "{quoted}"\n')
    with pytest.raises(ConfigError, match="scratch"):
        load_profile(tmp_path / "cluster.toml")


def test_scratch_on_a_node() -> None:
    assert re.fullmatch(r"/scratch/sunpipe-\d+", cache_folder("/scratch/", {}))
    assert cache_folder("$TMPDIR", {"TMPDIR": "/t/7"}).startswith("/t/7/sunpipe-")
    for environ in ({}, {"TMPDIR": ""}, {"TMPDIR": "relative"}):
        with pytest.raises(UsageError, match="on this node TMPDIR is"):
            cache_folder("$TMPDIR", environ)
