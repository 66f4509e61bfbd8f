"""What made an artefact: code revision, versions, command, Slurm ids (contract C2)."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import subprocess
import sys
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

PACKAGES = (
    "sunpipe",
    "numpy",
    "torch",
    "deepspeed",
    "h5py",
    "astropy",
    "scikit-learn",
    "faiss-cpu",
)
SLURM_KEYS = ("SLURM_JOB_ID", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID", "SLURM_JOB_NODELIST",
              "SLURM_NTASKS", "SLURM_RESTART_COUNT")  # fmt: skip
# The e-mail of ``--set fetch.email=...``, however it is written; artefacts are shared. A report
# leaves such a change out of the commands that it names.
PRIVATE = re.compile(r"""(\bemail["']?\s*=).*""", re.DOTALL)


def command_line() -> list[str]:
    """The words that this process was started with, without an e-mail."""
    return [PRIVATE.sub(r"\1***", word) for word in sys.argv]


@cache
def git_revision() -> str | None:
    """Revision of the checkout this code runs from, with ``+dirty`` when it was changed."""
    here = Path(__file__).resolve().parent
    try:
        run = subprocess.run(
            ["git", "-C", str(here), "describe", "--always", "--dirty=+dirty", "--abbrev=40",
             "--exclude=*"],
            capture_output=True, text=True, timeout=10, check=False,
        )  # fmt: skip
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return None
    return run.stdout.strip() or None if run.returncode == 0 else None


def versions() -> dict[str, str]:
    """Installed versions of the packages that decide results."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def now() -> str:
    """Current time, UTC, ISO 8601 with seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def provenance() -> dict[str, Any]:
    """A JSON-able record of code, versions, command line, host and Slurm job."""
    return {
        "git": git_revision(),
        "versions": versions(),
        "command": command_line(),
        "host": platform.node(),
        "cpus": os.cpu_count(),
        "slurm": {key: os.environ[key] for key in SLURM_KEYS if key in os.environ},
        "time": now(),
    }
