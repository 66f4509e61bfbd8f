"""Asking Slurm's controller with ``scontrol``; it may be away for a while."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence

ANSWER_S = 60.0  # scontrol itself gives up sooner, after its MessageTimeout
PATIENCE_S = 60.0
PAUSE_S = 10.0
PLAIN_TIMES = {"SLURM_TIME_FORMAT": "standard"}  # and not a user's own, such as "Today"
# What scontrol says when it has reached nobody, in the words of slurm_strerror().
AWAY = re.compile(r"Unable to contact|Socket timed out|Connection refused|Zero Bytes|"
                  r"Unable to establish|Transport endpoint")  # fmt: skip


def scontrol(
    words: Sequence[str], patience_s: float = 0.0
) -> subprocess.CompletedProcess[str] | None:
    """Run ``scontrol``; None, with a line that says why, when nobody answered.

    Parameters
    ----------
    patience_s : float
        Seconds for which it is tried again while the controller is away.
    """
    until = time.monotonic() + patience_s
    while True:
        try:
            done = subprocess.run(["scontrol", *words], capture_output=True, text=True,
                                  timeout=ANSWER_S, check=False,
                                  env={**os.environ, **PLAIN_TIMES})  # fmt: skip
        except subprocess.TimeoutExpired:
            why = f"no answer within {ANSWER_S:g} s"
        except OSError as error:
            why = str(error)
        else:
            if done.returncode == 0 or not AWAY.search(done.stderr):
                return done
            why = done.stderr.strip().splitlines()[-1]
        if time.monotonic() >= until:
            print(f"sunpipe: scontrol {' '.join(words)}: {why}", file=sys.stderr, flush=True)
            return None
        time.sleep(PAUSE_S)


def show_job(job: str, patience_s: float = 0.0) -> str | None:
    """What Slurm knows of a job, in one line; empty if it does not know it, None without answer."""
    done = scontrol(["--oneliner", "show", "job", job], patience_s)
    return None if done is None else done.stdout
