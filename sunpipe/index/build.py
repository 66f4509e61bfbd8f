"""``sunpipe index build``, ``info`` and ``verify``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from sunpipe.embed.store import read_embedding, read_metadata, read_vectors
from sunpipe.errors import DataError
from sunpipe.files import sha256
from sunpipe.index.store import (
    FILES,
    Index,
    IndexInfo,
    altered,
    check_target,
    load_index,
    read_info,
    write_index,
)
from sunpipe.stage import log

Result = dict[str, Any]
SELF_TESTS = 256  # vectors that verify looks up in their own index


def summary(folder: Path, info: IndexInfo) -> Result:
    """What `info` and `build` say about an index."""
    return {
        "index": str(folder), "kind": info.kind, "metric": info.metric,
        "normalisation": info.normalisation, "dim": info.dim, "count": info.count,
        "recall": info.recall, "bytes": sum((folder / name).stat().st_size for name in FILES),
        "encoder": info.encoder["digest"], "run": info.encoder["run"],
        "dataset": info.dataset["name"], "dataset_id": info.dataset["id"], "splits": info.splits,
        "files": info.files,
    }  # fmt: skip


def _up_to_date(out: Path, embedding: str, metric: str) -> IndexInfo | None:
    """The index in `out` if it was built from this embedding and is whole."""
    if not (out / "index.json").is_file():
        return None
    try:
        info = read_info(out)
    except DataError as error:
        log(f"built again: {error}")
        return None
    same = (info.embedding, info.metric) == (embedding, metric)
    return info if same and not altered(out, info) else None


def build(embeddings: Path, out: Path, metric: str = "cosine") -> Result:
    """Build an exact index of an embedding, or say that it is up to date.

    Parameters
    ----------
    embeddings : Path
        Folder written by ``sunpipe embed``.
    out : Path
        New or existing index folder; nothing else may stand in it.
    metric : {"cosine", "euclidean"}
    """
    embeddings, out = Path(embeddings).absolute(), Path(out).absolute()
    check_target(out)
    embedding = read_embedding(embeddings)
    source = sha256(embeddings / "embedding.json")
    info = _up_to_date(out, source, metric)
    if info is not None:
        log(f"{out} is up to date")
        return {**summary(out, info), "skipped": True}
    info = write_index(
        out, read_vectors(embeddings, embedding), read_metadata(embeddings, embedding),
        metric=metric, dim=embedding.dim, encoder=embedding.encoder, dataset=embedding.dataset,
        splits=embedding.splits, embedding=source,
    )  # fmt: skip
    return {**summary(out, info), "skipped": False}


def _self_retrieval(index: Index) -> list[str]:
    """Look some vectors up: each must find itself at distance 0, or a twin of it."""
    count = index.info.count
    rows = np.unique(np.linspace(0, count - 1, min(count, SELF_TESTS)).astype(np.int64))
    vectors = np.stack([index.faiss.reconstruct(int(row)) for row in rows])
    if not np.isfinite(vectors).all():
        return ["some vectors are not finite"]
    _, found = index.faiss.search(vectors, 1)
    twins = np.stack([index.faiss.reconstruct(int(row)) for row in found[:, 0]])
    wrong = rows[~np.isclose(twins, vectors, rtol=0, atol=1e-4).all(axis=1)]
    return [f"vector {row} does not find itself" for row in wrong]


def verify(folder: Path) -> Result:
    """Check digests, counts and self-retrieval of an index.

    Returns
    -------
    dict
        ``{"ok": bool, "problems": [...], "count": n}``
    """
    folder = Path(folder)
    info = read_info(folder)
    problems = [f"{name} is missing or was altered" for name in altered(folder, info)]
    if not problems:
        try:
            problems = _self_retrieval(load_index(folder)) if info.count else ["it is empty"]
        except DataError as error:
            problems = [str(error)]
    return {"ok": not problems, "problems": problems, "count": info.count}
