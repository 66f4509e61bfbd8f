"""The three facts: chosen by a rule, worded from the measured numbers.

Each subject gives at most one fact, in this order: the physics check, the best
direction, the search, real against generated, the training, the data. The
first three that can be told are told, whether they flatter or not.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sunpipe.errors import DataError
from sunpipe.report import numbers
from sunpipe.report.cost import finite
from sunpipe.report.retrieval import beats_control
from sunpipe.report.sources import Sources
from sunpipe.report.walked import scores

if TYPE_CHECKING:
    from sunpipe.embed.searches import Search
    from sunpipe.report.compare import Comparison

WANTED = 3
AGREE = 1e-3  # relative difference up to which two numbers are said to agree


@dataclass(frozen=True)
class Fact:
    """One measured fact.

    Attributes
    ----------
    headline : str
        A few words or a number.
    text : str
        One true sentence with numbers and units.
    """

    headline: str
    text: str


def checkable(archive: Path) -> Iterator[tuple[Path, Path, Path, Path, Path]]:
    """Br, Bt, Bp, bitmap, conf_disambig of the archive's records that have all five."""
    segments = ("Br", "Bt", "Bp", "bitmap", "conf_disambig")
    for path in sorted(archive.glob("*/*/*/*.Br.fits")):
        stem = path.name.removesuffix("Br.fits")
        br, bt, bp, bitmap, confidence = (path.with_name(f"{stem}{name}.fits") for name in segments)
        if all(each.is_file() for each in (bt, bp, bitmap, confidence)):
            yield br, bt, bp, bitmap, confidence


def told(value: Any) -> bool:
    """Whether a value is a number to compare with: finite and not 0."""
    return isinstance(value, int | float) and math.isfinite(value) and value != 0


def header_check(archive: Path) -> dict[str, Any] | None:
    """USFLUX of the first complete record whose header states it, from its pixels too."""
    from sunpipe.physics.record import measure_files

    for br, bt, bp, bitmap, confidence in checkable(archive):
        try:
            found = measure_files((br, bt, bp), bitmap=bitmap, conf_disambig=confidence)
        except DataError:
            continue  # a damaged file of the archive: sunpipe shard names it
        value, header = found["keywords"]["USFLUX"], found["header"].get("USFLUX")
        if told(value) and told(header):
            return {"record": found["record"], "value": value, "header": header,
                    "pixels": found["cmask"], "difference": value / header - 1}  # fmt: skip
    return None


def physics_fact(check: dict[str, Any] | None) -> Fact | None:
    """Pixels against header."""
    if check is None:
        return None
    off = abs(check["difference"])
    if off > AGREE:
        how = f"differ by {numbers.percent(off)}"
    else:
        how = "agree " + (f"to {numbers.number(off, 1)} of its value" if off else "exactly")
    return Fact(
        f"{numbers.with_unit(check['value'], 'Mx', 4)}",
        f"USFLUX of {check['record']}, summed over its {check['pixels']:,} pixels, is"
        f" {numbers.with_unit(check['value'], 'Mx', 6)}; its header says"
        f" {numbers.with_unit(check['header'], 'Mx', 6)}: they {how}.",
    )


def direction_fact(rows: list[dict[str, Any]]) -> Fact | None:
    """The direction with the best held-out accuracy, and its worst side effect.

    Parameters
    ----------
    rows : list of dict
        From `sunpipe.report.walked.scores`, best first.
    """
    if not rows or rows[0]["extremes"] is None:
        return None
    best = rows[0]
    chance = best["random_extremes"]
    random = f" (random directions: {numbers.percent(chance)})" if chance is not None else ""
    clauses = [
        f"A linear direction in w tells high {best['name']} from low in"
        f" {numbers.percent(best['extremes'])} of {best['extremes_count']} held-out generated"
        f" patches from the top and bottom {numbers.percent(best['share'], 0)}{random}"
    ]
    step = best["steps"].get("plain")
    if step is not None:
        clauses.append(f"a step of one standard deviation of w along it changes the median"
                       f" {best['name']} by {numbers.signed(step, best['unit'])}")  # fmt: skip
    before, after = best["plain_leak"], best["conditional_leak"]
    if before is not None:
        side = (f"its largest side effect is on {before['quantity']},"
                f" {numbers.fixed(before['slope'])} standard deviations per standard deviation"
                f" of {best['name']}")  # fmt: skip
        if after is not None:
            side += (f", and after conditioning the largest left is on {after['quantity']},"
                     f" {numbers.fixed(after['slope'])}")  # fmt: skip
        clauses.append(side)
    return Fact(numbers.percent(best["extremes"]), "; ".join(clauses) + ".")


def flux_fact(search: Search) -> Fact | None:
    """Whether the nearest observation has the flux of what was asked."""
    about = search.quantities.get("USFLUX")
    if about is None or about["spearman"] is None or about["spearman_shuffled_p95"] is None:
        return None
    rank, control = about["spearman"], about["spearman_shuffled_p95"]
    verdict = "" if beats_control(about, "spearman") else ", so it is no better than chance"
    pearson = numbers.fixed(about["pearson"])
    return Fact(
        f"ρ = {numbers.fixed(rank)}",
        f"Between {about['n']} generated patches and the real observation nearest to each,"
        f" USFLUX correlates with Spearman's ρ = {numbers.fixed(rank)} (Pearson's r ="
        f" {pearson}); with matches dealt at random |ρ| stays below"
        f" {numbers.fixed(control)} in 95 % of deals{verdict}.",
    )


def held_out_fact(known: list[dict[str, Any]]) -> Fact | None:
    """Whether held-out records find their own active region."""
    if not known:
        return None
    right = sum(row["found"] for row in known)
    first = known[0]
    return Fact(
        f"{right} of {len(known)}",
        f"Asked with a held-out record that may not answer itself, the index puts another record"
        f" of the same active region first in {right} of {len(known)} cases, among"
        f" {first['candidates']} records: {first['record']} finds {first['answer']} at distance"
        f" {numbers.number(first['distance'], 2)}.",
    )


def likeness_fact(distances: list[dict[str, Any]]) -> Fact | None:
    """The quantity whose distribution is reproduced worst."""
    rows = [row for row in distances if row["generated_ks"] is not None]
    if not rows:
        return None
    worst = max(rows, key=lambda row: row["generated_ks"])
    return Fact(
        f"KS {numbers.fixed(worst['generated_ks'])}",
        f"The distribution reproduced worst is that of {worst['name']}: the median of generated"
        f" patches is {numbers.with_unit(worst['generated_median'], worst['unit'])}, that of real"
        f" ones {numbers.with_unit(worst['real_median'], worst['unit'])}, and the"
        f" Kolmogorov-Smirnov distance {numbers.fixed(worst['generated_ks'])}.",
    )


def mean_speed(stats: list[dict[str, Any]]) -> float | None:
    """Images per second over the ticks that tell it: all their images over all their time."""
    seen = np.array([row["nimg"] for row in stats], float)
    images = np.diff(seen, prepend=0.0)
    paces = np.array([finite(row.get("sec_per_kimg")) for row in stats])
    known = np.isfinite(paces) & (images > 0)
    seconds = float(np.sum(images[known] / 1000 * paces[known]))
    return float(np.sum(images[known])) / seconds if seconds > 0 else None


def training_fact(sources: Sources) -> Fact | None:
    """How much was trained, and how fast."""
    run = sources.run.value
    if run is None or not run.stats:
        return None
    last, speed = run.stats[-1], mean_speed(run.stats)
    if speed is None:
        return None
    return Fact(
        f"{numbers.number(last['kimg'])} kimg",
        f"The discriminator of {run.folder.name} has seen {last['nimg']:,} images at"
        f" {numbers.with_unit(speed, 'images/s')} on average.",
    )


def data_fact(sources: Sources) -> Fact | None:
    """What the dataset kept of what it was given."""
    reader = sources.dataset.value
    if reader is None:
        return None
    counts, harps = reader.info.counts, len(set(reader.records["harpnum"].to_pylist()))
    return Fact(
        f"{counts['rows']:,} patches",
        f"Of {counts['records_in']:,} candidates {counts['rows']:,} (of {harps} HARPs) were kept"
        f" and {counts['quarantined']:,} quarantined, each with its reason.",
    )


def choose(
    sources: Sources, check: dict[str, Any] | None, compared: Comparison | None,
    known: list[dict[str, Any]],
) -> list[Fact]:  # fmt: skip
    """The first three facts that can be told, in the order of the subjects."""
    search, directions = sources.search.value, sources.directions.value
    told = (
        physics_fact(check),
        direction_fact(scores(directions, directions.leakage())) if directions else None,
        (flux_fact(search) if search is not None else None) or held_out_fact(known),
        likeness_fact(compared.distances() if compared is not None else []),
        training_fact(sources),
        data_fact(sources),
    )
    return [fact for fact in told if fact is not None][:WANTED]
