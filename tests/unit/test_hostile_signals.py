"""Signals that come when all is done: they change neither the exit code nor what is said."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

# Runs when the interpreter ends, after everything that was registered later.
LATE = """\
import atexit, os, signal
def burst():
    for _ in range(20):
        os.kill(os.getpid(), signal.SIGUSR2)
        os.kill(os.getpid(), signal.SIGTERM)
atexit.register(burst)
"""


@pytest.mark.parametrize(("words", "code"), [(["--version"], 0), (["nosuchstage"], 2)])
def test_a_burst_at_the_end_is_ignored(tmp_path: Path, words: list[str], code: int) -> None:
    (tmp_path / "sitecustomize.py").write_text(LATE)
    done = subprocess.run(
        [sys.executable, "-m", "sunpipe", *words], capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(tmp_path)}, timeout=60,
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert "interrupted" not in done.stderr
