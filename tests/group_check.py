"""One rank of the tests of the process group: joined, left, joined again; its timeouts."""

from __future__ import annotations

import json
from typing import Any
from unittest.mock import patch

import torch
import torch.distributed as torch_dist

from sunpipe import dist
from sunpipe.train import process_group
from sunpipe.train.process_group import any_rank, average_over_ranks, finish, initialize


def timeouts(ranks: dist.Ranks) -> list[tuple[str, float]]:
    """Backend and timeout of the groups that are made where the device is a GPU."""
    made: list[tuple[str, float]] = []
    whole, more = torch_dist.init_process_group, torch_dist.new_group

    def first(backend: str, **options: Any) -> None:
        made.append((backend, options["timeout"].total_seconds()))
        whole("gloo", **options)

    def second(*, backend: str, timeout: Any) -> Any:
        made.append((backend, timeout.total_seconds()))
        return more(backend=backend, timeout=timeout)

    with (
        patch.object(process_group, "pick_device", lambda ranks: torch.device("cuda", 0)),
        patch.object(torch_dist, "init_process_group", first),
        patch.object(torch_dist, "new_group", second),
    ):
        initialize(ranks, 30)
    return made


def main() -> None:
    """Two groups, one after the other, each left at its end."""
    ranks = dist.discover()
    finish()  # none yet
    found = []
    for _ in range(2):
        initialize(ranks, 30)
        mean = average_over_ranks(torch.tensor([float(ranks.rank)]), ranks)
        found.append([float(mean), any_rank(ranks.rank == ranks.world - 1, ranks)])
        finish()
        found[-1].append(torch_dist.is_initialized())
    finish()
    made = timeouts(ranks)
    finish()
    print(json.dumps({"found": found, "made": made}))
