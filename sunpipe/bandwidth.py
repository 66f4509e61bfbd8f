"""How fast the ranks of a job add tensors: ``srun ... python -m sunpipe.bandwidth``.

Gradients are summed over all ranks in every step, so this is what the network does
for a training. NCCL where there are GPUs, else Gloo, as in `sunpipe.train`.
"""

from __future__ import annotations

import json
import os
import socket
import statistics
import sys
import time
from datetime import timedelta
from typing import Any

MIB = 2**20
SIZES = (MIB, 4 * MIB, 16 * MIB, 64 * MIB)
TIMEOUT_S = 60.0
BUDGET_S = 3.0  # for the repetitions of one size
MOST_REPEATS = 20


def bus_bandwidth(size: int, seconds: float, world: int) -> float:
    """Bus bandwidth of an all-reduce, GB/s (10^9 bytes).

    The algorithm's bandwidth `size` / `seconds` times 2 (n - 1) / n, which a perfect
    all-reduce moves through each rank's link: a figure of the hardware that does not
    depend on the number of ranks (nccl-tests, doc/PERFORMANCE.md, "AllReduce").

    Parameters
    ----------
    size : int
        Bytes of the tensor on each rank.
    seconds : float
        Of one all-reduce.
    world : int
        Ranks n.

    Raises
    ------
    ValueError
        No time, or fewer than one rank.
    """
    if seconds <= 0 or world < 1:
        raise ValueError("an all-reduce takes time and ranks")
    return size / seconds * 2 * (world - 1) / world / 1e9


def repeats(seconds: float) -> int:
    """How often to repeat what takes `seconds`, at most `BUDGET_S` in all."""
    return max(3, min(MOST_REPEATS, int(BUDGET_S / max(seconds, 1e-6))))


def measure(world: int, device: Any, size: int) -> tuple[float, bool]:
    """Median seconds of an all-reduce of `size` bytes, and whether its sums were right."""
    import torch
    import torch.distributed as torch_dist

    def once(values: Any) -> float:
        torch_dist.barrier()
        started = time.perf_counter()
        torch_dist.all_reduce(values)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - started

    values = torch.full((size // 4,), float(torch_dist.get_rank() + 1), device=device)
    first = once(values)
    right = bool((values == world * (world + 1) / 2).all())
    values.zero_()
    longest = torch.tensor([max(first, once(values))], device=device)
    torch_dist.all_reduce(longest, op=torch_dist.ReduceOp.MAX)  # the same count on every rank
    taken = [once(values) for _ in range(repeats(longest.item()))]
    return statistics.median(taken), right


def clock_spread(device: Any) -> float:
    """Largest difference between the ranks' clocks, seconds; barriers tell when now is."""
    import torch
    import torch.distributed as torch_dist

    spreads = []
    for _ in range(5):
        torch_dist.barrier()
        mine = torch.tensor([time.time()], dtype=torch.float64, device=device)
        every = [torch.zeros_like(mine) for _ in range(torch_dist.get_world_size())]
        torch_dist.all_gather(every, mine)
        times = [one.item() for one in every]
        spreads.append(max(times) - min(times))
    return min(spreads)


def assumed(backend: str, hosts: list[str]) -> float | None:
    """Bus bandwidth, GB/s, that ``sunpipe plan`` reckons with; None for ranks on CPUs.

    A ring over several nodes is as fast as the link of one node.
    """
    from sunpipe.train.communication import HDR100_PER_NODE

    if backend != "nccl":
        return None
    between = len(set(hosts)) > 1
    return (HDR100_PER_NODE.outside if between else HDR100_PER_NODE.inside) / 1e9


def measure_all() -> dict[str, Any] | None:
    """Measure in the ranks this process was started among; rank 0 gets the result.

    Returns
    -------
    dict or None
        ``backend``, ``world``, ``hosts``, ``assumed_gb_s`` (see `assumed`),
        ``clock_spread_s``, ``sums_right`` and per size ``bytes``, ``seconds``,
        ``bus_gb_s``.
    """
    import torch.distributed as torch_dist

    from sunpipe.dist import discover
    from sunpipe.train.process_group import pick_device
    from sunpipe.train.rendezvous import meet

    ranks = discover()
    device = pick_device(ranks)
    backend = "nccl" if device.type == "cuda" else "gloo"
    store = meet(ranks, TIMEOUT_S)
    torch_dist.init_process_group(backend, store=store, rank=ranks.rank, world_size=ranks.world,
                                  timeout=timedelta(seconds=TIMEOUT_S))  # fmt: skip
    hosts: list[Any] = [None] * ranks.world
    torch_dist.all_gather_object(hosts, os.environ.get("SLURMD_NODENAME") or socket.gethostname())
    rows, right = [], True
    for size in SIZES:
        seconds, exact = measure(ranks.world, device, size)
        right &= exact
        rows.append({"bytes": size, "seconds": seconds,
                     "bus_gb_s": bus_bandwidth(size, seconds, ranks.world)})  # fmt: skip
    spread = clock_spread(device)
    agreed: list[Any] = [None] * ranks.world
    torch_dist.all_gather_object(agreed, right)
    torch_dist.destroy_process_group()
    if not ranks.is_main:
        return None
    return {"backend": backend, "world": ranks.world, "hosts": sorted(set(hosts)),
            "assumed_gb_s": assumed(backend, hosts), "clock_spread_s": spread,
            "sums_right": all(agreed), "sizes": rows}  # fmt: skip


def main() -> None:
    """Print rank 0's result as one JSON document; a fault is one line on stderr."""
    from sunpipe.errors import SunpipeError

    try:
        result = measure_all()
    except (SunpipeError, RuntimeError, OSError) as error:
        sys.exit(f"sunpipe: {str(error).splitlines()[0]}")
    if result is not None:
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
