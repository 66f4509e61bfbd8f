"""``sunpipe index build`` and ``merge``: an embedding becomes an index."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa

from sunpipe.embed.store import EmbeddingInfo, read_embedding, read_metadata
from sunpipe.errors import DataError, SunpipeError, UsageError
from sunpipe.files import sha256
from sunpipe.index import construct
from sunpipe.index.construct import Plan
from sunpipe.index.describe import summary
from sunpipe.index.publish import asked_of, judge, publish
from sunpipe.index.sources import embedding_sources
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
    mine = parse_part(part) if part else (1, 1)
    try:
        with construct.alone(plan):
            construct.start(plan)
            shapes, _, _ = construct.learned(plan)
        construct.encode(plan, mine, shapes)
        return _publish_when_last(plan, mine[1], table, embedding)
    except (SunpipeError, OSError):
        if mine[1] == 1:  # other parts keep what they have
            construct.discard(plan)
        raise


def _publish_when_last(
    plan: Plan, number: int, table: pa.Table, embedding: EmbeddingInfo
) -> Result:
    with construct.alone(plan):
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
    numbers: set[int] = set()
    for found in plan.work.glob("part-*-of-*.json"):
        with suppress(ValueError):
            numbers.add(int(found.stem.rsplit("-", 1)[1]))
    whole = [number for number in sorted(numbers) if not construct.missing(plan, number)]
    if not whole:
        left = {number: construct.missing(plan, number) for number in sorted(numbers)}
        raise UsageError(
            f"nothing to merge for {out}: " + ("; ".join(
                f"parts {', '.join(parts)} are missing" for parts in left.values())
                or "no part was built; run sunpipe index build --part I/N")
        )  # fmt: skip
    with construct.alone(plan):
        construct.start(plan)
        if construct.missing(plan, whole[0]):
            raise UsageError(f"the parts of {out} were built with other settings; build them again")
        info = finish(plan, whole[0], read_metadata(embeddings, embedding),
                      _about(embedding, plan.identity["embedding"]))  # fmt: skip
    return {**summary(out, info), "skipped": False}
