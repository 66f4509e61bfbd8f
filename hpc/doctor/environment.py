"""Variables that spoil a job without a word, and files that a configuration names."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from shutil import which

from hpc.doctor.finding import Finding
from hpc.doctor.place import Place
from hpc.status.text import plain
from sunpipe.checkpoint import complete
from sunpipe.dist import discover
from sunpipe.errors import DataError, UsageError
from sunpipe.paths import Layout
from sunpipe.run import find_run
from sunpipe.train.warm_folder import is_checkpoint, warm_folder

SLOW = {"NCCL_P2P_DISABLE": "1", "NCCL_IB_DISABLE": "1", "NCCL_SHM_DISABLE": "1",
        "CUDA_LAUNCH_BLOCKING": "1", "TORCH_DISTRIBUTED_DEBUG": "DETAIL"}  # fmt: skip
MOST_HEADER = 100 * 2**20  # of a safetensors file, by its specification


def variables(place: Place) -> list[Finding]:
    """What in the environment makes ranks that do not meet, other code, or a slow training."""
    env, found = place.env, []
    try:
        discover(env, address=lambda node: node)
    except UsageError as error:
        found.append(Finding("environment", "MISS", plain(error),
                             "unset RANK WORLD_SIZE LOCAL_RANK MASTER_ADDR MASTER_PORT"
                             ))  # fmt: skip
    if path := env.get("PYTHONPATH"):
        found.append(Finding("environment", "WARN", f"PYTHONPATH={plain(path, 100)} comes before"
                             " the installed packages", "unset PYTHONPATH"))  # fmt: skip
    if not env.get("OMP_NUM_THREADS") and place.where == "allocation":
        found.append(Finding("environment", "WARN", "OMP_NUM_THREADS is not set: every rank starts"
                             " a thread per core of the node",
                             "export OMP_NUM_THREADS=$SLURM_CPUS_PER_TASK"))  # fmt: skip
    if slow := [f"{key}={env[key]}" for key, value in SLOW.items() if env.get(key) == value]:
        found.append(Finding("environment", "WARN", f"{' '.join(slow)} slows training down",
                             f"unset {' '.join(one.split('=')[0] for one in slow)}"))  # fmt: skip
    if not (env.get("SUNPIPE_ROOT") or env.get("SCRATCH")) and place.where != "no slurm":
        found.append(Finding("environment", "WARN", f"SUNPIPE_ROOT is not set: data goes to"
                             f" {place.root}", "export SUNPIPE_ROOT=<a folder on the cluster's"
                             " scratch file system>"))  # fmt: skip
    return found or [Finding("environment", "OK", "no variable that spoils a run")]


def safetensors_fault(path: Path) -> str:
    """Why a file is no safetensors file; empty if it is one. Only the header is read."""
    try:
        with open(path, "rb") as handle:
            begin = handle.read(8)
            size = struct.unpack("<Q", begin)[0] if len(begin) == 8 else 0
            if not 2 <= size <= MOST_HEADER:
                return "is no safetensors file"
            header = json.loads(handle.read(size))
            ends = [row["data_offsets"][1] for key, row in header.items() if key != "__metadata__"]
            whole = 8 + size + max(ends, default=0)
            there = path.stat().st_size
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        return "is no safetensors file"
    return "" if there == whole else f"has {there} bytes of {whole}: it was cut short"


def weights(place: Place) -> list[Finding]:
    """Weights that the configuration starts from: a file of ``ssl``, a run of ``train``."""
    found = []
    if given := place.config.ssl.weights:
        path = Path(given).expanduser()
        if fault := safetensors_fault(path):
            found.append(Finding("weights", "MISS", f"ssl.weights: {path} {fault}",
                                 "fetch the file again, or set ssl.weights to one that is here"
                                 ))  # fmt: skip
        else:
            found.append(Finding("weights", "OK", f"ssl.weights: {path}"))
    if run := place.config.train.warm.run:
        found.append(warm(Layout(place.root), run, place.config.name))
    return found


def warm(layout: Layout, run: str, name: str) -> Finding:
    """The checkpoint that the training called `name` starts from, if it has to start."""
    try:
        folder = warm_folder(layout, run)
    except DataError:
        folder = None
    if folder is not None and (source := _newest(folder)):
        return Finding("weights", "OK", f"train.warm.run: {source}")
    own = find_run(layout, name)  # the one that goes on; it started from them long ago
    if own is not None and complete(own / "checkpoints"):
        return Finding("weights", "OK", f"train.warm.run: not needed any more, {own.name} has"
                       " checkpoints of its own")  # fmt: skip
    why = (f"no run {plain(run, 100)!r} with a whole checkpoint under {layout.runs}"
           if folder is None or folder.parent == layout.runs else
           f"{plain(folder)} has no whole checkpoint")  # fmt: skip
    return Finding("weights", "MISS", f"train.warm.run: {why}", "train that run first, or name one"
                   " that is there: sunpipe status --all")  # fmt: skip


def _newest(folder: Path) -> Path | None:
    """Newest whole checkpoint of a run's folder, or `folder` if it is one."""
    if is_checkpoint(folder):
        return folder if (folder / "COMPLETE").is_file() else None
    there = complete(folder / "checkpoints")
    return there[-1] if there else None


def monitoring(place: Place) -> Finding:
    """Prometheus, for ``make monitor`` only."""
    there = [name for name in ("prometheus", "promtool", "grafana-server") if which(name)]
    seen = ", ".join(there) if there else "no Prometheus"
    return Finding("monitoring", "OK", f"{seen}; optional, for make monitor and its alerts")
