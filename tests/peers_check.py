"""One rank of the tests of lost peers: exchanges until something breaks."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import torch
from torch.distributed import DistBackendError

from sunpipe import dist
from sunpipe.cli import guarded
from sunpipe.errors import DataError
from sunpipe.train import peers as peers_module
from sunpipe.train.peers import naming_lost_peers
from sunpipe.train.process_group import average_over_ranks, initialize

NCCL = """NCCL error in: ProcessGroupNCCL.cpp:3690, invalid usage, NCCL version 2.27.5
ncclInvalidUsage: This usually reflects invalid usage of NCCL library.
Last error:
Duplicate GPU detected : rank 1 and rank 0 both on CUDA device 4000"""


def work() -> None:
    """Arguments: folder, timeout, what this rank does in its tenth exchange."""
    folder, timeout, deed = Path(sys.argv[1]), float(sys.argv[2]), sys.argv[3]
    ranks = dist.discover()
    initialize(ranks, timeout)
    with naming_lost_peers(ranks, timeout) as peers:
        assert peers is not None
        peers.checkpoints = folder / "checkpoints"
        for number in range(2000):
            average_over_ranks(torch.ones(4), ranks)
            if number == 10:
                (folder / f"ready-{ranks.rank}").touch()
                if deed == "refuse":
                    raise DataError("the disk is full")
                if deed == "sleep":  # as in a dead file system
                    peers_module.GRACE_S = 2.0
                    time.sleep(3600)
                if deed == "break":
                    raise DistBackendError(NCCL)
            time.sleep(0.01 if number < 1000 else 1.0)


def main() -> None:
    """One rank, its errors told as the command line tells them."""
    guarded(work)
