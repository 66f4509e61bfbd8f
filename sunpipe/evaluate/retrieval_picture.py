"""Pictures of the scorecard: curves and bars, and the closest pairs of the audit."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sunpipe import plots
from sunpipe.evaluate.memorisation import QUANTILE, SIGNS, Closeness
from sunpipe.evaluate.retrieval_bench import Bench
from sunpipe.evaluate.retrieval_nearest import Nearest
from sunpipe.evaluate.sheet import _norm as colours
from sunpipe.physics.measurable import unit

if TYPE_CHECKING:
    from sunpipe.evaluate.retrieval_generated import Made

Floats32 = NDArray[np.float32]
# Wong 2011, doi:10.1038/nmeth.1618: told apart with colour-blindness.
COLOURS = {"embedding": "#0072B2", "keywords": "#009E73", "magnitudes": "#CC79A7",
           "pixels": "#E69F00", "chance": "#8a8f98"}  # fmt: skip
SIDES = {"train": ("train to train", "#8a8f98"), "held_out": ("held out", "#009E73"),
         "generated": ("generated", "#D55E00")}  # fmt: skip
BARS = 16  # quantities that are drawn
FIRST = ("USFLUX", "USFLUXL", "LOGI")  # of the scatter, the first that is there


def _tidy(axes: Any, title: str) -> None:
    axes.set_title(title, fontsize=9, color=plots.INK, loc="left")
    axes.tick_params(labelsize=8)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _recall(axes: Any, bench: Bench, real: Mapping[str, Nearest]) -> None:
    """Share of queries whose own HARP is among the first k."""
    count = len(bench.archive.names)
    limits = np.unique(np.rint(np.geomspace(1, count, 60)).astype(int))
    for name, table in real.items():
        rank = table.own_rank()
        rank = rank[np.isfinite(rank)]
        if len(rank):
            share = [(rank <= limit).mean() for limit in limits]
            axes.plot(limits, share, color=COLOURS[name], label=name, lw=1.6)
    axes.set_xscale("log")
    axes.set_ylim(0, 1.02)
    unit_ = bench.archive.unit
    axes.set_xlabel(f"k of {count} {unit_}s", fontsize=8)
    axes.set_ylabel(f"own {unit_} among the first k", fontsize=8)
    if axes.lines:
        axes.legend(fontsize=7, frameon=False, loc="lower right")
    _tidy(axes, f"The same {unit_} at another time")


def _bars(axes: Any, result: Mapping[str, Any]) -> None:
    """Spearman of the leading quantities, with intervals."""
    rows = result["physics"]["other_harp"]
    names = list(rows["embedding"])
    known = [name for name in names if rows["embedding"][name]["spearman"]["value"] is not None]
    known = sorted(known, key=lambda name: -rows["embedding"][name]["spearman"]["value"])[:BARS]
    place = np.arange(len(known))[::-1]
    beside = ("embedding", "keywords", "magnitudes", "pixels")
    for shift, name in zip((0.27, 0.09, -0.09, -0.27), beside, strict=True):
        if name not in rows:
            continue
        for at, quantity in zip(place, known, strict=True):
            found = rows[name][quantity]["spearman"]
            if found["value"] is None:
                continue
            axes.plot(found["value"], at + shift, "o", ms=3.5, color=COLOURS[name],
                      label=name if at == place[0] else None)  # fmt: skip
            if found["low"] is not None:
                axes.plot([found["low"], found["high"]], [at + shift] * 2, lw=1.2,
                          color=COLOURS[name])  # fmt: skip
    axes.axvline(0, color="#c9ccd2", lw=0.8, zorder=0)
    axes.set_yticks(place, known)
    axes.set_xlim(-0.5, 1.0)
    if axes.lines[1:]:
        axes.legend(fontsize=7, frameon=False, loc="lower left")
    axes.set_xlabel("Spearman, query and best match", fontsize=8)
    _tidy(axes, f"Physics of the match, own {result['unit']} left out")


def _scatter(
    axes: Any, bench: Bench, real: Mapping[str, Nearest], chosen: NDArray[np.int64],
    ours: Mapping[str, Nearest], made: Made | None,
) -> None:  # fmt: skip
    """One quantity of query and best match, real and generated."""
    name = next((one for lead in FIRST for one in bench.names if one.startswith(lead)), None)
    if name is None:
        axes.axis("off")
        return
    column = bench.names.index(name)
    sets = [("real", "#0072B2", bench.values[chosen, column], real["embedding"].match(True)[1])]
    if made is not None:
        sets.append(("generated", "#D55E00", made.values[:, column],
                     ours["embedding"].match(False)[1]))  # fmt: skip
    low, high = np.inf, -np.inf
    for label, colour, query, place in sets:
        match = np.where(place >= 0, bench.values[np.maximum(place, 0), column], np.nan)
        axes.plot(query, match, ".", ms=2.5, alpha=0.5, color=colour, label=label)
        both = np.concatenate([query, match])
        low, high = min(low, np.nanmin(both)), max(high, np.nanmax(both))
    axes.plot([low, high], [low, high], color="#8a8f98", lw=0.8, zorder=0)
    if low > 0 and high > 10 * low:
        axes.set_xscale("log")
        axes.set_yscale("log")
    axes.set_xlabel(f"query ({unit(name)})", fontsize=8)
    axes.set_ylabel(f"best match ({unit(name)})", fontsize=8)
    axes.legend(fontsize=7, frameon=False, loc="upper left", markerscale=3)
    _tidy(axes, f"{name} of query and best match")


def _copies(axes: Any, sides: Mapping[str, Mapping[str, Closeness]] | None) -> None:
    """What of a patch its nearest training tile leaves unexplained, in pixels."""
    if sides is None:
        axes.axis("off")
        return
    bins = np.linspace(0, 1.6, 41)
    for key, (label, colour) in SIDES.items():
        if key in sides:
            left = sides[key]["pixels"].residual
            left = np.minimum(left[np.isfinite(left)], bins[-1])
            axes.hist(left, bins, weights=np.full(len(left), 1 / max(len(left), 1)),
                      histtype="step", lw=1.5, color=colour, label=label)  # fmt: skip
    train = sides["train"]["pixels"].residual
    train = train[np.isfinite(train)]
    if len(train):
        axes.axvline(np.quantile(train, QUANTILE), color="#8a8f98", lw=0.8, ls="--",
                     label="1 % of train to train")  # fmt: skip
    axes.set_xlabel("distance to the nearest training tile over own contrast", fontsize=8)
    axes.set_ylabel("share", fontsize=8)
    axes.legend(fontsize=7, frameon=False, loc="upper left")
    _tidy(axes, "Copies? Pixels; 0 is a copy")


def draw(
    path: Path, bench: Bench, result: Mapping[str, Any], real: Mapping[str, Nearest],
    chosen: NDArray[np.int64], ours: Mapping[str, Nearest], made: Made | None,
    sides: Mapping[str, Mapping[str, Closeness]] | None,
) -> None:  # fmt: skip
    """Write the scorecard as a PNG."""
    figure = plots.new_figure(11, 7.2)
    left, right = np.asarray(figure.subfigures(1, 2, width_ratios=(1.15, 1)))
    grid = np.asarray(left.subplots(2, 1))
    _recall(grid[0], bench, real)
    _scatter(grid[1], bench, real, chosen, ours, made)
    lower = np.asarray(right.subplots(2, 1, height_ratios=(1.7, 1) if sides else (1, 0.001)))
    _bars(lower[0], result)
    _copies(lower[1], sides)
    plots.save(figure, path)


def draw_pairs(path: Path, bench: Bench, mine: Floats32, pairs: list[dict[str, Any]]) -> None:
    """Write the closest generated samples, each beside its nearest training tile.

    Parameters
    ----------
    mine : float32 ndarray (len(pairs), C, H, H)
        The generated samples.
    """
    from matplotlib.cm import ScalarMappable

    rows = np.array([pair["row"] for pair in pairs], np.int64)
    real = bench.reader.images(rows)[:, 0]
    mine = mine[:, 0]
    info = bench.reader.info
    norm, cmap = colours(np.concatenate([real, mine]), info.units[0])
    columns = 2
    lines = -(-len(pairs) // columns)
    figure = plots.new_figure(4.0 * columns + 0.9, 2.1 * lines + 0.4)
    grid = figure.subplots(lines, 2 * columns, squeeze=False)
    for axes in grid.flat:
        axes.axis("off")
    for place, pair in enumerate(pairs):
        spots = grid[place // columns, 2 * (place % columns) :][:2]
        ranks = " / ".join(_percent(pair[f"{space}_{what}_percentile"]) for space, what in SIGNS)
        heads = (
            f"generated {pair['sample']}\n{ranks}",
            f"{_short(pair['record'])}\nresidual {_number(pair['pixels_residual'])}",
        )
        for axes, patch, head in zip(spots, (mine[place], real[place]), heads, strict=True):
            axes.axis("on")
            axes.set_xticks([])
            axes.set_yticks([])
            axes.imshow(patch, origin="lower", cmap=cmap, norm=norm, interpolation="nearest")
            axes.set_title(head, fontsize=7, color=plots.INK)
    label = f"{info.channels[0]} ({'G' if info.units[0] == 'Gauss' else info.units[0]})"
    figure.colorbar(ScalarMappable(norm, cmap), ax=grid, shrink=0.6, label=label)
    figure.suptitle("Generated patches nearest to a training tile, and that tile. Percentiles"
                    " among training tiles: ratio in embedding / ratio in pixels / residual",
                    fontsize=8, color=plots.INK)  # fmt: skip
    plots.save(figure, path)


def _short(record: str) -> str:
    """HARP and time of a record-set string."""
    return record.partition("[")[2].replace("][", ", ").rstrip("]") or record


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f} %"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
