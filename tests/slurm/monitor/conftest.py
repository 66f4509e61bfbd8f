"""One watched training for all tests of this folder; it ends with the last of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.slurm.conftest import Slurm
from tests.slurm.monitor.watched import Watched, watching


@pytest.fixture(scope="package")
def watched(
    slurm: Slurm, tiny_root: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Watched]:
    """A running training on a real Slurm, watched by a real Prometheus."""
    with watching(slurm, tiny_root, tmp_path_factory.mktemp("watched")) as found:
        yield found
