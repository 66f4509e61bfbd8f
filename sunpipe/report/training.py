"""Learning curves of the generator and of the encoder, with what a thousand images cost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from sunpipe.errors import DataError
from sunpipe.normalize_settings import NormalizeSettings
from sunpipe.report import numbers
from sunpipe.report.charts import BLUE, GREEN, ORANGE, curves
from sunpipe.report.cost import finite
from sunpipe.report.runfolder import RunFolder
from sunpipe.report.section import Section, section
from sunpipe.report.sources import Sources
from sunpipe.shards.normalize import describe

Rows = list[dict[str, Any]]
LOSSES = ("loss_G", "loss_D", "loss")


def column(rows: Rows, key: str) -> list[float]:
    """One number per tick, NaN where a tick lacks it."""
    return [float(row[key]) if isinstance(row.get(key), int | float) else float("nan")
            for row in rows]  # fmt: skip


SHORT = 0.1  # of the usual tick: the last one of a run may be a few images, and says little


def whole_ticks(rows: Rows) -> Rows:
    """The ticks that are not much shorter than usual: speeds of the others are noise."""
    images = np.diff(np.array(column(rows, "nimg")), prepend=0.0)
    if not len(rows):
        return rows
    least = SHORT * float(np.nanmedian(images))
    return [row for row, shown in zip(rows, images, strict=True) if not shown < least]


def chart(key: str, rows: Rows, lines: dict[str, tuple[str, str]], ylabel: str) -> Any:
    """Curves over kimg; label to (colour, key). None when no tick has any of them."""
    kept = {label: (colour, column(rows, name)) for label, (colour, name) in lines.items()}
    kept = {label: line for label, line in kept.items() if np.isfinite(line[1]).any()}
    if len(rows) < 2 or not kept:
        return None
    kimg = column(rows, "kimg")
    return {"svg": curves(key, kimg, kept, "images shown (thousands, kimg)", ylabel,
                          legend=len(kept) > 1), "title": ylabel}  # fmt: skip


def state(run: RunFolder) -> str:
    """What the run itself says it is doing."""
    status = run.status.get("state", "unknown")
    shown, target = run.status.get("nimg"), run.status.get("target", run.status.get("total"))
    if isinstance(shown, int) and isinstance(target, int):
        return f"{status} at {numbers.number(shown / 1000)} of {numbers.number(target / 1000)} kimg"
    return str(status)


def not_finite(rows: Rows) -> int:
    """Ticks of which a loss is told, but is no finite number: curves have gaps there."""
    return sum(any(key in row and not np.isfinite(finite(row[key])) for key in LOSSES)
               for row in rows)  # fmt: skip


def cost(rows: Rows) -> list[tuple[str, str]]:
    """Time and memory of a run, from its ticks, and how many of them have no finite loss."""
    seconds = np.asarray(column(rows, "sec_per_kimg"))
    wait, memory = column(rows, "data_wait_s"), column(rows, "peak_memory_bytes")
    seconds = seconds[np.isfinite(seconds)]
    found: list[tuple[str, str]] = []
    if len(seconds):
        found.append(("Seconds per kimg", f"{numbers.number(float(np.median(seconds)))} (median of"
                                          f" {len(seconds)} ticks)"))  # fmt: skip
    if np.isfinite(wait).any():
        found.append(("Waiting for data", f"{numbers.number(float(np.nansum(wait)))} s in total"))
    if np.isfinite(memory).any():
        found.append(("Peak memory", numbers.size(float(np.nanmax(memory)))))
    if bad := not_finite(rows):
        found.append(("Loss not finite", f"in {bad:,} of {len(rows):,} ticks"))
    return found


def encoder(run: RunFolder) -> dict[str, Any]:
    """Curves of a self-supervised encoder, and facts about its run."""
    ssl, rows = run.config["ssl"], run.stats
    parts = [
        chart("ssl-loss", rows, {"loss": (BLUE, "loss")}, f"loss of {ssl['method']}"),
        chart("ssl-collapse", rows, {"collapse": (GREEN, "collapse")}, "collapse level"),
        chart("ssl-speed", whole_ticks(rows), {"seconds per kimg": (GREEN, "sec_per_kimg")},
              "seconds per kimg"),
    ]  # fmt: skip
    about = [("Run", run.folder.name), ("State", state(run)), ("Batch", f"{ssl['batch']} images"),
             *cost(rows)]  # fmt: skip
    return {"charts": [part for part in parts if part], "about": about}


def build(run: RunFolder | None, ssl: RunFolder | None) -> dict[str, Any]:
    """What ``training.html`` shows: a generator, an encoder, or both."""
    shown: dict[str, Any] = {"generator": run is not None,
                             "encoder": encoder(ssl) if ssl is not None else None}  # fmt: skip
    if run is None:
        return shown
    rows, train = run.stats, run.config["train"]
    charts = [
        chart("loss", rows, {"generator": (BLUE, "loss_G"), "discriminator": (ORANGE, "loss_D")},
              "loss"),
        chart("logits", rows, {"real": (BLUE, "logits_real"), "generated": (ORANGE, "logits_fake")},
              "mean logit of the discriminator"),
        chart("speed", whole_ticks(rows), {"seconds per kimg": (GREEN, "sec_per_kimg")},
              "seconds per kimg"),
    ]  # fmt: skip
    about = [("Run", run.folder.name), ("State", state(run)),
             ("Seen by the discriminator", f"{numbers.number(rows[-1]['kimg'])} kimg" if rows
              else "nothing yet"),
             ("Batch", f"{train['batch']} images"),
             ("Normalisation", describe(NormalizeSettings(**train["normalize"]), "G")),
             *cost(rows)]  # fmt: skip
    return {**shown, "charts": [part for part in charts if part], "about": about,
            "ticks": len(rows)}  # fmt: skip


def checked(found: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What a run's configuration gives; one of another version is a `DataError`."""
    try:
        return found()
    except (KeyError, TypeError) as error:
        raise DataError(f"config.json is not of this version ({error})") from None


def training(sources: Sources) -> Section:
    """Learning curves of the generator and the encoder, or of the encoder's run alone."""
    run, ssl = sources.run, sources.ssl_run
    if sources.ssl is not None:
        return section("training", "Learning curve", sources, (ssl,),
                       lambda: checked(lambda: build(None, sources.ssl)))  # fmt: skip
    return section("training", "Learning curve", sources, (run,),
                   lambda: checked(lambda: build(run.value, ssl.value)))  # fmt: skip
