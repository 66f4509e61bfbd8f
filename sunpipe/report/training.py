"""Learning curves of the generator and of the encoder, with what a thousand images cost."""

from __future__ import annotations

from typing import Any

import numpy as np

from sunpipe.normalize_settings import NormalizeSettings
from sunpipe.report import numbers
from sunpipe.report.charts import BLUE, GREEN, ORANGE, curves
from sunpipe.report.section import Section, section
from sunpipe.report.sources import RunFolder, Sources
from sunpipe.shards.normalize import describe

Rows = list[dict[str, Any]]


def column(rows: Rows, key: str) -> list[float]:
    """One number per tick, NaN where a tick lacks it."""
    return [float(row[key]) if isinstance(row.get(key), int | float) else float("nan")
            for row in rows]  # fmt: skip


def chart(key: str, rows: Rows, lines: dict[str, tuple[str, str]], ylabel: str) -> Any:
    """Curves over kimg; label to (colour, key). None when no tick has any of them."""
    kept = {label: (colour, column(rows, name)) for label, (colour, name) in lines.items()}
    kept = {label: line for label, line in kept.items() if np.isfinite(line[1]).any()}
    if len(rows) < 2 or not kept:
        return None
    return {"svg": curves(key, column(rows, "kimg"), kept, "images shown (thousands, kimg)", ylabel,
                          legend=len(kept) > 1), "title": ylabel}  # fmt: skip


def state(run: RunFolder) -> str:
    """What the run itself says it is doing."""
    status = run.status.get("state", "unknown")
    shown, target = run.status.get("nimg"), run.status.get("target", run.status.get("total"))
    if isinstance(shown, int) and isinstance(target, int):
        return f"{status} at {numbers.number(shown / 1000)} of {numbers.number(target / 1000)} kimg"
    return str(status)


def cost(rows: Rows) -> list[tuple[str, str]]:
    """Time and memory of a run, from its ticks."""
    seconds = np.asarray(column(rows, "sec_per_kimg"))
    wait, memory = column(rows, "data_wait_s"), column(rows, "peak_memory_bytes")
    seconds = seconds[np.isfinite(seconds)]
    found = []
    if len(seconds):
        found.append(("Seconds per kimg", f"{numbers.number(float(np.median(seconds)))} (median of"
                                          f" {len(seconds)} ticks)"))  # fmt: skip
    if np.isfinite(wait).any():
        found.append(("Waiting for data", f"{numbers.number(float(np.nansum(wait)))} s in total"))
    if np.isfinite(memory).any():
        found.append(("Peak memory", numbers.size(float(np.nanmax(memory)))))
    return found


def build(sources: Sources, run: RunFolder) -> dict[str, Any]:
    """What ``training.html`` shows."""
    rows, train = run.stats, run.config["train"]
    charts = [
        chart("loss", rows, {"generator": (BLUE, "loss_G"), "discriminator": (ORANGE, "loss_D")},
              "loss"),
        chart("logits", rows, {"real": (BLUE, "logits_real"), "generated": (ORANGE, "logits_fake")},
              "mean logit of the discriminator"),
        chart("speed", rows, {"seconds per kimg": (GREEN, "sec_per_kimg")}, "seconds per kimg"),
    ]  # fmt: skip
    about = [("Run", run.folder.name), ("State", state(run)),
             ("Seen by the discriminator", f"{numbers.number(rows[-1]['kimg'])} kimg" if rows
              else "nothing yet"),
             ("Batch", f"{train['batch']} images"),
             ("Normalisation", describe(NormalizeSettings(**train["normalize"]), "G")),
             *cost(rows)]  # fmt: skip
    encoder: dict[str, Any] | None = None
    ssl = sources.ssl_run.value
    if ssl is not None:
        method = f"loss of {ssl.config['ssl']['method']}"
        parts = [
            chart("ssl-loss", ssl.stats, {"loss": (BLUE, "loss")}, method),
            chart("ssl-collapse", ssl.stats, {"collapse": (GREEN, "collapse")},
                  "collapse level"),
        ]  # fmt: skip
        encoder = {"charts": [part for part in parts if part], "about": [
            ("Run", ssl.folder.name), ("State", state(ssl)), *cost(ssl.stats)]}  # fmt: skip
    return {"charts": [part for part in charts if part], "about": about, "encoder": encoder,
            "ticks": len(rows)}  # fmt: skip


def training(sources: Sources) -> Section:
    """Learning curves."""
    run = sources.run
    return section("training", "Learning curve", sources, (run,),
                   lambda: build(sources, run.value))  # type: ignore[arg-type]  # fmt: skip
