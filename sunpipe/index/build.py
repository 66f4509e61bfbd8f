"""``sunpipe index build`` and ``merge``: an embedding becomes an index."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from sunpipe.embed.store import EmbeddingInfo, read_embedding, read_metadata
from sunpipe.errors import DataError, SunpipeError, UsageError
from sunpipe.files import sha256
from sunpipe.index import construct
from sunpipe.index.construct import Plan
from sunpipe.index.describe import summary
from sunpipe.index.publish import asked_of, judge, publish
from sunpipe.index.sources import Source, embedding_sources
from sunpipe.index.store import IndexInfo, altered, check_target, read_info
from sunpipe.index_settings import IndexSettings
from sunpipe.parts import parse_part
from sunpipe.stage import log

Result = dict[str, Any]


def settings_for(settings: IndexSettings | None, metric: str) -> IndexSettings:
    """The settings with another metric."""
    from dataclasses import replace

    return replace(settings or IndexSettings(), metric=metric)  # type: ignore[arg-type]


def embedding_plan(
    embeddings: Path, out: Path, settings: IndexSettings
) -> tuple[Plan, EmbeddingInfo]:
    """What to build from one embedding.

    Raises
    ------
    DataError
        No complete embedding, or one without vectors.
    """
    embedding = read_embedding(embeddings)
    if not embedding.count:
        raise DataError(f"the embedding {embeddings} holds no vectors; run sunpipe embed on a"
                        " dataset with patches")  # fmt: skip
    source = sha256(embeddings / "embedding.json")
    plan = Plan(out, settings.metric, embedding_sources(embeddings, embedding), settings,
                {"embedding": source})  # fmt: skip
    if plan.count != embedding.count:
        raise DataError(f"{embeddings}: {plan.count} vectors for {embedding.count} rows of"
                        " metadata; embed again")  # fmt: skip
    return plan, embedding


def check_order(table: pa.Table, sources: Sequence[Source], embeddings: Path) -> None:
    """Refuse metadata whose rows do not follow the files of the vectors.

    Raises
    ------
    DataError
    """
    files = np.repeat([each.path.name for each in sources],
                      [each.rows for each in sources])  # fmt: skip
    right = table["embedding"].to_pylist() == files.tolist()
    if right and "vector" in table.column_names:
        rows = np.concatenate([np.arange(each.rows) for each in sources])
        right = table["vector"].to_pylist() == rows.tolist()
    if not right:
        raise DataError(f"the rows of {embeddings / 'metadata.parquet'} are not in the order of the"
                        " vectors; run sunpipe embed again")  # fmt: skip


def up_to_date(plan: Plan) -> IndexInfo | None:
    """The index that stands there if it holds this embedding and is whole."""
    if not (plan.out / "index.json").is_file():
        return None
    try:
        info = read_info(plan.out)
    except DataError as error:
        log(f"built again: {error}")
        return None
    held = [each["embedding"] for each in info.sources]
    same = plan.identity["embedding"] in held and info.metric == plan.metric
    same = same and info.asked == asked_of(plan.settings)
    return info if same and not altered(plan.out, info) else None


def finish(plan: Plan, number: int, table: pa.Table, about: dict[str, Any]) -> IndexInfo:
    """Join `number` parts, measure, choose and publish; the hidden folder goes."""
    shapes, left_out, why = construct.learned(plan)
    codes = {kind: (shape, construct.joined(plan, kind, number)) for kind, shape in shapes.items()}
    vectors = construct.prepared(plan)
    verdict = judge(vectors, codes, left_out, why, plan.metric, plan.settings)
    info = publish(
        plan.out, plan.work / "vectors.npy", codes, table, verdict,
        metric=plan.metric, asked=asked_of(plan.settings), trained=len(vectors), **about,
    )  # fmt: skip
    construct.discard(plan)
    return info


def _about(embedding: EmbeddingInfo, source: str) -> dict[str, Any]:
    return {
        "encoder": embedding.encoder, "dataset": embedding.dataset, "splits": embedding.splits,
        "embedding": source, "sources": [source_note(embedding, source, 0, embedding.count)],
    }  # fmt: skip


def source_note(embedding: EmbeddingInfo, source: str, first: int, rows: int) -> dict[str, Any]:
    """One entry of ``sources`` in ``index.json``."""
    return {"embedding": source, "dataset": embedding.dataset["name"],
            "dataset_id": embedding.dataset["id"], "first": first, "rows": rows}  # fmt: skip


def build(
    embeddings: Path, out: Path, metric: str = "cosine", settings: IndexSettings | None = None,
    part: str | None = None,
) -> Result:  # fmt: skip
    """Build an index of an embedding, or say that it is up to date.

    Parameters
    ----------
    embeddings : Path
        Folder written by ``sunpipe embed``.
    out : Path
        New or existing index folder; nothing else may stand in it.
    metric : {"cosine", "euclidean"}
    settings : IndexSettings, optional
        Kind, recall, memory, block.
    part : str, optional
        ``I/N``: encode one share of the files; the part that ends last publishes.

    Raises
    ------
    DataError
        Altered or missing vectors; NaN; zero vectors under ``cosine``.
    UsageError
        `out` holds other things, or there is too little for the kind asked for.
    """
    embeddings, out = Path(embeddings).absolute(), Path(out).absolute()
    check_target(out)
    plan, embedding = embedding_plan(embeddings, out, settings_for(settings, metric))
    info = up_to_date(plan)
    if info is not None:
        log(f"{out} is up to date")
        return {**summary(out, info), "skipped": True}
    table = read_metadata(embeddings, embedding)
    check_order(table, plan.sources, embeddings)
    if part is not None and (mine := parse_part(part))[1] > 1:
        return _share(plan, mine, table, embedding)
    with construct.alone(out):
        info = up_to_date(plan)  # another process may have built it while we waited
        if info is not None:
            return {**summary(out, info), "skipped": True}
        try:
            construct.start(plan)
            shapes, _, _ = construct.learned(plan)
            construct.encode(plan, (1, 1), shapes)
            info = finish(plan, 1, table, _about(embedding, plan.identity["embedding"]))
        except (SunpipeError, OSError):
            if not construct.is_shared(plan.work):  # what other tasks have finished stays
                construct.discard(plan)
            raise
    return {**summary(out, info), "skipped": False}


def _share(plan: Plan, part: construct.Part, table: pa.Table, embedding: EmbeddingInfo) -> Result:
    """One task of several; the one that ends last publishes."""
    number = part[1]
    with construct.alone(plan.out):
        construct.start(plan, shared=True)
        shapes, _, _ = construct.learned(plan)
    construct.encode(plan, part, shapes)
    with construct.alone(plan.out):
        if not plan.work.is_dir():  # another part has just published
            return {**summary(plan.out, read_info(plan.out)), "skipped": False}
        left = construct.missing(plan, number)
        if left:
            log(f"{len(left)} of {number} parts are left to other tasks")
            return {"index": str(plan.out), "parts": number, "parts_left": left, "skipped": False}
        info = finish(plan, number, table, _about(embedding, plan.identity["embedding"]))
    return {**summary(plan.out, info), "skipped": False}


def merge(
    embeddings: Path, out: Path, metric: str = "cosine", settings: IndexSettings | None = None
) -> Result:
    """Publish an index whose parts are complete, if the task that should have is gone.

    Raises
    ------
    UsageError
        No parts, or some are missing; they are named.
    """
    embeddings, out = Path(embeddings).absolute(), Path(out).absolute()
    check_target(out)
    plan, embedding = embedding_plan(embeddings, out, settings_for(settings, metric))
    info = up_to_date(plan)
    if info is not None:
        log(f"{out} is up to date")
        return {**summary(out, info), "skipped": True}
    _whole(plan)  # nothing is touched, not even a lock made, where there is nothing to merge
    with construct.alone(out):
        info = up_to_date(plan)  # the last task may have published it while we waited
        if info is None:
            info = finish(plan, _whole(plan), read_metadata(embeddings, embedding),
                          _about(embedding, plan.identity["embedding"]))  # fmt: skip
    return {**summary(out, info), "skipped": False}


def _whole(plan: Plan) -> int:
    """Number of parts of a complete set; touches nothing."""
    numbers: set[int] = set()
    for found in plan.work.glob("part-*-of-*.json"):
        with suppress(ValueError):
            numbers.add(int(found.stem.rsplit("-", 1)[1]))
    left = {number: construct.missing(plan, number) for number in sorted(numbers)}
    whole = [number for number, parts in left.items() if not parts]
    if whole:
        return whole[0]
    why = [f"parts {', '.join(parts)} are missing" for parts in left.values()]
    why = why or ["no part was built with these settings; run sunpipe index build --part I/N"]
    why += [f"{other} was built with {construct.difference(plan, other)}"
            for other in construct.others(plan) if construct.is_shared(other)]  # fmt: skip
    raise UsageError(f"nothing to merge for {plan.out}: " + "; ".join(why))
