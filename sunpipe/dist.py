"""Ranks (contract C9): torchrun, then Slurm, then MPI launchers, else alone.

Only arithmetic over environment variables here; the process group is made by
`sunpipe.train.engine`.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from sunpipe.errors import UsageError

TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class Ranks:
    """One process among its peers.

    Attributes
    ----------
    rank, world : int
        Position and number of processes.
    local_rank : int
        Position on this node; picks the GPU.
    master_addr, master_port
        Where rank 0 listens.
    source : str
        Which launcher told: ``torchrun``, ``slurm``, ``mpi`` or ``single``.
    """

    rank: int
    world: int
    local_rank: int
    master_addr: str
    master_port: int
    source: str

    @property
    def is_main(self) -> bool:
        """Whether this is rank 0, the one that writes."""
        return self.rank == 0


def first_host(nodelist: str) -> str:
    """First host of a Slurm node list: ``n[3-5,9],m1`` gives ``n3``.

    Parameters
    ----------
    nodelist : str
        ``SLURM_JOB_NODELIST`` or ``SLURM_STEP_NODELIST``.
    """
    match = re.match(r"([^\[,]+)(?:\[([^\]]+)\])?([^,\[]*)", nodelist)
    if not match:
        raise UsageError(f"cannot read the Slurm node list {nodelist!r}")
    prefix, ranges, suffix = match.groups()
    if ranges is None:
        return prefix
    return prefix + re.split(r"[-,]", ranges)[0] + suffix


def job_port(job_id: str) -> int:
    """A TCP port in 20000-59999 that all ranks of one job agree on."""
    return 20000 + int(hashlib.sha256(job_id.encode()).hexdigest(), 16) % 40000


def _integer(env: Mapping[str, str], key: str) -> int:
    try:
        return int(env[key])
    except ValueError:
        raise UsageError(f"environment variable {key}={env[key]!r} is not a whole number") from None


def discover(env: Mapping[str, str] | None = None) -> Ranks:
    """Find this process's rank.

    Order: complete torchrun variables, ``SLURM_*`` of a step with several
    tasks, ``OMPI_*`` or ``PMI_*``, alone. A half-set torchrun environment is an
    error, because guessing the rest makes ranks that never meet.

    Raises
    ------
    UsageError
        When only some of the torchrun variables are set, or a value is no number.
    """
    env = os.environ if env is None else env
    given = [key for key in TORCHRUN if key in env]
    if {"RANK", "WORLD_SIZE", "LOCAL_RANK"} & set(given):
        missing = [key for key in TORCHRUN if key not in env]
        if missing:
            raise UsageError(
                f"half-set rank environment: {', '.join(given)} set but {', '.join(missing)}"
                " missing; set all five (torchrun does) or none"
            )
        return Ranks(_integer(env, "RANK"), _integer(env, "WORLD_SIZE"),
                     _integer(env, "LOCAL_RANK"), env["MASTER_ADDR"],
                     _integer(env, "MASTER_PORT"), "torchrun")  # fmt: skip
    addr, port = env.get("MASTER_ADDR"), env.get("MASTER_PORT")
    if "SLURM_PROCID" in env and "SLURM_STEP_ID" in env and "SLURM_STEP_NUM_TASKS" in env:
        nodes = env.get("SLURM_STEP_NODELIST") or env.get("SLURM_JOB_NODELIST", "localhost")
        job = env.get("SLURM_JOB_ID", "0") + "." + env["SLURM_STEP_ID"]
        return Ranks(_integer(env, "SLURM_PROCID"), _integer(env, "SLURM_STEP_NUM_TASKS"),
                     _integer(env, "SLURM_LOCALID"), addr or first_host(nodes),
                     int(port) if port else job_port(job), "slurm")  # fmt: skip
    for rank, world, local in (
        ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"),
        ("PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID"),
    ):
        if rank in env and world in env:
            return Ranks(_integer(env, rank), _integer(env, world), int(env.get(local, "0")),
                         addr or "127.0.0.1",
                         int(port) if port else job_port(str(os.getppid())), "mpi")  # fmt: skip
    return Ranks(0, 1, 0, "127.0.0.1", int(port) if port else 0, "single")
