"""What an index says of itself: ``info`` and ``verify``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from sunpipe.errors import DataError
from sunpipe.index.exact import device
from sunpipe.index.nearest import nearest_tiles
from sunpipe.index.pairs import unpaired
from sunpipe.index.store import Index, IndexInfo, altered, load_index, read_info

Result = dict[str, Any]
SELF_TESTS = 256  # vectors that verify looks up in their own index
BLOCK = 65_536


def summary(folder: Path, info: IndexInfo) -> Result:
    """What ``info`` and ``build`` say about an index."""
    sizes = {name: (folder / name).stat().st_size for name in (*info.files, "index.json")
             if (folder / name).is_file()}  # fmt: skip
    return {
        "index": str(folder), "kind": info.kind, "reason": info.reason, "metric": info.metric,
        "normalisation": info.normalisation, "dim": info.dim, "count": info.count,
        "recall": info.recall, "measured": info.measured, "shape": info.shape,
        "search": info.search, "trained": info.trained, "bytes": sum(sizes.values()),
        "bytes_per_vector": round(sum(sizes.values()) / max(info.count, 1), 1),
        "mapped": "vectors.faiss" if info.kind == "flat" else "vectors.npy",
        "device": device(), "encoder": info.encoder["digest"], "run": info.encoder["run"],
        "dataset": info.dataset["name"], "dataset_id": info.dataset["id"], "splits": info.splits,
        "sources": info.sources, "candidates": info.candidates, "files": info.files,
    }  # fmt: skip


def _self_retrieval(index: Index) -> list[str]:
    """Look some vectors up: each must find itself at distance 0, or a twin of it.

    Codes may miss as many as the recall that was asked for allows.
    """
    count = index.info.count
    rows = np.unique(np.linspace(0, count - 1, min(count, SELF_TESTS)).astype(np.int64))
    vectors = np.array(index.vectors[rows])
    _, found = nearest_tiles(index, vectors, 1, np.ones(count, bool))
    twins = np.asarray(index.vectors[found[:, 0]])
    wrong = rows[~np.isclose(twins, vectors, rtol=0, atol=1e-4).all(axis=1)]
    spare = 0.0 if index.info.kind == "flat" else (1 - index.info.asked["recall"]) * len(rows)
    return [f"vector {row} does not find itself" for row in wrong] if len(wrong) > spare else []


def _bad_vectors(index: Index) -> list[str]:
    """Vectors that are not finite, or not of unit length where they should be."""
    problems = []
    for start in range(0, index.info.count, BLOCK):
        part = np.asarray(index.vectors[start : start + BLOCK], np.float64)
        squares = (part**2).sum(axis=1)
        if not np.isfinite(squares).all():
            problems.append(f"{int((~np.isfinite(squares)).sum())} vectors from row {start} on are"
                            " not finite")  # fmt: skip
        elif index.info.normalisation == "l2" and (abs(squares - 1) > 1e-3).any():
            problems.append(f"vector {start + int(np.argmax(abs(squares - 1)))} is not of unit"
                            " length")  # fmt: skip
    return problems


def _sources(info: IndexInfo) -> list[str]:
    edge = 0
    for source in info.sources:
        if source["first"] != edge:
            return [f"embedding {source['embedding'][:12]} begins at row {source['first']}, not"
                    f" {edge}"]  # fmt: skip
        edge += source["rows"]
    return [] if edge == info.count else [f"sources hold {edge} rows, the index {info.count}"]


def verify(folder: Path) -> Result:
    """Check digests (reading every byte), counts, vectors and self-retrieval of an index.

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
            index = load_index(folder)
            problems = _sources(info) or unpaired(index.vectors, index.table, info.sources)
            problems += _bad_vectors(index)
            if not problems:
                problems = _self_retrieval(index) if info.count else ["it is empty"]
        except DataError as error:
            problems = [str(error)]
    return {"ok": not problems, "problems": problems, "count": info.count}
