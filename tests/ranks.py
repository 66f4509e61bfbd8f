"""Ranks for a test: libraries are loaded once, then each rank is a fork of that process.

``python -m tests.ranks MODULE JOBS`` runs jobs one after the other; a job is
``{"world": 2, "argv": [...]}`` with ``argv`` for all ranks or a list of lists.
``pids``, if given, is a file that gets the process ids. The last line printed is
a list of jobs, each a list of [exit code, stdout, stderr, seconds] per rank.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

from tests.conftest import REPO, free_port

Ended = list[Any]  # exit code, stdout, stderr, seconds


def run_ranks(
    module: str, *jobs: dict[str, Any], timeout: float = 240, **env: str
) -> list[list[Ended]]:
    """How each rank of each job ended."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.ranks", module, json.dumps(jobs)], cwd=REPO, text=True,
        capture_output=True, timeout=timeout, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", **env},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def _rank(work: Any, argv: list[str], env: dict[str, str], out: Path) -> None:
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(f"{out}.{name}", os.O_CREAT | os.O_WRONLY), number)
    os.environ.update(env)
    sys.argv = ["rank", *argv]
    code = 1
    try:
        work()
        code = 0
    except SystemExit as left:
        code = left.code if isinstance(left.code, int) else int(left.code is not None)
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _job(work: Any, job: dict[str, Any], folder: Path) -> list[Ended]:
    world, argv = job["world"], job["argv"]
    each = argv if argv and isinstance(argv[0], list) else [argv] * world
    port, started, ranks = job.get("port") or free_port(), time.monotonic(), {}
    for rank in range(world):
        env = {"RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_RANK": str(rank),
               "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}  # fmt: skip
        if (pid := os.fork()) == 0:
            _rank(work, each[rank], env, folder / str(rank))
        ranks[pid] = rank
    if "pids" in job:
        Path(job["pids"]).write_text(json.dumps(list(ranks)))
    ended: dict[int, Ended] = {}
    while len(ended) < world:
        pid, status = os.waitpid(-1, 0)
        out = [(folder / f"{ranks[pid]}.{name}").read_text() for name in ("stdout", "stderr")]
        code = os.waitstatus_to_exitcode(status)
        ended[ranks[pid]] = [code, *out, time.monotonic() - started]
    return [ended[rank] for rank in range(world)]


def main() -> None:
    """Load what all ranks need, then fork them."""
    os.environ["DS_ACCELERATOR"] = "cpu"
    import deepspeed  # noqa: F401

    work = importlib.import_module(sys.argv[1]).main
    results = []
    for job in json.loads(sys.argv[2]):
        with tempfile.TemporaryDirectory() as folder:
            results.append(_job(work, job, Path(folder)))
    print(json.dumps(results))


if __name__ == "__main__":
    main()
