"""One rank of the test of hangs: steps with an exchange each, until one of them hangs."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import torch

from sunpipe import dist
from sunpipe.cli import guarded
from sunpipe.run import Run
from sunpipe.train import progress as progress_module
from sunpipe.train.guard import guarding
from sunpipe.train.peers import naming_lost_peers
from sunpipe.train.process_group import any_rank, average_over_ranks, initialize


def sleep_in_a_step() -> None:
    """What the test looks for in the stacks."""
    time.sleep(3600)


def work() -> None:
    """Arguments: run folder, hang_s, timeout_s, when rank 1 goes to sleep.

    Rank 0 takes longer over a checkpoint than a step may, rank 1 over a few steps
    more than over those before; then it goes to sleep.
    """
    progress_module.START_S = 0.0
    folder, hang_s, timeout_s = Path(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])
    ranks = dist.discover()
    device = initialize(ranks, timeout_s, hang_s)
    run = Run(folder) if ranks.is_main else None
    with (
        naming_lost_peers(ranks, 60) as peers,
        guarding(ranks, run, folder, peers, hang_s, device) as progress,
    ):
        for number in range(20):
            progress.ready()
            progress.fed()
            average_over_ranks(torch.ones(4), ranks)
            if number == 4 and ranks.is_main:
                with progress.during("a checkpoint"):
                    time.sleep(1.6 * hang_s)
            if number == int(sys.argv[4]) and not ranks.is_main:
                sleep_in_a_step()
            time.sleep(0.4 * hang_s if number in (6, 7, 8) and not ranks.is_main else 0.05)
            any_rank(False, ranks)
            progress.stepped()


def main() -> None:
    """One rank, its errors told as the command line tells them."""
    guarded(work)
