"""GPUs: what the driver sees, what torch's wheel can use, and whether they compute."""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass
from pathlib import Path
from shutil import which
from typing import Any

from hpc.doctor.ask import ask
from hpc.doctor.finding import Finding
from hpc.doctor.place import Place
from hpc.doctor.software import AGAIN, facts_of
from hpc.profile import Profile
from hpc.stages import STAGES
from hpc.status.text import plain

GIB = 2**30
STALE_BUILD_S = 600.0  # the largest DeepSpeed operation builds in minutes
WHEELS = "https://pytorch.org/get-started/locally/"
CUDA_WHEEL = f"install torch and torchvision together from the index of a CUDA build: {WHEELS}"


@dataclass(frozen=True)
class Driver:
    """What ``nvidia-smi`` says.

    Attributes
    ----------
    gpus : tuple of str
        Names.
    version : str
        Of the driver.
    cuda : tuple of int
        Newest CUDA that it runs.
    """

    gpus: tuple[str, ...]
    version: str
    cuda: tuple[int, int]


def read_driver(table: str, header: str) -> Driver | None:
    """Parse ``nvidia-smi --query-gpu=name,driver_version --format=csv,noheader`` and its header."""
    rows = [line.rsplit(",", 1) for line in table.splitlines() if "," in line]
    cuda = re.search(r"CUDA Version:\s*(\d+)\.(\d+)", header)
    if not rows or not cuda:
        return None
    return Driver(tuple(plain(row[0].strip(), 60) for row in rows), plain(rows[0][1].strip(), 40),
                  (int(cuda[1]), int(cuda[2])))  # fmt: skip


def judge(
    driver: Driver | None, torch: dict[str, Any], asked: int, planned: int = 0, complaint: str = ""
) -> Finding:  # fmt: skip
    """Hold GPUs and wheel against each other.

    A driver runs wheels of its own CUDA major version and of older ones; newer
    minor versions of the same major run too (CUDA Compatibility, "Minor Version
    Compatibility").

    Parameters
    ----------
    driver : Driver or None
        None: no NVIDIA driver answers here.
    torch : dict
        From `sunpipe.libraries.try_torch`.
    asked : int
        GPUs per node that the job was given; 0 on a login node.
    planned : int
        GPUs per node that the profile asks for, for this very Python.
    complaint : str
        Of an nvidia-smi that fails.
    """
    if fault := torch.get("fault"):
        return Finding("torch", "MISS", plain(fault), f"{AGAIN} torch torchvision")
    wheel, cuda = f"torch {torch['version']}", torch["cuda"]
    if driver is None:
        says = f" ({complaint})" if complaint else ""
        if asked:
            return Finding("torch", "MISS", f"{wheel}; the job has {asked} GPUs per node, but"
                           f" nvidia-smi sees none here{says}", "tell the cluster's administrators"
                           " the node's name; leave it out: sbatch --exclude=NODE")  # fmt: skip
        if planned and cuda is None:
            return Finding("torch", "MISS", f"the profile asks for {planned} GPUs per node, but"
                           f" {wheel} is for the CPU only", CUDA_WHEEL)  # fmt: skip
        if complaint:
            return Finding(
                "torch",
                "WARN",
                f"{wheel}; nvidia-smi fails here: {complaint}",
                "have the driver repaired, if this machine has GPUs: nvidia-smi",
            )
        return Finding("torch", "OK", f"{wheel} (CUDA {cuda or 'none: CPU only'}); no GPU here")
    there = f"{len(driver.gpus)} x {driver.gpus[0]}, driver {driver.version} for CUDA" \
            f" {driver.cuda[0]}.{driver.cuda[1]}"  # fmt: skip
    if cuda is None:
        return Finding("torch", "MISS", f"{there}; but {wheel} is for the CPU only", CUDA_WHEEL)
    if int(cuda.split(".")[0]) > driver.cuda[0]:
        return Finding("torch", "MISS", f"{there}; {wheel} needs CUDA {cuda}", "install a wheel"
                       f" for CUDA {driver.cuda[0]}.x, or have the driver updated: {WHEELS}"
                       )  # fmt: skip
    faults = [f"GPU {number} ({one['name']}): {plain(one['fault'])}"
              for number, one in enumerate(torch["devices"]) if "fault" in one]  # fmt: skip
    if faults:
        return Finding("torch", "MISS", f"{wheel} cannot compute on {'; '.join(faults)}; the wheel"
                       f" holds code for {' '.join(torch['archs'])}", "a wheel for this GPU:"
                       f" {WHEELS}; if it worked before, leave the node out: sbatch --exclude=NODE"
                       )  # fmt: skip
    seen = len(torch["devices"])
    if seen < len(driver.gpus):
        hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
        why = f" (CUDA_VISIBLE_DEVICES={hidden})" if hidden is not None else ""
        return Finding("torch", "WARN" if seen else "MISS", f"{there}; torch sees {seen}{why}",
                       "unset CUDA_VISIBLE_DEVICES, or ask for them: --gpus-per-node")  # fmt: skip
    memory = min(one["bytes"] for one in torch["devices"]) / GIB
    return Finding("torch", "OK", f"{there}, {memory:.0f} GiB each; {wheel} (CUDA {cuda}, NCCL"
                   f" {torch['nccl']}) computes on all")  # fmt: skip


def torch(place: Place) -> Finding:
    """torch, and the GPUs of this machine."""
    driver, complaint = None, ""
    if program := which("nvidia-smi"):
        query = "--query-gpu=name,driver_version"
        table = ask([program, query, "--format=csv,noheader"], 20.0)
        driver = read_driver(table.out, ask([program], 20.0).out) if table.code == 0 else None
        if driver is None and table.late:
            return Finding("torch", "MISS", table.words, "the driver hangs; leave this node out:"
                           " sbatch --exclude=NODE")  # fmt: skip
        complaint = "" if driver else table.words
    return judge(driver, facts_of("torch"), place.gpus_per_node if place.where == "allocation"
                 else 0, planned_gpus(place.profile), complaint)  # fmt: skip


def planned_gpus(profile: Profile | None) -> int:
    """Most GPUs per node that a stage of the profile asks for; 0 where another Python runs it."""
    if profile is None or profile.python or profile.container:
        return 0
    return max(getattr(profile.stages, stage).gpus_per_node or 0 for stage in STAGES)


def extensions_folder(env: dict[str, str] | os._Environ[str]) -> Path:
    """Where torch builds run-time extensions (torch.utils.cpp_extension)."""
    given = env.get("TORCH_EXTENSIONS_DIR")
    return Path(given).expanduser() if given else Path("~/.cache/torch_extensions").expanduser()


def stale_locks(folder: Path, now: float) -> list[Path]:
    """Lock files of builds that nobody can still be at.

    torch's `FileBaton` waits without end for the file to go, and only the process
    that made it removes it.
    """
    found = []
    for pattern in ("*/lock", "*/*/lock"):
        for path in folder.glob(pattern):
            if path.is_file() and now - path.stat().st_mtime > STALE_BUILD_S:
                found.append(path)
    return sorted(found)


def extensions(place: Place) -> Finding:
    """No lock of a killed build is left; a compiler is there."""
    folder = extensions_folder(dict(place.env))
    stale = stale_locks(folder, time.time())
    if stale:
        return Finding("deepspeed ops", "MISS", f"{len(stale)} lock files of killed builds in"
                       f" {folder}: every later run waits there without a word",
                       "rm " + " ".join(map(str, stale[:5])))  # fmt: skip
    compiler = which("c++") or which("g++")
    if not compiler or not which("ninja"):
        lacks = "a C++ compiler" if not compiler else "ninja"
        return Finding("deepspeed ops", "OK", f"no stale locks in {folder}; {lacks} is not here,"
                       " and sunpipe builds nothing at run time")  # fmt: skip
    return Finding("deepspeed ops", "OK", f"no stale locks in {folder}; {compiler} and ninja")
