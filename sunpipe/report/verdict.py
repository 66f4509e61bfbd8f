"""Facts about one run: what it reached, what it cost, and what can be told of its artefacts."""

from __future__ import annotations

from sunpipe.report import numbers
from sunpipe.report.cost import cost
from sunpipe.report.facts import WANTED, Fact
from sunpipe.report.folders import portable
from sunpipe.report.quality import Measured
from sunpipe.report.runfolder import RunFolder


def quality_fact(run: RunFolder, found: Measured | None) -> Fact | None:
    """The Fréchet distance with its spread, beside that of held-out real images."""
    name = "fd_random"
    if found is None or name not in found.means:
        return None
    value = numbers.plus_minus(found.means[name], found.spreads[name])
    text = (f"At {numbers.number(found.kimg)} kimg the Fréchet distance of random features between"
            f" {found.count:,} images of {run.folder.name} and as many real ones is {value}"
            f" over {found.seeds} sets of latents")  # fmt: skip
    images, real = found.beside.get("held_out", (0, {}))
    if images == found.count and name in real:
        text += f"; held-out real images stand at {numbers.number(real[name])}"
    return Fact(f"FD {value}", text + ".")


def cost_fact(run: RunFolder) -> Fact | None:
    """Hours of nodes and GPUs for the images shown."""
    spent, last = cost(run), run.stats[-1]
    if spent.node_hours <= 0:
        return None
    hours = f"{spent.node_hours_text} node-hours"
    more = [f"{numbers.number(spent.gpu_hours)} GPU-hours"] if spent.gpu_hours is not None else []
    if spent.kwh is not None:
        more.append(numbers.with_unit(spent.kwh, "kWh"))
    beside = f" ({', '.join(more)})" if more else ""
    return Fact(
        f"{numbers.number(last['kimg'])} kimg",
        f"{run.folder.name} was shown {last['nimg']:,} images in {hours}{beside}.",
    )


def failure(run: RunFolder) -> list[str]:
    """That a run failed, and why, for the head of a page; empty for one that did not."""
    if run.status.get("state") != "failed":
        return []
    reason = str(run.status.get("reason") or "its status.json does not say why")
    return [f"{run.name} failed: {portable(run, reason).rstrip('.')}"]


def run_facts(run: RunFolder, found: Measured | None, others: list[Fact]) -> list[Fact]:
    """At most three facts: quality, cost, then those of the artefacts in their order."""
    first = [fact for fact in (quality_fact(run, found), cost_fact(run)) if fact is not None]
    return (first + others)[:WANTED]
