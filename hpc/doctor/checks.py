"""All checks in the order in which they are shown."""

from __future__ import annotations

from collections.abc import Sequence

from hpc.doctor import (
    data_root,
    environment,
    gpus,
    jsoc,
    links,
    mpi,
    network,
    nodes,
    set_up,
    slurm,
    software,
)
from hpc.doctor.bounded import Check
from hpc.doctor.finding import Finding
from hpc.doctor.place import Place

# Side by side, on this machine.
HERE = (
    Check("python", software.python),
    Check("packages", software.packages, 30.0),
    Check("torch", gpus.torch, 170.0),
    Check("torchvision", software.torchvision, 130.0),
    Check("deepspeed ops", gpus.extensions),
    Check("faiss", software.faiss, 130.0),
    Check("hdf5", software.hdf5, 130.0),
    Check("mpi", mpi.library, 40.0),
    Check("slurm", slurm.reachable, 25.0),
    Check("slurm takes", slurm.accepted, 60.0),
    Check("modules", set_up.modules, 30.0),
    Check("setup", set_up.setup, 15.0),
    Check("container", set_up.container),
    Check("profile's python", set_up.other_python, 70.0),
    Check("data root", data_root.data_root),
    Check("disk space", data_root.space),
    Check("renames", data_root.renames, 75.0),
    Check("interface", network.interface),
    Check("environment", environment.variables),
    Check("weights", environment.weights),
    Check("jsoc", jsoc.jsoc, 25.0),
    Check("monitoring", environment.monitoring),
)
# One after the other, on the nodes: measurements want a quiet machine.
ON_NODES = (
    Check("nodes", nodes.nodes, 100.0),
    Check("renames across nodes", data_root.renames_across, 140.0),
    Check("mpi under srun", mpi.size, 110.0),
    Check("all-reduce", links.all_reduce, 180.0),
)


def not_checked(place: Place, found: Sequence[Finding] = ()) -> list[str]:
    """What only the nodes can tell, where they are not asked, or did not answer the first time."""
    if place.where == "no slurm":
        return []
    if place.srun is None or any(one.ends for one in found):
        told = {one.name for one in found}
        names = *(check.name for check in ON_NODES), "clocks", "scratch"
        return [name for name in names if name not in told]
    return [] if place.nodes * place.tasks_per_node > 1 else ["all-reduce"]
