"""Learning curves of several runs over each other, against images shown and node-hours."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from sunpipe.report.charts import thin
from sunpipe.report.cost import Cost, cost, finite
from sunpipe.report.covered import together
from sunpipe.report.lines import LARGE, Chart, Line, apart, colour, drawable, lines_chart, lying
from sunpipe.report.quality import SHOWN, XLABEL, curve, curve_rows, label
from sunpipe.report.runfolder import RunFolder
from sunpipe.report.training import whole_ticks

HOURS = "node-hours"
GAN = (("loss_G", "loss of the generator"), ("loss_D", "loss of the discriminator"))
SSL = (("loss", "loss"), ("collapse", "collapse level"))
SPEED = ("sec_per_kimg", "seconds per kimg")


def values(rows: Sequence[dict[str, Any]], key: str) -> Any:
    """One number per row, NaN where it lacks it."""
    return np.array([finite(row.get(key)) for row in rows])


def gap(rows: Sequence[dict[str, Any]]) -> Any:
    """How far the discriminator tells real from generated: the difference of its mean logits."""
    return values(rows, "logits_real") - values(rows, "logits_fake")


def at_hours(kimg: Any, run: RunFolder, spent: Cost) -> Any:
    """Node-hours that had been spent when `kimg` were shown (linear between ticks)."""
    seen = np.concatenate([[0.0], values(run.stats, "kimg")])
    return np.interp(kimg, seen, np.concatenate([[0.0], spent.spent]))


def overlaid(
    key: str, runs: Sequence[RunFolder], of: Callable[[RunFolder], tuple[Any, Any]], xlabel: str,
    ylabel: str, marked: bool = False,
) -> list[Chart]:  # fmt: skip
    """One chart with a line of each run that has the quantity; none when no run has."""
    lines = []
    for place, run in enumerate(runs):
        x, y = of(run)
        chosen, dashed = colour(place)
        lines.append(Line(np.asarray(x, float), np.asarray(y, float), chosen, dashed,
                          marked=marked))  # fmt: skip
    if not drawable(lines):
        return []
    far = apart(lines)
    groups = together(lying(lines), [np.isfinite(thin(line.x, line.y, log=far)[1])
                                     for line in lines])  # fmt: skip
    note = "; ".join(", ".join(runs[place].name for place in group) for group in groups)
    return [
        Chart(f"{ylabel} against {xlabel}", lines_chart(key, lines, xlabel, ylabel, size=LARGE),
              f"Curves on each other: {note}." if note else "")
    ]  # fmt: skip


def learning(runs: Sequence[RunFolder], gan: bool) -> list[Chart]:
    """Losses, the discriminator's lead and the speed, against images shown."""
    charts = []
    for name, ylabel in GAN if gan else SSL:
        charts += overlaid(
            f"curve-{name}", runs,
            lambda run, name=name: (values(run.stats, "kimg"), values(run.stats, name)),  # type: ignore[misc]
            XLABEL, ylabel,
        )  # fmt: skip
    if gan:
        charts += overlaid("curve-gap", runs, lambda run: (values(run.stats, "kimg"),
                                                           gap(run.stats)),
                           XLABEL, "logit, real minus generated")  # fmt: skip
    whole = {run.folder: whole_ticks(run.stats) for run in runs}
    charts += overlaid("curve-speed", runs, lambda run: (values(whole[run.folder], "kimg"),
                                                         values(whole[run.folder], SPEED[0])),
                       XLABEL, SPEED[1])  # fmt: skip
    return charts


def distances(runs: Sequence[RunFolder]) -> tuple[list[Chart], list[Chart]]:
    """Distances from real images measured while training: against images, and node-hours.

    Raises
    ------
    DataError
        A damaged ``metric-generator.jsonl``.
    """
    rows = {run.folder: curve_rows(run) for run in runs}
    spent = {run.folder: cost(run) for run in runs}
    images: list[Chart] = []
    hours: list[Chart] = []
    for name in SHOWN:

        def seen(run: RunFolder, name: str = name) -> tuple[Any, Any]:
            return curve(rows[run.folder], name)

        def paid(run: RunFolder, name: str = name) -> tuple[Any, Any]:
            kimg, value = curve(rows[run.folder], name)
            return at_hours(kimg, run, spent[run.folder]), value

        images += overlaid(f"far-{name}", runs, seen, XLABEL, label(name), marked=True)
        hours += overlaid(f"paid-{name}", runs, paid, HOURS, label(name), marked=True)
    return images, hours


def paid_loss(runs: Sequence[RunFolder], gan: bool) -> list[Chart]:
    """The first loss against node-hours, for runs without distances."""
    name, ylabel = (GAN if gan else SSL)[0]
    return overlaid(
        "paid-loss", runs, lambda run: (cost(run).spent, values(run.stats, name)), HOURS, ylabel
    )
