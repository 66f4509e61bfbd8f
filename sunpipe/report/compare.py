"""Real against generated: the same colours, the same measuring function, the distances."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sunpipe.errors import DataError
from sunpipe.report import numbers
from sunpipe.report.charts import GREY, ORANGE, histograms, spectra
from sunpipe.report.distances import kolmogorov_smirnov, radial_power, wasserstein
from sunpipe.report.pictures import colour_limit, gradient, tile
from sunpipe.report.section import Section, section
from sunpipe.report.sources import Found, Sources

if TYPE_CHECKING:
    from sunpipe.latent.generator import Generator
    from sunpipe.latent.samples import Samples
    from sunpipe.shards.reader import ShardReader

Floats = NDArray[np.float64]
SHOWN = 24  # patches in each grid
TRIPLES = 4  # patches shown with all their channels
MEASURED = 1000  # real patches measured at most, of each split
SPECTRA = 256  # images whose power spectrum is taken at most
PIXELS = 2**22  # in all that is measured, so that large images cost no more than small ones
BATCH = 64
CHARTS = 8
FIRST = ("USFLUX", "MEANGAM", "TOTUSJH", "NETFLUX", "POLSEP", "MEANSHR", "TOTUSJZ", "R_VALUE")


def spread_rows(reader: ShardReader, split: str | None, count: int) -> NDArray[np.int64]:
    """At most `count` dataset rows of a split (None: of all), evenly spaced: chosen by no one."""
    splits = np.asarray(reader.records["split"].to_pylist())
    rows = np.arange(len(splits)) if split is None else np.flatnonzero(splits == split)
    if len(rows) > count:
        rows = rows[np.linspace(0, len(rows) - 1, count).round().astype(np.int64)]
    return rows.astype(np.int64)


def affordable(most: int, side: int, pixels: int = PIXELS) -> int:
    """How many images of `side` x `side` pixels to take: `most`, or what `pixels` allow."""
    return max(SHOWN, min(most, pixels // side**2))


def generate(generator: Generator, samples: Samples, count: int) -> NDArray[np.float32]:
    """Fields (count, C, H, W) in gauss of the first samples."""
    import torch

    parts = [
        generator.fields(torch.from_numpy(samples.w[start : min(start + BATCH, count)]),
                         samples.recipe["noise"]).cpu().numpy()
        for start in range(0, min(count, len(samples)), BATCH)
    ]  # fmt: skip
    return np.concatenate(parts)


class Comparison:
    """Both sides, read and measured once for the page, its facts and the picture.

    Attributes
    ----------
    real, generated : ndarray of float32 (N, C, H, W)
        Gauss; evenly spaced training patches, and the first samples.
    train, test : ndarray of float64 (M, Q)
        Measured quantities of real patches.
    limit : float
        Common colour limit of the first channel, gauss.
    harps : int
        Active regions in the training set.
    """

    def __init__(self, reader: ShardReader, generator: Generator, samples: Samples) -> None:
        from sunpipe.latent.measure import measure_rows

        self.names, self.units = samples.names, samples.units
        self.channels, self.gauss = reader.info.channels, reader.info.units
        self.pixel_cm = float(np.median(reader.pixel_cm))
        side = reader.info.resolution
        few, many = affordable(SPECTRA, side, PIXELS // 4), affordable(MEASURED, side)
        self.real = reader.images(spread_rows(reader, "train", few))
        self.generated = generate(generator, samples, few)
        self.values = samples.values
        measured = [spread_rows(reader, split, many) for split in ("train", "test")]
        self.train, self.test = (measure_rows(reader, rows, self.names) for rows in measured)
        self.limit = colour_limit([self.real[:, 0]])
        train = spread_rows(reader, "train", len(reader.records))
        self.harps = len({reader.records["harpnum"][int(row)].as_py() for row in train})

    def real_shown(self, count: int) -> NDArray[np.float32]:
        """`count` of the real images, evenly spaced over the training set."""
        places = np.linspace(0, len(self.real) - 1, count).round().astype(int)
        return self.real[places]

    def distances(self) -> list[dict[str, Any]]:
        """Distance of each quantity from the training patches: generated, and held-out real."""
        rows = []
        for number, (name, unit) in enumerate(zip(self.names, self.units, strict=True)):
            real = self.train[:, number]
            spread = float(np.nanstd(real)) if np.isfinite(real).any() else float("nan")
            row: dict[str, Any] = {"name": name, "unit": unit}
            for side, values in (("generated", self.values), ("held_out", self.test)):
                moved = wasserstein(values[:, number], real)
                row[f"{side}_ks"] = kolmogorov_smirnov(values[:, number], real)
                row[f"{side}_w"] = moved / spread if moved is not None and spread > 0 else None
                finite = values[np.isfinite(values[:, number]), number]
                row[f"{side}_median"] = float(np.median(finite)) if len(finite) else None
            finite = real[np.isfinite(real)]
            row["real_median"] = float(np.median(finite)) if len(finite) else None
            rows.append(row)
        return rows


def shown_range(real: Floats, generated: Floats) -> tuple[float, float] | None:
    """Range of a histogram: nearly all real values, and most generated ones.

    A young generator has a few absurd patches; they shall not squeeze the rest
    into one bin, so the real range is at most doubled to either side.
    """
    if not len(real):
        real = generated
    if not len(real):
        return None
    low, high = np.percentile(real, (0.5, 99.5))
    if len(generated):
        width, ends = high - low, np.percentile(generated, (2, 98))
        low, high = max(min(low, ends[0]), low - width), min(max(high, ends[1]), high + width)
    return (float(low), float(high)) if high > low else (float(low) - 0.5, float(high) + 0.5)


def distributions(found: Comparison, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Histograms of the quantities that matter most, with their distances."""
    from sunpipe.physics.quantities import QUANTITIES

    order = [name for name in FIRST if name in found.names]
    order += [name for name in found.names if name not in order]
    charts: list[dict[str, Any]] = []
    for name in order[:CHARTS]:
        place = found.names.index(name)
        sides = {
            "real": (GREY, found.train[:, place]),
            "generated": (ORANGE, found.values[:, place]),
        }
        finite = {label: (colour, values[np.isfinite(values)])
                  for label, (colour, values) in sides.items()}  # fmt: skip
        span = shown_range(finite["real"][1], finite["generated"][1])
        if span is None:
            continue
        factor, label = numbers.axis_scale(span, found.units[place])
        scaled = {key: (colour, values / factor) for key, (colour, values) in finite.items()}
        axis = f"{name} ({label})" if label else name
        low, high = (end / factor for end in span)
        meaning = QUANTITIES[name].meaning if name in QUANTITIES else ""
        svg = histograms(f"hist-{place}", scaled, low, high, axis)
        charts.append({"svg": svg, **rows[place], "meaning": meaning})
    return charts


def spectrum(found: Comparison) -> str:
    """Power spectra of the first channel of both sides."""
    side = found.real.shape[-1]
    waves = np.arange(1, side // 2)
    return spectra(
        "spectrum", side * found.pixel_cm / 1e8 / waves,
        {"real": (GREY, radial_power(found.real[:, 0])),
         "generated": (ORANGE, radial_power(found.generated[:, 0]))},
    )  # fmt: skip


def triples(found: Comparison, fields: NDArray[Any], what: str) -> list[list[dict[str, Any]]]:
    """All channels of some patches: one list of pictures per patch."""
    return [
        [tile(channel, found.limit, f"{name} of {what} patch {number + 1}", title=name)
         for name, channel in zip(found.channels, field, strict=True)]
        for number, field in enumerate(fields)
    ]  # fmt: skip


def build(found: Comparison, samples: Samples, generator: Generator) -> dict[str, Any]:
    """What ``compare.html`` shows."""
    rows = found.distances()
    real, generated = found.real_shown(SHOWN), found.generated[:SHOWN]
    name = found.channels[0]
    return {
        "limit": found.limit, "gradient": gradient(), "unit": found.gauss[0], "channel": name,
        "real": [tile(field[0], found.limit, f"real {name}, patch {number + 1}")
                 for number, field in enumerate(real)],
        "generated": [tile(field[0], found.limit, f"generated {name}, patch {number + 1}")
                      for number, field in enumerate(generated)],
        "real_triples": triples(found, found.real_shown(TRIPLES), "real"),
        "generated_triples": triples(found, generated[:TRIPLES], "generated"),
        "channels": found.channels, "charts": distributions(found, rows), "distances": rows,
        "spectrum": spectrum(found), "spectrum_real": len(found.real),
        "spectrum_generated": len(found.generated), "measured": len(found.train),
        "held_out": len(found.test), "samples": len(samples), "kimg": generator.kimg,
        "psi": samples.recipe["psi"], "harps": found.harps,
        "side_mm": found.real.shape[-1] * found.pixel_cm / 1e8,
    }  # fmt: skip


def comparison(sources: Sources) -> Found[Comparison]:
    """Both sides, when data, generator and samples are all there, current and readable."""
    reader, generator = sources.dataset.value, sources.generator.value
    samples = sources.samples.value
    if generator is None or samples is None:
        return sources.samples.blocked("the samples")
    if reader is None:
        return sources.dataset.blocked("the dataset")
    if not (np.asarray(reader.records["split"].to_pylist()) == "train").any():
        return Found(None, "broken", "the dataset has no training patches", ("shard",))
    try:
        return Found(Comparison(reader, generator, samples), "current")
    except DataError as error:
        return Found(None, "broken", str(error), ("shard",))


def compare(sources: Sources, found: Found[Comparison]) -> Section:
    """Real against generated."""
    return section(
        "compare", "Real against generated", sources, (found,),
        lambda: build(found.value, sources.samples.value, sources.generator.value),  # type: ignore[arg-type]
    )  # fmt: skip
