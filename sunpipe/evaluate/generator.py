"""``sunpipe evaluate generator``: how far a trained generator is from its data."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sunpipe import checkpoint
from sunpipe.errors import DataError, UsageError
from sunpipe.evaluate.metrics import metric
from sunpipe.files import read_json, write_json
from sunpipe.paths import Layout
from sunpipe.provenance import provenance
from sunpipe.run import require_run, trained_run
from sunpipe.settings import Config
from sunpipe.stage import Result, log
from sunpipe.ticks import Ticks

if TYPE_CHECKING:
    import torch

    from sunpipe.evaluate.block import FeatureBlock
    from sunpipe.evaluate.lens import Vectors
    from sunpipe.evaluate.reference import Reference
    from sunpipe.latent.generator import Generator
    from sunpipe.shards.reader import ShardReader

SCHEMA = 2
FEWEST_SEEDS = 3  # a spread of two says little
SHOWN = 24  # patches on each side of the contact sheet


@dataclass(frozen=True)
class Asked:
    """Options of the command.

    Attributes
    ----------
    seeds : int
        How many independent sets of images are generated; at least 3.
    encoder : bool
        Whether features of the experiment's encoder are compared too.
    """

    seeds: int = FEWEST_SEEDS
    encoder: bool = False


def _recipe(
    generator: Generator, reader: ShardReader, cfg: Config, asked: Asked, encoder: str | None
) -> dict[str, Any]:
    """All that decides the result."""
    from sunpipe.shards.schema import dataset_id

    return {
        "schema": SCHEMA, "generator": generator.digest, "dataset_id": dataset_id(reader.info),
        "count": images_of(cfg, reader), "batch": cfg.train.metrics.batch,
        "seeds": [cfg.seed + place for place in range(asked.seeds)], "encoder": encoder,
    }  # fmt: skip


def images_of(cfg: Config, reader: ShardReader) -> int:
    """N of both sides: ``train.metrics.count``, or all training images where there are fewer."""
    return min(cfg.train.metrics.count, len(reader))


def _check(asked: Asked) -> None:
    if asked.seeds < FEWEST_SEEDS:
        raise UsageError(f"--seeds {asked.seeds}: a spread needs {FEWEST_SEEDS} or more")


def plan(cfg: Config, asked: Asked) -> Result:
    """What would be done, with nothing written; without a dataset nobody knows N."""
    from sunpipe.shards.reader import ShardReader

    _check(asked)
    folder, count = Layout.current().shards(cfg.dataset), None
    if folder.exists():
        count = images_of(cfg, ShardReader(folder, splits=("train",)))
    run = trained_run(Layout.current(), cfg.name)
    found = checkpoint.complete(run / "checkpoints") if run else []
    return {
        "run": str(run) if run else None, "checkpoint": found[-1].name if found else None,
        "images": None if count is None else asked.seeds * count,
    }  # fmt: skip


def _fields(generator: Generator, seed: int, count: int, batch: int) -> Iterator[torch.Tensor]:
    for start in range(0, count, batch):
        z = generator.sample_z(min(batch, count - start), seed, start)
        yield generator.fields(generator.map(z))


def _generated(
    generator: Generator, reference: Reference, seed: int, count: int, batch: int, ticks: Ticks
) -> FeatureBlock:
    from sunpipe.evaluate.block import FeatureBlock

    parts, bad = [], 0
    for fields in _fields(generator, seed, count, batch):
        block, left_out = reference.lens.finite_features(fields)
        parts.append(block)
        bad += left_out
        ticks.tick()
    if bad:
        raise DataError(
            f"{bad} of {count} images that {generator.run} makes from seed {seed} are not finite:"
            " this generator has failed, and no distance says how; train on, or start anew"
        )
    return FeatureBlock.concat(parts)


def _encoder(layout: Layout, cfg: Config, reader: ShardReader) -> tuple[str, Vectors]:
    """Digest and function of the experiment's trained encoder."""
    from sunpipe.embed.encoder import FieldEncoder, encoder_run

    encoder = FieldEncoder.load(encoder_run(layout, cfg.name))
    encoder.check(reader.info.channels, reader.info.resolution, f"dataset {cfg.dataset}",
                  reader.info.units, float(np.median(reader.pixel_cm)))  # fmt: skip
    return encoder.card.digest, encoder.vectors


def _same_images(generator: Generator, reader: ShardReader) -> None:
    info = reader.info
    if (generator.channels, generator.resolution) != (info.channels, info.resolution):
        raise DataError(
            f"{generator.run} makes {', '.join(generator.channels)} at {generator.resolution} x"
            f" {generator.resolution}, but {info.name} has {', '.join(info.channels)} at"
            f" {info.resolution} x {info.resolution}; name its dataset with --set dataset="
        )


def _side_mm(reference: Reference) -> float | None:
    """Side of an image on the Sun, Mm; None where the dataset does not say."""
    side = reference.lens.resolution * reference.lens.pixel_cm / 1e8
    return side if math.isfinite(side) else None


def summary(rows: list[dict[str, float]]) -> dict[str, dict[str, Any]]:
    """Mean and sample standard deviation over seeds of each metric, with its unit."""
    return {
        name: {
            "mean": statistics.fmean(values := [row[name] for row in rows]),
            "spread": statistics.stdev(values), "unit": metric(name).unit, "values": values,
        }
        for name in rows[0]
    }  # fmt: skip


def evaluate(cfg: Config, asked: Asked) -> Result:
    """Measure the newest checkpoint of the experiment's run.

    Writes ``runs/<run>/metrics/generator-<checkpoint>.json`` and a contact sheet
    beside it; the same question again is answered from there.

    Raises
    ------
    DataError
        No run or dataset, too few images, or images that are not finite.
    """
    _check(asked)
    from sunpipe.evaluate.reference import Reference, compare
    from sunpipe.evaluate.scale import beside
    from sunpipe.latent.generator import Generator
    from sunpipe.shards.reader import ShardReader

    layout, settings = Layout.current(), cfg.train.metrics
    folder = require_run(layout, cfg.name, "run sunpipe train first")
    readers = {split: ShardReader(layout.shards(cfg.dataset), splits=(split,))
               for split in ("train", "test")}  # fmt: skip
    generator = Generator.load(folder)
    _same_images(generator, readers["train"])
    named = _encoder(layout, cfg, readers["train"]) if asked.encoder else None
    recipe = _recipe(generator, readers["train"], cfg, asked, named[0] if named else None)
    stem = f"generator-{checkpoint.folder_name(round(1000 * generator.kimg))}"
    path = folder / "metrics" / f"{stem}.json"
    if path.exists() and (old := read_json(path)).get("recipe") == recipe:
        log(f"measured before: {path}")
        return {key: value for key, value in old.items() if key not in ("recipe", "provenance")}
    count, batch = recipe["count"], settings.batch
    reference = Reference.of(
        readers["train"], settings, device=generator.device,
        vectors={"encoder": named[1]} if named else None,
    )  # fmt: skip
    seeds = recipe["seeds"]
    with Ticks(len(seeds) * -(-count // batch), "batches") as ticks:
        made = [_generated(generator, reference, seed, count, batch, ticks) for seed in seeds]
    rows = [compare(reference, block) for block in made]
    sheet = path.with_suffix(".png")
    _draw(generator, readers["train"], cfg.seed, batch, sheet)
    result: Result = {
        "run": generator.run, "kimg": generator.kimg, "count": count,
        "side_mm": _side_mm(reference),
        "seeds": seeds, "metrics": summary(rows),
        "scale": beside(readers["train"], readers["test"], reference, made, count, batch),
        "file": str(path), "sheet": str(sheet),
    }  # fmt: skip
    write_json(path, {**result, "recipe": recipe, "provenance": provenance()})
    return result


def _draw(generator: Generator, reader: ShardReader, seed: int, batch: int, path: Path) -> None:
    import torch

    from sunpipe.evaluate.lens import spread_rows
    from sunpipe.evaluate.sheet import contact_sheet

    real = reader.images(spread_rows(reader, SHOWN))[:, 0]
    fake = torch.cat(list(_fields(generator, seed, SHOWN, batch)))[:, 0].cpu().numpy()
    contact_sheet(real, fake, path, channel=generator.channels[0], unit=generator.units[0],
                  title=f"{generator.run}, {generator.kimg:g} kimg")  # fmt: skip
