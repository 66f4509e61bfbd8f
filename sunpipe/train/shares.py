"""What each rank did in a tick: its own work, its waits, its memory, its energy."""

from __future__ import annotations

import math
import os
import time
from typing import Any

import torch

from sunpipe.dist import Ranks, node_count
from sunpipe.train import exchanges
from sunpipe.train.clock import peak_memory_bytes
from sunpipe.train.energy import Energy
from sunpipe.train.process_group import gather_numbers


def rank_row(tick_s: float, told: list[list[float]]) -> dict[str, Any]:
    """Keys of ``stats.jsonl`` from what each rank tells.

    Parameters
    ----------
    tick_s : float
        Length of the tick on rank 0.
    told : list of [own length, wait for data, in exchanges (seconds), bytes, joules]
        Of each rank; NaN joules where no device tells, infinite where one fell silent.

    Returns
    -------
    dict
        ``rank_work_s`` is what is left of a rank's tick without waits for data and
        without exchanges: the slowest rank has the most of it, the others wait for
        it inside an exchange. ``energy_j`` is of all devices; it is missing
        without one, and where one of them fell silent.
    """
    row: dict[str, Any] = {
        "tick_s": tick_s,
        "rank_work_s": [max(whole - wait - inside, 0.0) for whole, wait, inside, *_ in told],
        "rank_data_wait_s": [one[1] for one in told],
        "rank_peak_memory_bytes": [int(one[3]) for one in told],
    }
    joules = [one[4] for one in told if not math.isnan(one[4])]
    complete = joules and all(map(math.isfinite, joules))
    return row | ({"energy_j": sum(joules)} if complete else {})


class Shares:
    """The clock of one rank, from tick to tick."""

    def __init__(self, energy: Energy, ranks: Ranks, device: torch.device) -> None:
        self.energy, self.ranks, self.device = energy, ranks, device
        self._since, self._inside = time.perf_counter(), exchanges.seconds()
        nodes = node_count(ranks, os.environ)
        self._nodes = {} if nodes is None else {"nodes": nodes}

    def end(self, data_wait_s: float) -> dict[str, Any]:
        """Keys of the tick that ends here, see `rank_row`, and ``nodes`` where it is known.

        All ranks must call it.
        """
        now, inside = time.perf_counter(), exchanges.seconds()
        length, joules = now - self._since, self.energy.used()
        mine = [length, data_wait_s, inside - self._inside, peak_memory_bytes(self.device),
                math.nan if joules is None else joules]  # fmt: skip
        self._since, self._inside = now, inside
        return rank_row(length, gather_numbers(mine, self.ranks)) | self._nodes
