"""What the fault campaign works with: a real Slurm, small trainings, and what is asked of them."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hpc import daemon
from hpc.cluster import Cluster
from sunpipe import checkpoint
from sunpipe.files import sha256

REPO = Path(__file__).resolve().parent.parent
FILES = ("G", "G_ema", "D", "zero/G", "zero/D")
SMALL = ("--nodes=2", "--ntasks-per-node=1", "--cpus-per-task=1", "--gpus-per-node=0")
SETTINGS = ("-c", "configs/tiny.toml", "--set", "train.checkpoint_kimg=0.016",
            "--set", "train.image_kimg=1000", "--set", "train.timeout_s=60")  # fmt: skip
ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "PREEMPTED", "BOOT_FAIL")
BOUND_S = 90.0  # no fault may leave a training hanging for longer


class Wrong(Exception):
    """A fault that did not end as it should."""


def require(right: bool, what: str) -> None:
    """Fail the attempt, saying `what`, unless `right`."""
    if not right:
        raise Wrong(what)


def until(what: str, ready: Callable[[], Any], patience: float = 240.0) -> float:
    """Wait for a condition; the seconds that it took."""
    start = time.monotonic()
    while not ready():
        if time.monotonic() - start > patience:
            raise Wrong(f"{what}: not within {patience:g} s")
        time.sleep(0.05)
    return time.monotonic() - start


@dataclass
class Seen:
    """What one attempt showed.

    Attributes
    ----------
    outcome : str
        ``resumed``, ``stopped clearly``, ``not disturbed`` or ``refused``.
    detected_s : float or None
        From the fault until the training had ended or said so.
    again_s : float or None
        From the fault until images were trained again.
    line : str
        What the user reads.
    """

    outcome: str
    line: str
    detected_s: float | None = None
    again_s: float | None = None
    more: dict[str, Any] = field(default_factory=dict)


@dataclass
class Training:
    """One data root with a training in it, by Slurm or on this machine."""

    rig: Rig
    root: Path
    job: str = ""

    @property
    def run(self) -> Path:
        """Its run folder; there must only ever be one."""
        found = sorted((self.root / "runs").glob("[0-9]*-tiny"))
        require(len(found) <= 1, f"{len(found)} run folders: a start from nothing")
        return found[0] if found else self.root / "runs/00000-tiny"

    @property
    def checkpoints(self) -> list[Path]:
        """Whole checkpoints, oldest first."""
        return checkpoint.complete(self.run / "checkpoints")

    @property
    def newest(self) -> str:
        """Name of the newest checkpoint, empty without one."""
        return max((path.name for path in self.checkpoints), default="")

    def text(self, name: str = "") -> str:
        """The job's log, or a file of the run folder."""
        path = self.run / name if name else self.root / "log.txt"
        return path.read_text(errors="replace") if path.exists() else ""

    def lines(self, pattern: str, name: str = "") -> list[str]:
        """Lines of `text` that match."""
        return [line for line in self.text(name).splitlines() if re.search(pattern, line)]

    def submit(
        self, *more: str, options: Sequence[str] = (), kimg: float = 0.0,
        env: dict[str, str] | None = None,
    ) -> str:  # fmt: skip
        """``sbatch jobs/train_stylegan_1024.sh``; its job id."""
        done = self.rig.slurm(
            "sbatch", "--parsable", f"--output={self.root}/log.txt", *SMALL, *options,
            "jobs/train_stylegan_1024.sh", *SETTINGS,
            "--set", f"train.kimg={kimg or self.rig.kimg}", *more, root=self.root, env=env,
        )  # fmt: skip
        require(done.returncode == 0, done.stderr.strip())
        self.job = done.stdout.strip()
        return self.job

    def pids(self, rank: int | None = None) -> list[int]:
        """Processes of the training's ranks."""
        return [pid for pid, env in self.rig.processes()
                if f"SUNPIPE_ROOT={self.root}" in env and "SLURM_PROCID" in " ".join(env)
                and _is_rank(pid) and (rank is None or f"SLURM_PROCID={rank}" in env)]  # fmt: skip

    def first_images(self) -> None:
        """Wait for a checkpoint."""
        until("a first checkpoint", lambda: self.newest or self.ended())
        require(bool(self.newest), f"ended before a checkpoint: {self.text()[-300:]}")

    def ended(self, job: str = "") -> bool:
        """Whether the job has left the queue for good."""
        return self.rig.state(job or self.job)["JobState"] in ENDED

    def again(self, since: str, fault: float) -> float:
        """Wait until a new life trains; seconds from the `fault` (monotonic) until then.

        Parameters
        ----------
        since : str
            Job's log at the fault: a ``kimg`` line after a later ``resumed from`` counts.
        """

        def trains() -> bool:
            new = self.text()[len(since) :]
            return bool(re.search(r"^resumed from .*\n(?:.*\n)*?kimg ", new, re.MULTILINE))

        until("training again", lambda: trains() or self.ended(), 300)
        require(trains(), f"ended without training again: {self.text()[-400:]}")
        return time.monotonic() - fault

    def completes(self, reference: str = "two ranks", patience: float = 400.0) -> None:
        """The job ends well, with the weights of an undisturbed run."""
        until(f"end of job {self.job}", self.ended, patience)
        state = self.rig.state(self.job)["JobState"]
        require(state == "COMPLETED", f"{state}: {self.text()[-500:]}")
        self.same(reference)

    def same(self, reference: str = "two ranks") -> None:
        """The last weights are those of an undisturbed run, to the last bit."""
        known = self.rig.reference[reference]
        found = self.digests()
        differ = [name for name in FILES if found[name] != known[name]]
        require(not differ, f"{', '.join(differ)} of {self.newest} differ from an undisturbed run")

    def digests(self) -> dict[str, str]:
        """SHA-256 of each file of the last weights."""
        final = self.run / "checkpoints" / self.newest
        return {name: sha256(final / f"{name}.safetensors") for name in FILES}

    def here(
        self, *more: str, env: dict[str, str] | None = None, kimg: float = 0.0,
        log: Path | None = None,
    ) -> subprocess.Popen[str]:  # fmt: skip
        """``sunpipe train`` on this machine, alone; output to `log`, else ``log.txt``."""
        full = {**os.environ, "SUNPIPE_ROOT": str(self.root), "OMP_NUM_THREADS": "1", **(env or {})}
        with open(log or self.root / "log.txt", "a", encoding="utf-8") as said:
            return subprocess.Popen(
                [sys.executable, "-m", "sunpipe", "train", *SETTINGS, "--set",
                 f"train.kimg={kimg or self.rig.kimg}", *more],
                cwd=REPO, env=full, stdout=said, stderr=said, text=True,
            )  # fmt: skip


def _is_rank(pid: int) -> bool:
    with suppress(OSError):
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        return words[2:3] == [b"train"] and Path(words[1].decode()).name == "sunpipe"
    return False


@dataclass
class Rig:
    """The cluster, a dataset, and the weights of undisturbed runs."""

    cluster: Cluster
    work: Path
    shards: Path
    kimg: float
    reference: dict[str, dict[str, str]] = field(default_factory=dict)

    def training(self, name: str) -> Training:
        """A fresh data root with the dataset in it."""
        root = self.work / name
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir(parents=True)
        shutil.copytree(self.shards, root / "shards")
        return Training(self, root)

    def slurm(
        self, *argv: str, root: Path | None = None, env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """A command with this cluster in its environment."""
        full = {**os.environ, "SLURM_CONF": str(self.cluster.conf), "OMP_NUM_THREADS": "1",
               "SUNPIPE_ROOT": str(root or self.work), **(env or {})}  # fmt: skip
        return subprocess.run(argv, env=full, cwd=REPO, capture_output=True, text=True,
                              timeout=60, check=False)  # fmt: skip

    def state(self, job: str) -> dict[str, str]:
        """What the controller knows of a job; ``UNKNOWN`` while it does not answer."""
        done = self.slurm("scontrol", "--oneliner", "show", "job", job)
        row = dict(re.findall(r"(\w+)=(\S*)", done.stdout.split("\n")[0]))
        return row if done.returncode == 0 and row else {"JobState": "UNKNOWN", "Restarts": "0"}

    def processes(self) -> list[tuple[int, list[str]]]:
        """Processes of this cluster, each with its environment."""
        found = []
        for pid in daemon.leftovers(self.cluster.token):
            with suppress(OSError):
                raw = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace")
                found.append((pid, raw.split("\0")))
        return found

    def on_node(self, node: str) -> list[int]:
        """What runs for jobs on a node: tasks, batch scripts, and the slurmstepds above them."""
        tasks = [pid for pid, env in self.processes() if f"SLURMD_NODENAME={node}" in env]
        above = set()
        for pid in tasks:
            with suppress(OSError):
                parent = daemon.parse_stat(Path(f"/proc/{pid}/stat").read_text())[1]
                if b"slurmstepd" in Path(f"/proc/{parent}/cmdline").read_bytes():
                    above.add(parent)
        return [*above, *tasks]

    def daemon_pid(self, name: str) -> int:
        """Process of a daemon."""
        return next(one.pid for one in self.cluster.daemons if one.name == name)


def kill(pids: Sequence[int], number: signal.Signals = signal.SIGKILL) -> None:
    """Send a signal to each process that is still there."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)
