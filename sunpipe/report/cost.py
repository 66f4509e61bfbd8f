"""What a run has cost: hours of nodes and of GPUs, and energy where its devices told it.

Counted from the ticks of ``stats.jsonl``: the time in which a checkpoint was approached that
is still there. Start-ups and what an interruption lost are no ticks; `sunpipe.report.faults`
tells how often that happened.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sunpipe.report import numbers
from sunpipe.report.runfolder import RunFolder

Floats = NDArray[np.float64]
Rows = list[dict[str, Any]]
JOULE_PER_KWH = 3.6e6
RANKS = re.compile(r"(?:, (\d+(?:\.\d+)?) of \S+ kimg)?, (\d+) rank\(s\) \([^)]*\), (\w+)")
RESUMED = re.compile(r"resumed from kimg-(\d+\.\d+)")


@dataclass(frozen=True)
class Cost:
    """The ticks of a run in hours.

    Attributes
    ----------
    hours : ndarray (T,)
        Length of each tick.
    nodes : ndarray (T,)
        Machines that worked in it.
    ranks : ndarray (T,)
        Processes, one per GPU where there are any.
    gpus : bool
        Whether it ran on GPUs.
    energy_j : ndarray (T,)
        Joule of each tick; NaN where nothing told it.
    total_j : float or None
        What the run itself summed up, where the ticks do not say it.
    told : bool
        Whether the nodes of every tick are known; else some are guessed from its ranks.
    timed : bool
        Whether every tick that showed images tells its length; else it counts as none.
    """

    hours: Floats
    nodes: Floats
    ranks: Floats
    gpus: bool
    energy_j: Floats
    total_j: float | None = None
    told: bool = True
    timed: bool = True

    @property
    def node_hours(self) -> float:
        """Of all ticks."""
        return float(np.sum(self.hours * self.nodes))

    @property
    def node_hours_text(self) -> str:
        """``12.0``; ``about 12.0`` where nodes are guessed, ``at least`` where a tick is not timed.

        A dash where no tick tells its time.
        """
        if not self.hours.any():
            return numbers.DASH
        words = ("" if self.timed else "at least ") + ("" if self.told else "about ")
        return words + numbers.number(self.node_hours)

    @property
    def spent(self) -> Floats:
        """Node-hours up to the end of each tick."""
        return np.cumsum(self.hours * self.nodes)

    @property
    def gpu_hours(self) -> float | None:
        """Of all ticks; None for a run on CPUs, and where no tick tells its time."""
        return float(np.sum(self.hours * self.ranks)) if self.gpus and self.hours.any() else None

    @property
    def kwh(self) -> float | None:
        """Energy of the ticks that told it; None where none did."""
        seen = np.isfinite(self.energy_j)
        if seen.any():
            return float(self.energy_j[seen].sum()) / JOULE_PER_KWH
        return None if self.total_j is None else self.total_j / JOULE_PER_KWH

    @property
    def metered(self) -> float | None:
        """Share of the time whose energy is known, 0 to 1; None where only a sum is."""
        total = self.hours.sum()
        if not np.isfinite(self.energy_j).any() or total <= 0:
            return None
        return float(self.hours[np.isfinite(self.energy_j)].sum() / total)


def finite(value: Any) -> float:
    """A number as it is, anything else as NaN."""
    plain = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if plain else math.nan


def tick_hours(rows: Rows) -> Floats:
    """Length of each tick in hours, (T,): ``tick_s``, else images times seconds per kimg.

    A tick that tells neither counts as 0.
    """
    seen = np.array([finite(row.get("nimg")) for row in rows])
    images = np.diff(seen, prepend=0.0)
    told = np.array([finite(row.get("tick_s")) for row in rows])
    derived = images / 1000 * np.array([finite(row.get("sec_per_kimg")) for row in rows])
    seconds = np.where(np.isfinite(told), told, derived)
    return np.clip(np.nan_to_num(seconds, nan=0.0, posinf=0.0), 0.0, None) / 3600


def timed(rows: Rows) -> bool:
    """Whether every tick that showed images tells how long it took."""
    seen = np.diff(np.array([finite(row.get("nimg")) for row in rows]), prepend=0.0) > 0
    told = [any(math.isfinite(finite(row.get(key))) for key in ("tick_s", "sec_per_kimg"))
            for row in rows]  # fmt: skip
    return bool(np.all(told | ~seen))


def hosts(nodelist: str) -> int:
    """How many nodes a Slurm node list such as ``gpu[01-04,7],login`` names; 0 for none.

    Parameters
    ----------
    nodelist : str
        As in ``SLURM_JOB_NODELIST``; what is no such list counts as one node.
    """
    count = 0
    for part in re.findall(r"[^,\[\]]*(?:\[[^\]]*\][^,\[\]]*)*", nodelist):
        if not part:
            continue
        many = 1
        for inside in re.findall(r"\[([^\]]*)\]", part):
            ranges = [re.fullmatch(r"(\d+)-(\d+)", each) for each in inside.split(",")]
            many *= sum(int(found[2]) - int(found[1]) + 1 if found else 1 for found in ranges)
        count += max(many, 1)
    return count


def starts(log: str) -> list[tuple[float, int, str]]:
    """Each start told by a run's log: kimg it began at, ranks, kind of device."""
    found: list[tuple[float, int, str]] = []
    for line in log.splitlines():
        if match := RANKS.search(line):
            found.append((float(match[1] or 0), int(match[2]), match[3]))
        elif found and (match := RESUMED.search(line)):
            found[-1] = (float(match[1]), *found[-1][1:])
    return found


def read_log(run: RunFolder) -> str:
    """``log.txt`` of a run; empty where there is none."""
    path = run.folder / "log.txt"
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def tick_ranks(rows: Rows, told: list[tuple[float, int, str]], otherwise: int) -> Floats:
    """Processes in each tick, (T,): what the row lists, else its start in the log."""
    found = []
    for row in rows:
        listed = row.get("rank_work_s") or row.get("rank_peak_memory_bytes")
        if isinstance(listed, list):
            found.append(float(len(listed)))
            continue
        before = [ranks for kimg, ranks, _ in told if kimg < row["kimg"]]
        found.append(float(before[-1] if before else otherwise))
    return np.array(found)


def tick_nodes(
    rows: Rows, ranks: Floats, told: list[tuple[float, int, str]], machines: int
) -> tuple[Floats, NDArray[np.bool_]]:
    """Nodes in each tick, and whether they are known.

    A tick of a version that tells (``nodes``) is believed. One of an older version has the
    nodes of the job that made the run, if it is of the first start; of a later start, which
    may have had others, they are guessed from its ranks. One rank is on one node.

    Parameters
    ----------
    ranks : ndarray (T,)
        From `tick_ranks`.
    told : list
        From `starts`.
    machines : int
        Nodes of the Slurm job that made the run; 0: not known.

    Returns
    -------
    nodes : ndarray (T,)
    known : ndarray of bool (T,)
    """
    first = told[0][1] if told else 0
    each = max(first / machines, 1.0) if machines and first > 1 else math.inf
    nodes, known = [], []
    for row, here in zip(rows, ranks, strict=True):
        listed = finite(row.get("nodes"))
        later = sum(kimg < row["kimg"] for kimg, *_ in told) > 1
        if math.isfinite(listed) and listed >= 1:
            nodes.append(listed)
        elif here == 1 or later or not (machines and told):
            nodes.append(max(math.ceil(here / each), 1.0))
        else:
            nodes.append(float(machines))
        known.append(nodes[-1] == listed or here == 1 or bool(machines and told and not later))
    return np.array(nodes), np.array(known, dtype=bool)


def cost(run: RunFolder) -> Cost:
    """The cost of a run from its own folder."""
    rows, told = run.stats, starts(read_log(run))
    slurm = run.provenance.get("slurm")
    slurm = slurm if isinstance(slurm, dict) else {}
    machines = hosts(str(slurm.get("SLURM_JOB_NODELIST", "")))
    world = run.status.get("world")
    otherwise = world if isinstance(world, int) and world > 0 else 1
    ranks = tick_ranks(rows, told, otherwise)
    nodes, known = tick_nodes(rows, ranks, told, machines)
    total = finite(run.status.get("energy_j"))
    return Cost(
        hours=tick_hours(rows), nodes=nodes, ranks=ranks,
        gpus=any(device == "cuda" for *_, device in told),
        energy_j=np.array([finite(row.get("energy_j")) for row in rows]),
        total_j=total if math.isfinite(total) else None, told=bool(known.all()), timed=timed(rows),
    )  # fmt: skip
