"""Python, the installed packages against the tested ones, and libraries that really work."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import sys
from pathlib import Path
from typing import Any

from hpc.doctor.ask import ask
from hpc.doctor.finding import Finding
from hpc.doctor.place import Place
from hpc.status.text import plain

TESTED_PYTHON = (3, 11)
IMPORT_S = 120.0  # torch from a cold network file system
# the tested version again, and nothing that others depend on
AGAIN = "pip install -c constraints.txt --force-reinstall"
PLUGINS = f"{AGAIN} --no-deps h5py hdf5plugin"
# What a result depends on; another version of anything else is nobody's news.
DECIDE = ("torch", "deepspeed", "numpy", "h5py", "hdf5plugin", "faiss-cpu", "astropy", "drms",
          "scikit-learn", "pyarrow", "submitit", "mpi4py")  # fmt: skip


def python(place: Place) -> Finding:
    """The interpreter's version."""
    version = platform.python_version()
    if sys.version_info[:2] < TESTED_PYTHON:
        return Finding("python", "MISS", f"{version}, but sunpipe needs 3.11",
                       "make the environment anew with Python 3.11: ./install.sh")  # fmt: skip
    return Finding("python", "OK", f"{version} ({sys.executable})")


def tested_versions() -> dict[str, str]:
    """``constraints.txt`` of the checkout that this code runs from; empty without one."""
    path = Path(__file__).resolve().parents[2] / "constraints.txt"
    if not path.is_file():
        return {}
    lines = path.read_text(encoding="utf-8").splitlines()
    return dict(line.split("==", 1) for line in lines if "==" in line and line[0] != "#")


def unmet(requirements: list[str], installed: dict[str, str | None]) -> list[str]:
    """Requirements that what is installed does not meet, with what is there.

    Parameters
    ----------
    requirements : list of str
        As in a package's metadata, without those of extras.
    installed : dict
        Version by name; None: not installed.
    """
    from packaging.requirements import Requirement

    missing = []
    for text in requirements:
        wanted = Requirement(text)
        found = installed.get(wanted.name)
        if found is None:
            missing.append(f"{wanted.name} is not installed")
        elif not wanted.specifier.contains(found, prereleases=True):
            missing.append(f"{wanted.name} {found} is not {wanted.specifier}")
    return missing


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def packages(place: Place) -> Finding:
    """Required packages are there; those that decide results are the tested ones."""
    from packaging.requirements import Requirement

    own = [one for one in importlib.metadata.requires("sunpipe") or [] if "extra ==" not in one]
    missing = unmet(own, {name: _version(name) for name in (Requirement(r).name for r in own)})
    if missing:
        return Finding("packages", "MISS", "; ".join(missing),
                       "pip install -c constraints.txt -e .")  # fmt: skip
    tested = tested_versions()
    differ = [
        f"{name} {found} (tested: {tested[name]})" for name in DECIDE
        if name in tested and (found := _version(name)) and found.split("+")[0] != tested[name]
    ]  # fmt: skip
    if differ:
        return Finding("packages", "WARN", ", ".join(differ),
                       "pip install -c constraints.txt -e .; or run the tests: make test"
                       )  # fmt: skip
    return Finding("packages", "OK", f"{len(own)} required packages are there"
                   + (", in the tested versions" if tested else ""))  # fmt: skip


def facts_of(library: str) -> dict[str, Any]:
    """What ``python -m sunpipe.libraries`` says of a library; ``fault`` if it says nothing."""
    answer = ask([sys.executable, "-m", "sunpipe.libraries", library], IMPORT_S)
    try:
        facts: dict[str, Any] = json.loads(answer.out.splitlines()[-1])
    except (ValueError, IndexError):
        how = f"signal {-answer.code}: " if answer.code < -1 else ""
        return {"fault": f"{how}{answer.words}"}
    return facts


def faiss(place: Place) -> Finding:
    """Faiss answers."""
    facts = facts_of("faiss")
    if fault := facts.get("fault"):
        return Finding("faiss", "MISS", plain(fault),
                       f"{AGAIN} --no-deps faiss-cpu")  # fmt: skip
    return Finding("faiss", "OK", f"{facts['version']} finds nearest neighbours")


def hdf5(place: Place) -> Finding:
    """HDF5 reads what it wrote through the filters of shards, and notices damage."""
    facts = facts_of("hdf5")
    if fault := facts.get("fault"):
        return Finding("hdf5", "MISS", plain(fault), PLUGINS)
    return Finding("hdf5", "OK", f"{facts['version']}; bitshuffle + lz4 (hdf5plugin"
                   f" {facts['plugins']}) there and back, Fletcher32 notices a flipped bit"
                   )  # fmt: skip


def torchvision(place: Place) -> list[Finding]:
    """torchvision, where it is installed, fits torch: a CPU wheel beside a CUDA wheel does not."""
    version = _version("torchvision")
    if version is None:
        return []
    if fault := facts_of("torchvision").get("fault"):
        return [Finding("torchvision", "WARN", f"{version} does not fit torch {_version('torch')}"
                        f" ({plain(fault)}); only encoders of timm and lightly need it",
                        "install torch and torchvision together, from one index:"
                        f" {AGAIN} torch torchvision")]  # fmt: skip
    return [Finding("torchvision", "OK", f"{version} fits torch")]
