"""The ranks of a training as one process group, and what they agree on."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as torch_dist

from sunpipe.dist import Ranks
from sunpipe.errors import SunpipeError
from sunpipe.train.exchanges import start_timing, stop_timing
from sunpipe.train.progress import exchange_s
from sunpipe.train.rendezvous import meet

# NCCL's watchdog ends the process without a word; before that, an agreement over Gloo that a
# rank does not come to has raised an error, from which the lost rank is named.
NCCL_LATER_S = 60.0
_STORES: list[torch_dist.Store] = []  # of this process's group; it has one at most
# Agreements travel over Gloo, from memory of the host: a GPU need not be waited for.
_AGREEING: list[torch_dist.ProcessGroup] = []


def pick_device(ranks: Ranks) -> torch.device:
    """GPU of this rank, or the CPU."""
    if torch.cuda.is_available():
        torch.cuda.set_device(ranks.local_rank % torch.cuda.device_count())
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")


def initialize(ranks: Ranks, timeout_s: float = 600.0, hang_s: float = 0.0) -> torch.device:
    """Set up DeepSpeed's process group for these ranks and return the device.

    All five rendezvous variables are set, otherwise DeepSpeed falls into MPI
    discovery. On the CPU its shared-memory operation is switched off: it would
    compile C++ at the first run, and Gloo does the same work. DeepSpeed takes
    LOCAL_RANK for the number of the GPU, so it is told the one that was picked:
    a launcher may show each rank only its own.

    Parameters
    ----------
    timeout_s : float
        How long the ranks wait for each other at the start, and in an exchange before
        they give up; NCCL gives up a minute later, after the agreements over Gloo.
    hang_s : float
        Of the watch beside the training; with one, exchanges wait longer (`exchange_s`).

    Raises
    ------
    SunpipeError
        The ranks do not come together: who, where, on which port.
    """
    os.environ.setdefault("DS_ACCELERATOR", "cuda" if torch.cuda.is_available() else "cpu")
    import deepspeed
    from deepspeed.utils import logger

    logger.setLevel("WARNING")
    for handler in logger.handlers:  # stdout belongs to the result
        if type(handler) is logging.StreamHandler:
            handler.setStream(sys.stderr)
    # DeepSpeed calls it by a name that torch is about to change
    warnings.filterwarnings("ignore", ".*all_gather_into_tensor", FutureWarning)
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    if torch_dist.is_initialized():
        return pick_device(ranks)
    device = pick_device(ranks)
    backend = "nccl" if device.type == "cuda" else "gloo"
    store, wait_s = meet(ranks, timeout_s), exchange_s(timeout_s, hang_s)
    os.environ.update(
        RANK=str(ranks.rank), WORLD_SIZE=str(ranks.world),
        LOCAL_RANK=str(ranks.local_rank if device.index is None else device.index),
        MASTER_ADDR=ranks.master_addr, MASTER_PORT=str(ranks.master_port),
    )  # fmt: skip
    try:
        torch_dist.init_process_group(
            backend, store=store, rank=ranks.rank, world_size=ranks.world,
            timeout=timedelta(seconds=wait_s + (NCCL_LATER_S if backend == "nccl" else 0)),
        )  # fmt: skip
    except (RuntimeError, TimeoutError) as error:
        raise SunpipeError(
            f"rank {ranks.rank} of {ranks.world} met rank 0 at {ranks.master_addr}, but {backend}"
            f" could not connect the ranks ({str(error).splitlines()[0]}); if the machine has"
            " several networks, name one in SUNPIPE_INTERFACE"
        ) from None
    start_timing()  # before DeepSpeed looks the exchanges up
    deepspeed.init_distributed(dist_backend=backend, auto_mpi_discovery=False, verbose=False)
    _STORES.append(store)
    if ranks.world > 1:
        _AGREEING.append(torch_dist.new_group(backend="gloo", timeout=timedelta(seconds=wait_s)))
    return device


def finish() -> None:
    """Leave the process group at the clean end of a training; `initialize` may make a new one.

    No rank waits for another. Without a group nothing happens.
    """
    if torch_dist.is_initialized():
        torch_dist.destroy_process_group()
    stop_timing()
    _AGREEING.clear()
    _STORES.clear()


def shared_store() -> torch_dist.Store:
    """The store of `initialize`: small words that all ranks can read."""
    return _STORES[-1]


def average_over_ranks(values: torch.Tensor, ranks: Ranks) -> torch.Tensor:
    """Mean over all ranks of a tensor on the ranks' device, in place."""
    if ranks.world > 1:
        torch_dist.all_reduce(values)
        values /= ranks.world
    return values


def any_rank(flag: bool, ranks: Ranks) -> bool:
    """Whether any rank raised `flag`: the same answer everywhere."""
    if ranks.world == 1:
        return flag
    word = torch.tensor([int(flag)])
    torch_dist.all_reduce(word, op=torch_dist.ReduceOp.MAX, group=_AGREEING[-1])
    return bool(word.item())


def from_main(value: Any, ranks: Ranks) -> Any:
    """Rank 0's value of a small JSON-able object, on every rank."""
    if ranks.world == 1:
        return value
    box = [value]
    torch_dist.broadcast_object_list(box, src=0, group=_AGREEING[-1])
    return box[0]


def gather_numbers(values: Sequence[float], ranks: Ranks) -> list[list[float]]:
    """A few numbers of every rank, on all of them: one list per rank."""
    here = torch.tensor([float(value) for value in values], dtype=torch.double)
    if ranks.world == 1:
        return [here.tolist()]
    parts = [torch.empty_like(here) for _ in range(ranks.world)]
    torch_dist.all_gather(parts, here, group=_AGREEING[-1])
    return [part.tolist() for part in parts]


def gather_objects(value: Any, ranks: Ranks) -> list[Any]:
    """A small object of every rank, on all of them."""
    found = [value] * ranks.world
    if ranks.world > 1:
        torch_dist.all_gather_object(found, value, group=_AGREEING[-1])
    return found
