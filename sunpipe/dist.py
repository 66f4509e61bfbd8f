"""Ranks (contract C9): torchrun, then Slurm, then MPI launchers, else alone.

Only arithmetic over environment variables here, and the address of a Slurm node;
the process group is made by `sunpipe.train.engine`.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Callable, Mapping
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
    match = re.match(r"(?:[^\[\],]|\[[^\[\]]+\])+", nodelist)
    if not match or (match.end() < len(nodelist) and nodelist[match.end()] != ","):
        raise UsageError(f"cannot read the Slurm node list {nodelist!r}")
    return re.sub(r"\[([^\]\-,]+)[^\]]*\]", r"\1", match[0])


def node_address(node: str) -> str:
    """Where a Slurm node can be reached: its name, or what Slurm knows as its address.

    Node names need not be host names; on a one-machine cluster they are not.
    """
    try:
        socket.getaddrinfo(node, None)
    except OSError:
        if shutil.which("scontrol"):
            shown = subprocess.run(["scontrol", "show", "node", node], capture_output=True,
                                   text=True, timeout=60, check=False).stdout  # fmt: skip
            if found := re.search(r"\bNodeAddr=(\S+)", shown):
                return found[1]
    return node


def job_port(job_id: str) -> int:
    """A TCP port in 20000-31999 that all ranks of one job agree on.

    Ports from 32768 on are handed out by the kernel to outgoing connections.
    """
    return 20000 + int(hashlib.sha256(job_id.encode()).hexdigest(), 16) % 12000


def _integer(env: Mapping[str, str], key: str) -> int:
    try:
        return int(env[key])
    except ValueError:
        raise UsageError(f"environment variable {key}={env[key]!r} is not a whole number") from None


def _ranks(
    env: Mapping[str, str], keys: tuple[str, str, str], addr: str, port: int, source: str
) -> Ranks:
    rank, world, local = (_integer(env, key) for key in keys)
    if not 0 <= rank < world or local < 0:
        raise UsageError(f"rank environment does not add up: {keys[0]}={rank}, {keys[1]}={world},"
                         f" {keys[2]}={local}")  # fmt: skip
    return Ranks(rank, world, local, addr, port, source)


def node_count(ranks: Ranks, env: Mapping[str, str]) -> int | None:
    """On how many nodes the ranks run, as the launcher says it; None where it does not.

    Parameters
    ----------
    ranks : Ranks
        From `discover`.
    env : mapping
        The environment that it was found in.
    """
    if ranks.world == 1:
        return 1

    def told(*keys: str) -> int | None:
        words = (env.get(key, "") for key in keys)
        return next((int(word) for word in words if word.isdecimal() and int(word) > 0), None)

    groups = {"slurm": "SLURM_STEP_NUM_NODES", "torchrun": "GROUP_WORLD_SIZE"}
    if ranks.source in groups and (nodes := told(groups[ranks.source])) is not None:
        return min(nodes, ranks.world)
    each = {"torchrun": ("LOCAL_WORLD_SIZE",),
            "mpi": ("OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS")}  # fmt: skip
    here = told(*each.get(ranks.source, ()))
    return None if here is None else -(-ranks.world // here)


def discover(
    env: Mapping[str, str] | None = None, address: Callable[[str], str] = node_address
) -> Ranks:
    """Find this process's rank.

    Order: complete torchrun variables, ``SLURM_*`` of a step with several
    tasks, ``OMPI_*`` or ``PMI_*``, alone. A half-set torchrun environment is an
    error, because guessing the rest makes ranks that never meet.

    Parameters
    ----------
    env : mapping, optional
        Environment; by default this process's.
    address : callable
        Address of a Slurm node's name; asked for when MASTER_ADDR is not set.

    Raises
    ------
    UsageError
        When only some of the torchrun variables are set, or values are no
        numbers or do not fit each other.
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
        return _ranks(env, ("RANK", "WORLD_SIZE", "LOCAL_RANK"), env["MASTER_ADDR"],
                      _integer(env, "MASTER_PORT"), "torchrun")  # fmt: skip
    addr = env.get("MASTER_ADDR")
    port = _integer(env, "MASTER_PORT") if "MASTER_PORT" in env else None
    if "SLURM_PROCID" in env and "SLURM_STEP_ID" in env and "SLURM_STEP_NUM_TASKS" in env:
        nodes = env.get("SLURM_STEP_NODELIST") or env.get("SLURM_JOB_NODELIST", "localhost")
        job = ".".join(env.get(key, "0") for key in
                       ("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT"))  # fmt: skip
        alone = env["SLURM_STEP_NUM_TASKS"] == "1"
        first = addr or ("127.0.0.1" if alone else address(first_host(nodes)))
        return _ranks(env, ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID"), first,
                      port or job_port(job), "slurm")  # fmt: skip
    for rank, world, local, here in (
        ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK",
         "OMPI_COMM_WORLD_LOCAL_SIZE"),
        ("PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"),
    ):  # fmt: skip
        if rank in env and world in env:
            if env.get(here, env[world]) != env[world] and not (addr and port):
                raise UsageError("MPI ranks on several nodes need MASTER_ADDR and MASTER_PORT, or"
                                 " start them with srun or torchrun")  # fmt: skip
            return _ranks({local: "0", **env}, (rank, world, local), addr or "127.0.0.1",
                          port or job_port(str(os.getppid())), "mpi")  # fmt: skip
    return Ranks(0, 1, 0, "127.0.0.1", port or 0, "single")
