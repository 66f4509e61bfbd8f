"""Run fetches and kill them at random moments.

``python -m tests.fetch_killer CONFIG FOLDER KILLS``. Data roots are made under
FOLDER, one after the other, each fetched into until it is complete, until KILLS
processes were killed. Everything is imported before the processes are forked, so
that the kills hit the work and not the loading.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import drms  # noqa: F401  loaded here and not in every child
import httpx  # noqa: F401

import preprocess.acquire.export
import preprocess.acquire.session
import preprocess.query  # noqa: F401
from preprocess.fetch import fetch
from sunpipe.config import load_config

LONGEST_S = 1.0


def one_run(config: Path, root: Path, seconds: float) -> bool:
    """Fetch for so long at most; returns whether it was killed."""
    child = os.fork()
    if child == 0:
        os.environ["SUNPIPE_ROOT"] = str(root)
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115
        fetch(load_config(config))
        os._exit(0)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            if status:
                raise SystemExit(f"a fetch ended with {status}")
            return False
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return True


def main() -> None:
    """See the module's words; prints the roots and the number of kills."""
    config, folder, wanted = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    chance = random.Random(7)
    kills, roots = 0, []
    while kills < wanted:
        root = folder / f"root-{len(roots)}"
        root.mkdir()
        roots.append(str(root))
        longest = LONGEST_S
        while one_run(config, root, chance.uniform(0, longest) if kills < wanted else 300):
            kills += 1
            longest *= 1.02  # on a busy machine a run must get somewhere
    print(json.dumps({"kills": kills, "roots": roots}))


if __name__ == "__main__":
    main()
