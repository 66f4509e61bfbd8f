"""Run ``sunpipe`` on several ranks of this machine, as torchrun would."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.conftest import REPO, free_port


def start_ranks(
    world: int, *args: str | Path, root: Path, env: dict[str, str] | None = None
) -> list[subprocess.Popen[str]]:
    """Start ``sunpipe ARGS`` on `world` ranks that meet on the loopback interface."""
    common = {
        **os.environ, "SUNPIPE_ROOT": str(root), "OMP_NUM_THREADS": "1", "WORLD_SIZE": str(world),
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), **(env or {}),
    }  # fmt: skip
    return [
        subprocess.Popen(
            [sys.executable, "-m", "sunpipe", *map(str, args)], cwd=REPO,
            env={**common, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for rank in range(world)
    ]  # fmt: skip


def run_ranks(world: int, *args: str | Path, root: Path) -> dict[str, Any]:
    """Run ``sunpipe ARGS --json`` on `world` ranks; what rank 0 prints. All must succeed."""
    ranks = start_ranks(world, *args, "--json", root=root)
    outputs = [rank.communicate(timeout=300) for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0] * world, outputs
    assert all(out == "" for out, _ in outputs[1:])
    return dict(json.loads(outputs[0][0]))
