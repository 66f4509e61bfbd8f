"""How jobs ended that the queue has forgotten: ``sacct``, where the site has accounting."""

from __future__ import annotations

import time
from collections.abc import Sequence

from hpc.slurm_query import ENDED, ask_slurm
from sunpipe.errors import DataError

DAYS = 7  # of failures that are still told
SACCT_S = 5.0
PAUSE_S = 60.0  # after accounting gave no answer: a watch must not wait for it each time
MOST_ASKED = 200  # jobs of one question
# Only an end is kept, and only a job that ended as a whole is not asked about again: what
# runs or waits says something else a moment later.
_ENDED: dict[str, str] = {}
_FINAL: set[str] = set()
_not_before = 0.0


def sacct_states(jobs: Sequence[str]) -> dict[str, str]:
    """How jobs, or tasks of arrays, ended; nothing of those that have not, or without accounting.

    Parameters
    ----------
    jobs : sequence of str
        Numbers of jobs and of whole arrays, the oldest first.
    """
    global _not_before
    chosen = [job for job in jobs if job not in _FINAL][-MOST_ASKED:]
    if not chosen or time.monotonic() < _not_before:
        return dict(_ENDED)
    try:
        text = ask_slurm("sacct", "--noheader", "--parsable2", "--allocations", "--jobs",
                         ",".join(chosen),
                         "--format=JobID,State", f"--starttime=now-{DAYS}days",
                         timeout=SACCT_S)  # fmt: skip
    except DataError:
        _not_before = time.monotonic() + PAUSE_S
        return dict(_ENDED)
    rows = (line.split("|") for line in text.splitlines())
    # one job may have several rows, of which the last is the newest
    told = {row[0]: row[1].split()[0].lower() for row in rows if len(row) == 2 and row[1].split()}
    _ENDED.update({key: state for key, state in told.items() if state in ENDED})
    live = {key.partition("_")[0] for key, state in told.items() if state not in ENDED}
    seen = {key.partition("_")[0] for key in told}
    _FINAL.update(job for job in chosen if job in seen - live)
    return dict(_ENDED)
