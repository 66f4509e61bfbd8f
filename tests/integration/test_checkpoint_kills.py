"""Writers of checkpoints killed at each step of a save and at random: nothing is lost."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import REPO


@pytest.fixture
def folder() -> Iterator[Path]:
    """In memory where there is such a disk: a killed process keeps its page cache anyway."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as made:
        yield Path(made)


def killed(folder: Path, *arguments: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.checkpoint_killer", str(folder), *arguments], cwd=REPO,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_two_hundred_kills_lose_no_checkpoint(folder: Path) -> None:
    found = killed(folder, "2", "90")
    assert found["lost"] == []
    assert found["kills"] >= 200
    assert found["steps"] > 200  # calls that change the file system, twice or thrice each
    # it was not too easy: many were killed inside, some just before the name was given
    assert found["leftovers"] > 80
    assert found["named"] > 0
    assert found["torn"] > 5
    assert found["saved"] > 80


def test_the_kills_find_the_losses_of_a_careless_writer(folder: Path) -> None:
    found = killed(folder, "12", "0", "inplace")
    assert len(found["lost"]) > 2
