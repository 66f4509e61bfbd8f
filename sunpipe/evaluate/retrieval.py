"""``sunpipe evaluate retrieval``: does the archive answer, and is its answer about the Sun."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import TypeAdapter

from sunpipe.config import to_dict
from sunpipe.embed.store import read_embedding
from sunpipe.errors import DataError, Stopped
from sunpipe.evaluate.retrieval_archive import Archive, choose, read_archive
from sunpipe.files import read_json, sha256, write_json
from sunpipe.normalize_settings import NormalizeSettings
from sunpipe.paths import Layout
from sunpipe.physics.measurable import measurable
from sunpipe.provenance import provenance
from sunpipe.settings import Config
from sunpipe.stage import Result, log
from sunpipe.stop import StopFlag, requeue_if_progress

if TYPE_CHECKING:
    from sunpipe.embed.encoder import FieldEncoder
    from sunpipe.evaluate.retrieval_bench import Bench
    from sunpipe.index.store import Index
    from sunpipe.latent.generator import Generator
    from sunpipe.shards.reader import ShardReader

SCHEMA = 2
FEWEST_HARPS = 3  # of held-out queries; with fewer all splits ask
INVARIANCE = 256  # queries that are turned: each costs an embedding per symmetry
PICTURES = {"picture": "retrieval.png", "copies_picture": "memorisation.png"}


@dataclass(frozen=True)
class Sources:
    """What the scorecard reads; index, run and generator are None where they are not there."""

    folder: Path
    archive: Archive
    reader: ShardReader
    encoder: FieldEncoder
    index: Index | None
    run: Path | None
    generator: Generator | None
    metric: str


def _poll(stop: StopFlag, folder: Path) -> None:
    if stop:
        if stop.requeue:
            slabs = len(list(folder.glob("measured-*/*.npy")))
            requeue_if_progress("evaluate-retrieval", slabs)
        raise Stopped(f"evaluate stopped by {stop.reason}; run the same command again to continue")


def _encoder(layout: Layout, card: dict[str, Any]) -> FieldEncoder:
    """The encoder that made the embedding."""
    from sunpipe.embed.encoder import FieldEncoder

    run = layout.runs / card["run"]
    if not (run / "config.json").is_file():
        raise DataError(f"{run}, which made the embedding, is gone; run sunpipe embed again")
    return FieldEncoder.load(run, card["orbit"], card["digest"])


def open_sources(cfg: Config) -> Sources:
    """Open everything, and refuse what does not belong together.

    Raises
    ------
    DataError
        No embedding; shards, index or generator of something else.
    """
    from sunpipe.evaluate.retrieval_generated import check_generator, trained_generator
    from sunpipe.index.store import load_index
    from sunpipe.latent.generator import Generator
    from sunpipe.shards.reader import ShardReader
    from sunpipe.shards.schema import dataset_id

    layout = Layout.current()
    archive = read_archive(layout.embeddings(cfg.name), cfg.retrieval.archive)
    dataset = archive.info.dataset
    reader = ShardReader(layout.shards(dataset["name"]))
    if dataset_id(reader.info) != dataset["id"]:
        raise DataError(f"{reader.folder} changed since it was embedded; run sunpipe embed again")
    encoder = _encoder(layout, archive.info.encoder)
    place = layout.index(cfg.name)
    index = load_index(place) if (place / "index.json").is_file() else None
    run = trained_generator(layout, cfg)
    generator = Generator.load(run) if run is not None else None
    if generator is not None and run is not None:
        check_generator(generator, encoder, dataset, run)
    metric = index.info.metric if index is not None else cfg.index.metric
    folder = layout.evaluations(cfg.name)
    return Sources(folder, archive, reader, encoder, index, run, generator, metric)


def _recipe(cfg: Config, sources: Sources, embedding: Path) -> dict[str, Any]:
    """All that decides the result."""
    index, generator = sources.index, sources.generator
    return {
        "schema": SCHEMA, "seed": cfg.seed, "metric": sources.metric,
        "settings": to_dict(cfg.retrieval),
        "embedding": sha256(embedding / "embedding.json"),
        "index": sha256(index.folder / "index.json") if index is not None else None,
        "generator": generator.digest if generator is not None else None,
        "sample": [cfg.sample.psi, cfg.sample.noise] if generator is not None else None,
    }  # fmt: skip


def earlier(path: Path, recipe: dict[str, Any]) -> Result | None:
    """The answer of an earlier run; None for another question, or where a picture is gone."""
    if not path.is_file():
        return None
    old: Result = read_json(path)
    drawn = [old[key] for key in PICTURES if old.get(key) is not None]
    if old.get("recipe") != recipe or not all(Path(each).is_file() for each in drawn):
        return None
    return {key: value for key, value in old.items() if key not in ("recipe", "provenance")}


def evaluate(cfg: Config) -> Result:
    """Score the search of an experiment.

    Writes ``evaluations/<name>/retrieval.json``, ``retrieval.png`` and, with a generator,
    ``memorisation.png``; the same question again is answered from there while its pictures
    are.

    Raises
    ------
    DataError
        No embedding, or shards, index or generator that do not belong to it.
    """
    sources = open_sources(cfg)
    path = sources.folder / "retrieval.json"
    recipe = _recipe(cfg, sources, Layout.current().embeddings(cfg.name))
    if (known := earlier(path, recipe)) is not None:
        log(f"measured before: {path}")
        return known
    with StopFlag() as stop:
        found = _score(cfg, sources, stop)
    result: Result = {"name": cfg.name, "dataset": cfg.dataset, **found, "file": str(path)}
    write_json(path, {**result, "recipe": recipe, "provenance": provenance()})
    return result


def _bench(cfg: Config, sources: Sources, stop: StopFlag) -> Bench:
    from sunpipe.evaluate.retrieval_bench import Bench
    from sunpipe.evaluate.retrieval_measured import measured

    reader, archive = sources.reader, sources.archive
    names = list(measurable(reader.info.channels))
    poll = partial(_poll, stop, sources.folder)
    values = measured(sources.folder, reader, archive.rows, names, poll)
    view = TypeAdapter(NormalizeSettings).validate_python(sources.encoder.card.normalize)
    return Bench(
        archive, reader, sources.encoder, sources.metric, view, names, values, cfg.retrieval,
        cfg.seed, poll,
    )  # fmt: skip


def queries_of(archive: Archive, split: str, count: int) -> tuple[str, Any]:
    """Who asks: positions of tiles of the test split, or of all where it has too few HARPs."""
    held_out = ~archive.train
    if split == "test" and len(np.unique(archive.group[held_out])) >= FEWEST_HARPS:
        return "test", choose(archive, held_out, count)
    if split == "test":
        log(f"the test split has fewer than {FEWEST_HARPS} HARPs: all tiles may ask, and the"
            " encoder has been trained on them")  # fmt: skip
    return "all", choose(archive, np.ones(len(archive), bool), count)


def _score(cfg: Config, sources: Sources, stop: StopFlag) -> Result:
    from sunpipe.evaluate.retrieval_copies import FEWEST_TRAIN, begin_audit, end_audit, ways_of
    from sunpipe.evaluate.retrieval_generated import check_generator, fields_of, make
    from sunpipe.evaluate.retrieval_invariance import invariance
    from sunpipe.evaluate.retrieval_nearest import askers, strangers
    from sunpipe.evaluate.retrieval_picture import draw, draw_pairs
    from sunpipe.evaluate.retrieval_recall import index_recall
    from sunpipe.evaluate.retrieval_report import about, generated_scores, real_scores

    bench, archive, settings = _bench(cfg, sources, stop), sources.archive, cfg.retrieval
    split, chosen = queries_of(archive, settings.split, settings.queries)
    asked = askers(archive, chosen)
    real = bench.retrievers(asked, archive.vectors[chosen], bench.values[chosen],
                            bench.pixel_rows(chosen))  # fmt: skip

    made, waiting, ours, symmetries = None, None, {}, list[str]()
    if sources.generator is not None and sources.run is not None:
        symmetries = check_generator(sources.generator, sources.encoder, archive.info.dataset,
                                     sources.run)  # fmt: skip
        ways = ways_of(bench, symmetries)
        made = make(sources.generator, bench, cfg)
        ours = bench.retrievers(strangers(len(made)), made.vectors, made.values, made.rows)
        waiting = begin_audit(bench, made.rows, made.vectors, ways)
    bench.compare_pixels()

    result: Result = about(bench, split, chosen)
    result |= real_scores(bench, real, chosen)
    some = chosen[:: max(1, len(chosen) // INVARIANCE)]
    result["invariance"] = {"queries": len(some), "symmetries": invariance(
        archive, askers(archive, some), lambda rows: bench.images(some[rows]), sources.encoder,
        sources.metric, settings.k, settings.bootstrap, cfg.seed,
    )}  # fmt: skip
    result["index"] = {"left_out": "none; run sunpipe index build"}
    if sources.index is not None:
        result["index"] = index_recall(
            Layout.current().embeddings(cfg.name), sources.index, archive.vectors[chosen],
            settings.k,
        )  # fmt: skip
    none = {"left_out": "no trained generator of this experiment; run sunpipe train"}
    result |= {"generated": none, "memorisation": none, "copies_picture": None}
    sides = None
    if made is not None and sources.generator is not None:
        result["generated"] = {
            "run": sources.generator.run, "kimg": sources.generator.kimg, "patches": len(made),
            "psi": cfg.sample.psi, "noise": cfg.sample.noise, "seed": cfg.seed,
            **generated_scores(bench, ours, made.values),
        }  # fmt: skip
        result["memorisation"] = {"left_out": f"fewer than {FEWEST_TRAIN} training HARPs"}
        if waiting is not None:
            result["memorisation"], sides = end_audit(waiting)
            result["memorisation"]["symmetries"] = symmetries
    sources.folder.mkdir(parents=True, exist_ok=True)
    result["picture"] = str(sources.folder / PICTURES["picture"])
    draw(Path(result["picture"]), bench, result, real, chosen, ours, made, sides)
    if waiting is not None and sources.generator is not None:
        pairs = result["memorisation"]["pairs"]
        mine = [fields_of(sources.generator, cfg, pair["sample"], 1) for pair in pairs]
        result["copies_picture"] = str(sources.folder / PICTURES["copies_picture"])
        draw_pairs(Path(result["copies_picture"]), bench, np.concatenate(mine), pairs)
    return result


def plan(cfg: Config) -> Result:
    """What would be done, with nothing written."""
    from sunpipe.evaluate.retrieval_generated import trained_generator

    layout = Layout.current()
    info = read_embedding(layout.embeddings(cfg.name))
    run = trained_generator(layout, cfg)
    return {
        "embeddings": str(layout.embeddings(cfg.name)),
        "answers": min(info.count, cfg.retrieval.archive), "queries": cfg.retrieval.queries,
        "index": (layout.index(cfg.name) / "index.json").is_file(),
        "generator": run.name if run else None,
        "file": str(layout.evaluations(cfg.name) / "retrieval.json"),
    }  # fmt: skip
