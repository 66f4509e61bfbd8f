"""``sunpipe index add``: an index takes in what it does not hold yet.

A patch is known by its record and tile. What is new is encoded with the lists and
codes that the index has, which then are measured again. They are learned anew, and
the kind is chosen anew, when the index has grown by half since they were learned,
when the measured recall falls below the one asked for, or when the index is flat.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sunpipe.embed.store import EmbeddingInfo, read_embedding, read_metadata
from sunpipe.errors import DataError, SunpipeError
from sunpipe.files import sha256
from sunpipe.index import construct
from sunpipe.index.build import check_order, finish, source_note
from sunpipe.index.codes import Shape, add
from sunpipe.index.construct import Plan
from sunpipe.index.describe import summary
from sunpipe.index.publish import judge, publish
from sunpipe.index.sources import Source, blocks, embedding_sources, index_source, starts
from sunpipe.index.store import Index, IndexInfo, load_index, read_info
from sunpipe.index_settings import IndexSettings
from sunpipe.shards.tiles import SAME_SCALE
from sunpipe.stage import log

Result = dict[str, Any]
Ints = NDArray[np.int64]
GROWN = 1.5  # times the vectors learned from, beyond which lists and codes are learned anew
IDENTITY = ("record", "tile_y", "tile_x")
CUT_ALIKE = ("channels", "units", "resolution", "tile", "reduce")


def check_same_kind(index: Index, embedding: EmbeddingInfo, folder: Path) -> None:
    """Refuse vectors of another encoder, length, or of patches cut otherwise.

    Raises
    ------
    DataError
    """
    mine, other = index.info.encoder["digest"], embedding.encoder["digest"]
    if mine != other:
        raise DataError(
            f"the index {index.folder} holds vectors of encoder {mine[:12]}, {folder} has those of"
            f" encoder {other[:12]}; embed with the encoder of the index, or build another index"
        )
    if embedding.dim != index.info.dim:
        raise DataError(f"the index {index.folder} holds vectors of {index.info.dim} numbers,"
                        f" {folder} has {embedding.dim}")  # fmt: skip
    for name in CUT_ALIKE:
        here, there = index.info.dataset.get(name), embedding.dataset.get(name)
        if here != there:
            raise DataError(
                f"the patches of {folder} were cut otherwise than those of {index.folder}: {name}"
                f" is {there!r}, not {here!r}; build another index"
            )
    _check_pixel(index, embedding, folder)


def _check_pixel(index: Index, embedding: EmbeddingInfo, folder: Path) -> None:
    """The pixel is a median over a dataset, so two datasets of one instrument differ a little."""
    here, there = (float(each.dataset.get("pixel_cm") or 0) for each in (index.info, embedding))
    if here != there and not (here and abs(there / here - 1) < SAME_SCALE):
        raise DataError(
            f"the patches of {folder} were cut otherwise than those of {index.folder}: pixel_cm is"
            f" {there:.6g}, not {here:.6g} within {SAME_SCALE:.0%}; build another index"
        )


def _names(table: pa.Table) -> list[tuple[Any, ...]]:
    return list(zip(*(table[name].to_pylist() for name in IDENTITY), strict=True))


def new_rows(index: Index, table: pa.Table) -> Ints:
    """Rows of an embedding's metadata that the index does not hold; doubles come once."""
    known = set(_names(index.table))
    fresh = []
    for row, name in enumerate(_names(table)):
        if name not in known:
            known.add(name)
            fresh.append(row)
    return np.array(fresh, np.int64)


def _kept(sources: list[Source], rows: Ints) -> list[Source]:
    """The sources, reduced to some of their rows; none that is empty."""
    kept = []
    for start, source in zip(starts(sources), sources, strict=False):
        low, high = np.searchsorted(rows, (start, start + source.count))
        if low < high:
            kept.append(replace(source, keep=rows[low:high] - start))
    return kept


def _joined(index: Index, table: pa.Table, rows: Ints) -> pa.Table:
    """Metadata of both; a column that one lacks is null there."""
    new = table.take(pa.array(rows))
    try:
        return pa.concat_tables([index.table, new], promote_options="permissive").combine_chunks()
    except pa.ArrowException as error:
        raise DataError(f"metadata of {index.folder} and of the embedding do not fit together:"
                        f" {error}") from None  # fmt: skip


def _settings(info: IndexInfo) -> IndexSettings:
    asked = info.asked
    return IndexSettings(metric=info.metric, kind=asked["kind"], recall=asked["recall"],  # type: ignore[arg-type]
                         memory_gb=asked["memory_gb"])  # fmt: skip


def why_anew(info: IndexInfo, count: int) -> str:
    """Why lists and codes are learned anew at `count` vectors; nothing when they are kept."""
    if info.kind == "flat":
        return "a flat index has no codes to keep"
    if count > GROWN * info.trained:
        return (f"{count} vectors are more than {GROWN:g} times the {info.trained} that codes were"
                " learned from")  # fmt: skip
    return ""


def grow(folder: Path, embeddings: Path) -> Result:
    """Add what is new in an embedding to an index.

    Parameters
    ----------
    folder : Path
        An index; it is replaced at the very end, all files at once.
    embeddings : Path
        Folder written by ``sunpipe embed`` with the encoder of the index.

    Returns
    -------
    dict
        As of `build`, and ``added``, ``known`` (rows skipped), ``learned_anew`` (why, or "").

    Raises
    ------
    DataError
        Another encoder or dimension, patches cut otherwise, altered files.
    """
    folder, embeddings = Path(folder).absolute(), Path(embeddings).absolute()
    read_info(folder)  # a folder that holds no index gets no lock
    with construct.alone(folder):  # what is added, and after which row, is decided inside
        return _grow(load_index(folder), embeddings)


def _grow(index: Index, embeddings: Path) -> Result:
    folder = index.folder
    embedding = read_embedding(embeddings)
    check_same_kind(index, embedding, embeddings)
    table = read_metadata(embeddings, embedding)
    all_sources = embedding_sources(embeddings, embedding)
    check_order(table, all_sources, embeddings)
    rows = new_rows(index, table)
    known = len(table) - len(rows)
    if not len(rows):
        log(f"{folder} holds all {known} patches of {embeddings} already")
        return {**summary(folder, index.info), "added": 0, "known": known, "learned_anew": "",
                "skipped": True}  # fmt: skip
    if known:
        log(f"{known} of {len(table)} patches are in the index already: skipped")
    source = sha256(embeddings / "embedding.json")
    fresh = _kept(all_sources, rows)
    plan = Plan(folder, index.info.metric, [index_source(index), *fresh], _settings(index.info),
                {"embedding": source, "grown": index.info.files})  # fmt: skip
    about = {
        "encoder": index.info.encoder, "dataset": index.info.dataset,
        "splits": sorted({*index.info.splits, *embedding.splits}), "embedding": source,
        "sources": [*index.info.sources,
                    source_note(embedding, source, index.info.count, len(rows))],
    }  # fmt: skip
    info, why = _write(index, plan, _joined(index, table, rows), about)
    return {**summary(folder, info), "added": len(rows), "known": known, "learned_anew": why,
            "skipped": False}  # fmt: skip


def _write(
    index: Index, plan: Plan, table: pa.Table, about: dict[str, Any]
) -> tuple[IndexInfo, str]:
    why = why_anew(index.info, plan.count)
    try:
        construct.start(plan)
        if not why:
            info = _append(index, plan, table, about)
            if info is not None:
                return info, ""
            why = "the recall fell below the one asked for"
        log(f"learned anew: {why}")
        shapes, _, _ = construct.learned(plan)
        construct.encode(plan, (1, 1), shapes)
        return finish(plan, 1, table, about), why
    except (SunpipeError, OSError):
        construct.discard(plan)
        raise


def _append(index: Index, plan: Plan, table: pa.Table, about: dict[str, Any]) -> IndexInfo | None:
    """Encode what is new with the codes there are; None when the recall is not kept."""
    construct.encode(plan, (1, 1), {})  # vectors only
    first = starts(plan.sources)
    for number, source in enumerate(plan.sources[1:], 1):
        for start, vectors in blocks(source, plan.settings.block, plan.metric):
            add(index.faiss, vectors, first[number] + start)
    codes = {index.info.kind: (Shape(**index.info.shape), index.faiss)}
    settings = replace(plan.settings, kind=index.info.kind)  # type: ignore[arg-type]
    vectors = construct.prepared(plan)
    chosen, _, measured = judge(vectors, codes, [], "", plan.metric, settings)
    if chosen.recall < plan.settings.recall:
        (plan.work / "part-1-of-1.json").unlink()
        return None
    reason = f"{chosen.kind} was kept: it finds {chosen.recall:.4f} of the true neighbours"
    info = publish(
        plan.out, plan.work / "vectors.npy", codes, table, (chosen, reason, measured),
        metric=plan.metric, asked=index.info.asked, trained=index.info.trained, **about,
    )  # fmt: skip
    construct.discard(plan)
    return info
