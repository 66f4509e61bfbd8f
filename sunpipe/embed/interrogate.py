"""``sunpipe search``: generated patches asked of the real archive, both sides measured."""

from __future__ import annotations

from collections import Counter
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from sunpipe.config import to_dict
from sunpipe.embed.correlation import correlation
from sunpipe.embed.query import check_generator, index_encoder
from sunpipe.embed.searches import Search, read_search, whole, write_search
from sunpipe.errors import DataError, Stopped
from sunpipe.files import sha256
from sunpipe.index.columns import Columns
from sunpipe.index.datasets import Datasets, source_of
from sunpipe.index.fold import fold_codes, nearest_groups
from sunpipe.index.limits import Limits, allowed, alone, parts
from sunpipe.index.nearest import record_codes
from sunpipe.index.store import Index, load_index
from sunpipe.latent.draw import latents
from sunpipe.latent.generator import Generator
from sunpipe.latent.measure import batches, check_names, measure_rows, observer, units
from sunpipe.latent.samples import read_samples
from sunpipe.paths import Layout
from sunpipe.run import require_run
from sunpipe.settings import Config
from sunpipe.stage import Result, log
from sunpipe.stop import StopFlag, requeue_if_progress

if TYPE_CHECKING:
    from sunpipe.embed.encoder import FieldEncoder

Floats = NDArray[np.float64]
Floats32 = NDArray[np.float32]
BATCH = 64
SHUFFLES = 1000
DRAWN = ("seed", "psi", "styles", "noise")  # what decides a sample's picture, beside its number
HIT_COLUMNS = ("record", "harpnum", "t_rec", "split", "row", "tile_y", "tile_x")


def _poll(stop: StopFlag) -> None:
    if stop:
        if stop.requeue:
            requeue_if_progress("search", 0)
        raise Stopped(f"search stopped by {stop.reason}; run the same command again")


def query_latents(
    config: Config, generator: Generator, path: Path
) -> tuple[Floats32, dict[str, Any]]:
    """The w of the queries and where they come from.

    The first rows of ``samples.h5`` where ``sunpipe sample`` has made it, else the
    same rows drawn here: as ``[sample]`` says, by psi, styles and noise.

    Returns
    -------
    w : float32 ndarray (N, w_dim), or of two styles (N, num_ws, w_dim)
    dict
        ``source``, and what decides w: ``seed``, ``psi``, ``styles``, ``noise``.

    Raises
    ------
    DataError
        The samples are another generator's.
    """
    count = config.search.queries
    if path.is_file():
        samples = read_samples(path)
        recipe = samples.recipe
        if recipe["generator"] != generator.digest:
            raise DataError(
                f"{path} was made by generator {recipe['generator'][:12]}, the newest of"
                f" {generator.run} is {generator.digest[:12]}; run sunpipe sample again"
            )
        if len(samples) < count:
            log(f"{path} has {len(samples)} samples, fewer than the {count} queries asked for")
        return samples.w[:count], {"source": "samples", **{key: recipe[key] for key in DRAWN}}
    settings = config.sample
    recipe = {"seed": config.seed, **{key: getattr(settings, key) for key in DRAWN[1:]}}
    w = [latents(generator, recipe, rows)["w"] for rows in batches(count, settings.batch)]
    return np.concatenate(w), {"source": "seeds", **recipe}


def look_at_queries(
    generator: Generator, encoder: FieldEncoder, w: Floats32, names: list[str], noise: Any,
    stop: StopFlag,
) -> tuple[Floats32, Floats, Floats32]:  # fmt: skip
    """Fields (N, C, H, W) in gauss, quantities (N, Q) and vectors (N, dim) of the queries."""
    look = observer(generator, names, noise)
    fields, values, vectors = [], [], []
    for rows in batches(len(w), BATCH):
        _poll(stop)
        seen, measured = look(w[rows])
        fields.append(seen)
        values.append(measured)
        vectors.append(encoder.vectors(seen))
    return np.concatenate(fields), np.concatenate(values), np.concatenate(vectors)


def hits_table(
    index: Index, answers: list[list[tuple[float, int]]], values: Floats, datasets: Datasets,
    names: list[str], stop: StopFlag,
) -> pa.Table:  # fmt: skip
    """One row per query and rank, with the quantities of both sides."""
    flat = [(query, rank, distance, place) for query, found in enumerate(answers)
            for rank, (distance, place) in enumerate(found, 1)]  # fmt: skip
    queries = np.array([row[0] for row in flat], np.int64)
    taken = index.table.take(pa.array([row[3] for row in flat], pa.int64()))
    columns: dict[str, Any] = {
        "query": queries,
        "rank": np.array([row[1] for row in flat], np.int64),
        "distance": np.array([row[2] for row in flat], np.float64),
        **{name: taken[name] for name in HIT_COLUMNS},
    }
    places = np.array([row[3] for row in flat], np.int64)
    sources = source_of(index, places)
    rows = np.asarray(taken["row"], dtype=np.int64)
    matched = np.full((len(flat), len(names)), np.nan)
    for number in np.unique(sources):
        mine = sources == number
        unique, back = np.unique(rows[mine], return_inverse=True)
        reader = datasets.reader(int(number))
        matched[mine] = measure_rows(reader, unique, names, partial(_poll, stop))[back]
    for number, name in enumerate(names):
        columns[f"query_{name}"] = values[queries, number]
        columns[f"match_{name}"] = matched[:, number]
    return pa.table(columns)


def correlations(hits: pa.Table, names: list[str], seed: int) -> dict[str, dict[str, Any]]:
    """Of every quantity, between each query and its best match."""
    first = hits.filter(pc.equal(hits["rank"], 1))
    return {
        name: {"unit": unit, **correlation(np.asarray(first[f"query_{name}"]),
                                           np.asarray(first[f"match_{name}"]), SHUFFLES, seed)}
        for name, unit in zip(names, units(names), strict=True)
    }  # fmt: skip


def may_answer(index: Index, where: str | None) -> NDArray[np.bool_]:
    """Rows of the index that satisfy ``search.where``.

    Raises
    ------
    DataError
        There are none; it says what each condition leaves by itself.
    """
    columns = Columns(index.table)
    conditions = parts(columns, Limits(where=where))
    rows = allowed(columns, conditions)
    if not rows.any():
        counts = alone(conditions, record_codes(index))
        left = ", ".join(f"{one['condition']!r} leaves {one['records']} records" for one in counts)
        raise DataError(f"no observation satisfies search.where = {where!r}: alone, {left}")
    return rows


def _existing(folder: Path, made_from: dict[str, Any]) -> Search | None:
    if not (folder / "search.json").is_file():
        return None
    try:
        search = read_search(folder)
    except DataError as error:
        log(f"made again: {error}")
        return None
    return search if search.made_from == made_from and whole(folder, search) else None


def summary(folder: Path, search: Search, skipped: bool) -> Result:
    """What the stage prints."""
    flux = search.quantities.get("USFLUX", {})  # EUV images have none
    return {
        "search": str(folder), "queries": search.queries, "answered": search.answered,
        "source": search.made_from["source"], "usflux_pearson": flux.get("pearson"),
        "usflux_spearman": flux.get("spearman"),
        "usflux_pearson_shuffled": flux.get("pearson_shuffled"),
        "records": search.records, "skipped": skipped,
    }  # fmt: skip


def interrogate(config: Config) -> Result:
    """Look ``search.queries`` generated patches up in the index; measure both sides.

    Raises
    ------
    DataError
        Generator, encoder, index and shards do not belong together.
    """
    layout = Layout.current()
    folder = layout.searches(config.name)
    index = load_index(layout.index(config.name))
    encoder = index_encoder(index.info)
    generator = Generator.load(require_run(layout, config.name, "run sunpipe train first"))
    check_generator(index.info, encoder, generator)
    datasets = Datasets(index)
    for number in range(len(index.info.sources)):
        datasets.reader(number)  # all that may answer can be measured
    w, asked = query_latents(config, generator, layout.latents(config.name) / "samples.h5")
    made_from = {
        "index": sha256(index.folder / "index.json"), "encoder": encoder.card.digest,
        "generator": generator.digest, "dataset": index.info.dataset["id"],
        "settings": to_dict(config.search), "control_seed": config.seed, **asked,
    }  # fmt: skip
    found = _existing(folder, made_from)
    if found is not None:
        log(f"{folder} is up to date")
        return summary(folder, found, skipped=True)

    names = check_names((), "search", generator.channels)
    rows = may_answer(index, config.search.where)
    with StopFlag() as stop:
        fields, values, vectors = look_at_queries(
            generator, encoder, w, names, asked["noise"], stop
        )
        codes = fold_codes(index.table, config.search.fold)
        answers = nearest_groups(index, vectors, config.search.k, rows, codes)
        hits = hits_table(index, answers, values, datasets, names, stop)
    best = Counter(hits.filter(pc.equal(hits["rank"], 1))["record"].to_pylist())
    search = write_search(
        folder, hits, fields, w, made_from=made_from, queries=len(w),
        answered=sum(1 for answer in answers if answer), channels=list(generator.channels),
        pixel_cm=generator.pixel_cm, quantities=correlations(hits, names, config.seed),
        records=dict(best.most_common()),
    )  # fmt: skip
    datasets.close()
    return summary(folder, search, skipped=False)


def plan(config: Config) -> Result:
    """What `interrogate` would do."""
    layout = Layout.current()
    samples = layout.latents(config.name) / "samples.h5"
    return {
        "index": str(layout.index(config.name)), "search": str(layout.searches(config.name)),
        "queries": config.search.queries, "k": config.search.k,
        "source": "samples" if samples.is_file() else "seeds",
    }  # fmt: skip
