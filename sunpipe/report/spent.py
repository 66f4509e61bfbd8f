"""Cost, plan against actual, and interruptions of one run."""

from __future__ import annotations

from typing import Any

import numpy as np

from sunpipe.report import numbers
from sunpipe.report.cost import JOULE_PER_KWH, Cost, cost
from sunpipe.report.faults import SHOWN, faults
from sunpipe.report.planned import planned
from sunpipe.report.runfolder import RunFolder
from sunpipe.report.section import Section, section
from sunpipe.report.sources import Found, Sources


def several(values: Any) -> str:
    """``4``, or ``2 to 8`` where it changed."""
    low, high = int(np.min(values)), int(np.max(values))
    return f"{low}" if low == high else f"{low} to {high}"


def nodes(found: Cost) -> str:
    """Nodes of the ticks; ``about`` where some are guessed."""
    return ("" if found.told else "about ") + several(found.nodes)


def energy(found: Cost) -> str:
    """Energy with what it covers; what to say where nobody told it."""
    if found.kwh is None:
        return "not told by the devices"
    share, total = found.metered, found.total_j
    part = "" if share is None or share > 0.995 else f", of {numbers.percent(share, 0)} of the time"
    if total is not None and share is not None and total > 1.02 * JOULE_PER_KWH * found.kwh:
        whole = numbers.with_unit(total / JOULE_PER_KWH, "kWh")
        part += f"; {whole} with what was done twice"
    return numbers.with_unit(found.kwh, "kWh") + part


def cost_rows(run: RunFolder, found: Cost) -> list[tuple[str, str]]:
    """The cost as label and text."""
    rows = [
        ("Time of all ticks", numbers.duration(3600 * float(found.hours.sum()) or None)),
        ("Nodes", nodes(found)),
        ("Ranks", f"{several(found.ranks)}, " + ("one GPU each" if found.gpus else "on CPUs")),
        ("Node-hours", found.node_hours_text),
        ("GPU-hours", numbers.number(found.gpu_hours) if found.gpus else "none: no GPU"),
        ("Energy", energy(found)),
    ]
    slurm = run.provenance.get("slurm")
    if isinstance(slurm, dict) and slurm.get("SLURM_JOB_ID"):
        rows.append(("First Slurm job", str(slurm["SLURM_JOB_ID"])))
    return rows


def fault_rows(found: dict[str, Any]) -> list[tuple[str, str]]:
    """Interruptions as label and text."""

    def told(value: int | None) -> str:
        return "not told" if value is None else f"{value:,}"

    rows = [
        ("Went on from a checkpoint", f"{found['continued']:,} times"
         if found["continued"] != 1 else "once"),
        ("Restarted by itself", told(found["requeues"])),
        ("Steps left out", numbers.number(found["skipped"])
         if found["nonfinite"] is None else told(found["nonfinite"])),
        ("Hangs", f"{len(found['hangs'])}"),
        ("From creation to the last tick", numbers.duration(3600 * found["lifetime_h"])
         if found["lifetime_h"] is not None else "not told"),
    ]  # fmt: skip
    if found["signal"]:
        rows.append(("Stopped by", found["signal"]))
    if found["reason"]:
        rows.append(("Failed", found["reason"]))
    return rows


def build(run: RunFolder) -> dict[str, Any]:
    """What ``cost.html`` shows."""
    spent, got = cost(run), faults(run)
    longest = sorted(got["pauses"], key=lambda pause: -pause["seconds"])[:SHOWN]
    return {
        "cost": cost_rows(run, spent), "plan": planned(run), "run": run.folder.name,
        "gpus": spent.gpus, "told": spent.told,
        "faults": fault_rows(got), "warnings": got["warnings"],
        "hangs": got["hangs"], "pauses": sorted(longest, key=lambda pause: pause["kimg"]),
        "all_pauses": len(got["pauses"]),
        "paused": sum(pause["seconds"] for pause in got["pauses"]),
    }  # fmt: skip


def spent(sources: Sources) -> Section:
    """What the run has cost, whether that was planned, and what got in its way."""
    run = sources.about
    needed: Found[Any] = Found(run, "current") if run is not None else sources.run
    if run is not None and not run.stats:
        needed = Found(None, "missing", "no tick yet", ("train",))
    return section("cost", "Cost, plan and interruptions", sources, (needed,),
                   lambda: build(needed.value))  # type: ignore[arg-type]  # fmt: skip
