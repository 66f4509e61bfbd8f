"""MPI: the library that mpi4py finds, and the size that srun's ranks see."""

from __future__ import annotations

import importlib.metadata
import sys

from hpc.doctor.ask import ask
from hpc.doctor.finding import BUSY, Finding, Level, not_free
from hpc.doctor.place import Place, on_nodes, python_on_nodes
from hpc.profile import Profile
from hpc.status.text import plain

INSTALL = 'pip install "sunpipe[mpi,mpich]", or sunpipe[mpi] and load the site\'s MPI module'


def wanted(profile: Profile | None) -> bool:
    """Whether the profile shares a stage among MPI ranks."""
    return profile is not None and profile.stages.shard.nodes * (
        profile.stages.shard.tasks_per_node) > 1  # fmt: skip


def library(place: Place) -> Finding:
    """mpi4py loads an MPI library."""
    level: Level = "MISS" if wanted(place.profile) else "WARN"
    try:
        version = importlib.metadata.version("mpi4py")
    except importlib.metadata.PackageNotFoundError:
        return Finding("mpi", level, "mpi4py is not installed: shard runs as one process", INSTALL)
    answer = ask([sys.executable, "-m", "mpi4py", "--mpi-lib-version"], 30.0)
    if answer.code != 0:
        return Finding("mpi", level, f"mpi4py {version}: {answer.words}", INSTALL)
    lines = answer.out.splitlines()
    return Finding("mpi", "OK", f"mpi4py {version}, {plain(lines[0] if lines else '', 60)}")


def size(place: Place) -> list[Finding]:
    """Two tasks of srun are two ranks of one MPI world."""
    if place.srun is None:
        return []
    kind = place.profile.mpi if place.profile else "pmi2"
    nodes = 2 if place.nodes > 1 else 1
    argv = on_nodes(place, nodes, 2 // nodes,
                    *python_on_nodes(place, "-m", "hpc.doctor.mpi_size"), mpi=kind)  # fmt: skip
    answer = ask(argv, 90.0)
    if answer.code == 0 and answer.out.split()[-1:] == ["2"]:
        return [Finding("mpi under srun", "OK", f"2 ranks on {nodes} nodes with --mpi={kind}")]
    if BUSY in answer.err:
        return [not_free("mpi under srun", nodes)]
    kinds = ask(["srun", "--mpi=list"], 10.0)
    known = plain(" ".join((kinds.err + kinds.out).split()), 120)
    level: Level = "MISS" if wanted(place.profile) or place.profile is None else "WARN"
    return [Finding("mpi under srun", level, f"--mpi={kind}: {answer.words}",
                    "mpi in the profile (SUNPIPE_MPI for jobs/*.sh) must fit the library: pmi2 for"
                    f" MPICH, pmix for Open MPI; srun knows: {known}")]  # fmt: skip
