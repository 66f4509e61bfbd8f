"""What a site adapts: the container's definition and the environment module."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from tests.conftest import REPO, need

DEFINITION = REPO / "containers/sunpipe.def"
MODULES = REPO / "jobs/modulefiles"


def sections() -> dict[str, str]:
    """Sections of the Apptainer definition; its header is under an empty name."""
    found, name = {"": ""}, ""
    for line in DEFINITION.read_text().splitlines():
        if line.startswith("%"):
            name = line[1:].strip()
            assert name not in found
            found[name] = ""
        else:
            found[name] += line.strip() + "\n"
    return found


def test_the_definition_has_what_apptainer_needs() -> None:
    found = sections()
    assert found[""].split() == ["Bootstrap:", "docker", "From:", "python:3.11-slim-bookworm"]
    assert set(found) == {"", "help", "files", "post", "environment", "test", "runscript"}
    wanted = re.search(r">=(\d+\.\d+)", (REPO / "pyproject.toml").read_text().split("python = ")[1])
    assert wanted is not None
    assert f"python:{wanted[1]}" in found[""]


def test_what_it_copies_is_there_and_enough_to_install() -> None:
    # Apptainer reads a source and a destination from each line and drops what follows
    pairs = [line.split() for line in sections()["files"].splitlines() if line]
    assert [len(pair) for pair in pairs] == [2] * len(pairs)
    assert {pair[1] for pair in pairs} == {"/opt/sunpipe/"}
    copied = {pair[0] for pair in pairs}
    assert all((REPO / word).exists() for word in copied)
    about = tomllib.loads((REPO / "pyproject.toml").read_text())
    packages = {name.rstrip("*") for name in
                about["tool"]["setuptools"]["packages"]["find"]["include"]}  # fmt: skip
    assert copied == {"pyproject.toml", "constraints.txt", about["project"]["readme"],
                      *about["project"]["license-files"], *packages}  # fmt: skip


def test_it_installs_the_tested_versions_and_the_extras_that_exist() -> None:
    text = sections()["post"]
    assert "--constraint constraints.txt" in text
    (extras,) = re.findall(r"\"\.\[([a-z,]+)\]\"", text)
    known = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(extras.split(",")) == set(known) - {"bench", "dev"}


@pytest.mark.parametrize("name", ["post", "test", "runscript", "environment"])
def test_its_scripts_are_posix_shell(name: str) -> None:
    argv = [need("shellcheck"), "--shell=sh", "-"]
    done = subprocess.run(argv, input=sections()[name], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def module(tmp_path: Path, folder: Path, words: str) -> subprocess.CompletedProcess[str]:
    """Run shell words after the real ``module`` was set up."""
    need("modulecmd")
    script = f". /usr/share/modules/init/bash; module use {folder}; {words}"
    env = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    return subprocess.run(["bash", "-c", script], env=env, capture_output=True, text=True,
                          check=False, cwd=tmp_path)  # fmt: skip


def checkout(folder: Path) -> Path:
    """A folder that looks like an installed checkout; returns that of its modules."""
    modules = folder / "jobs/modulefiles"
    modules.mkdir(parents=True)
    (modules / "sunpipe").write_text((MODULES / "sunpipe").read_text())
    (folder / ".venv/bin").mkdir(parents=True)
    program = folder / ".venv/bin/sunpipe"
    program.write_text("#!/bin/sh\necho it runs\n")
    program.chmod(0o755)
    return modules


def test_the_module_loads_and_unloads(tmp_path: Path) -> None:
    modules = checkout(tmp_path / "here")
    words = (
        "module load sunpipe && sunpipe && echo $SUNPIPE_HOME; module unload sunpipe;"
        ' echo "gone: ${SUNPIPE_HOME:-yes}"; command -v sunpipe || echo no program'
    )
    done = module(tmp_path, modules, words)
    assert done.stdout.splitlines() == [
        "it runs", str(tmp_path / "here"), "gone: yes", "no program"
    ], done.stderr  # fmt: skip


def test_a_checkout_without_an_installation_is_named(tmp_path: Path) -> None:
    modules = checkout(tmp_path / "here")
    (tmp_path / "here/.venv/bin/sunpipe").unlink()
    done = module(tmp_path, modules, "module load sunpipe || echo refused")
    assert f"sunpipe is not installed in {tmp_path / 'here'}: run make install" in done.stderr
    assert "refused" in done.stdout


@pytest.mark.parametrize("source", ["jobs", "launch"])
def test_a_job_loads_modules_though_its_shell_lacks_the_command(
    tmp_path: Path, source: str
) -> None:
    """``sbatch`` hands on exported variables, and functions only where the shell exported them."""
    from hpc.profile import Profile, Resources
    from hpc.script import setup_lines

    modules = checkout(tmp_path / "here")
    if source == "jobs":
        lines = [f"source {REPO}/jobs/_env.sh"]
    else:
        profile = Profile(modules=("sunpipe",))
        lines = setup_lines("report", profile, Resources(), tmp_path, ["report"])
    env = "export SUNPIPE_MODULES=sunpipe; unset -f module; " if source == "jobs" else ""
    done = module(tmp_path, modules, f"{env}unset -f module; {'; '.join(lines)}; sunpipe")
    assert done.stdout == "it runs\n", done.stderr
