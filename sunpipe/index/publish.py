"""From measured codes to an index folder: choose, write all files, give it its name."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sunpipe.errors import DataError
from sunpipe.files import atomic_folder, sha256, write_json
from sunpipe.index.choose import (
    Candidate,
    gather_seconds,
    judge_codes,
    judge_flat,
    pick,
    plain,
    too_large,
)
from sunpipe.index.codes import Shape
from sunpipe.index.exact import device, faiss_metric, gpus
from sunpipe.index.margin import filtered
from sunpipe.index.measure import AT, ask, held_out
from sunpipe.index.pairs import pairs_digest, unpaired
from sunpipe.index.store import IndexInfo, Vectors, check_target, normalisation_of
from sunpipe.index_settings import IndexSettings
from sunpipe.stage import log

Verdict = tuple[Candidate, str, dict[str, Any]]


def measured_on(vectors: Vectors, asked: Any) -> dict[str, Any]:
    """What a recall was measured with, for ``index.json``."""
    import faiss

    return {"neighbours": asked.k, "queries": len(asked.rows), "vectors": len(vectors),
            "threads": faiss.omp_get_max_threads(), "device": device(), "gpus": gpus(),
            "faiss": faiss.__version__}  # fmt: skip


def judge(
    vectors: Vectors, codes: dict[str, tuple[Shape, Any]], left_out: Sequence[Candidate], why: str,
    metric: str, settings: IndexSettings,
) -> Verdict:  # fmt: skip
    """Measure every kind on the vectors themselves and choose.

    Returns
    -------
    Candidate
        The kind that is taken.
    str
        The reason.
    dict
        ``candidates``, ``measured``, ``costs``: see `IndexInfo`.
    """
    tuning_rows, judging_rows = held_out(len(vectors))
    judging = ask(vectors, judging_rows, metric)
    flat = judge_flat(vectors, judging, metric)
    if note := too_large("flat", len(vectors), vectors.shape[1], settings.memory_gb):
        flat = Candidate("flat", flat.recall, flat.qps, note=note)
    candidates = [flat]
    costs = {"exact": 1 / flat.qps / len(vectors), "gather": gather_seconds(vectors)}
    if codes:
        tuning = ask(vectors, tuning_rows, metric)
        cases = filtered(vectors, tuning, metric)  # one pass for all kinds
        candidates += [
            judge_codes(kind, shape, index, vectors, (tuning, judging), cases, metric,
                        settings.recall, costs)
            for kind, (shape, index) in codes.items()
        ]  # fmt: skip
    candidates += left_out
    if settings.kind != "auto" or not codes:
        kind = settings.kind if codes else "flat"
        chosen = next(each for each in candidates if each.kind == kind)
        reason = why or f"{kind} was asked for"
        if chosen.note:
            reason += f", although {chosen.note}"
    else:
        chosen, reason = pick(candidates, settings.recall)
    about = {
        "candidates": plain(candidates),
        "measured": {**measured_on(vectors, judging), "recall": chosen.recall,
                     "qps": round(chosen.qps, 1), "exact_qps": round(flat.qps, 1)},
        "costs": {**costs, **chosen.costs},
    }  # fmt: skip
    return chosen, reason, about


def _place(vectors: Path, target: Path) -> None:
    """The same file under another name; a copy where the file system has no links."""
    try:
        os.link(vectors, target)
    except OSError:
        shutil.copyfile(vectors, target)


def _flat(vectors: Vectors, metric: str, dim: int) -> Any:
    import faiss

    index = faiss.IndexFlat(dim, faiss_metric(metric))
    for start in range(0, len(vectors), 65_536):
        index.add(np.ascontiguousarray(vectors[start : start + 65_536]))
    return index


def publish(
    out: Path, path: Path, codes: dict[str, tuple[Shape, Any]], table: pa.Table, verdict: Verdict,
    **about: Any,
) -> IndexInfo:  # fmt: skip
    """Write the chosen index, all files at once.

    Parameters
    ----------
    out : Path
    path : Path
        ``vectors.npy`` with all prepared vectors.
    codes : dict
        Kind to its shape and filled FAISS index.
    table : pyarrow.Table
        One row per vector.
    verdict : tuple
        From `judge`.
    about : dict
        The other fields of `IndexInfo`.
    """
    import faiss

    chosen, reason, measured = verdict
    vectors: Vectors = np.load(path, mmap_mode="r", allow_pickle=False)
    if len(vectors) != len(table):
        raise DataError(f"{len(vectors)} vectors for {len(table)} rows of metadata; embed again")
    sources = about.pop("sources")  # rows that were there before keep their vectors
    if wrong := unpaired(vectors, table, [each for each in sources if "pairs" in each]):
        raise DataError(f"{out}: {wrong[0]}")
    sources = [each if "pairs" in each else
               {**each, "pairs": pairs_digest(vectors, table, each["first"], each["rows"])}
               for each in sources]  # fmt: skip
    flat = chosen.kind == "flat"
    index = _flat(vectors, about["metric"], vectors.shape[1]) if flat else codes[chosen.kind][1]
    check_target(out)
    with atomic_folder(out) as temporary:
        faiss.write_index(index, str(temporary / "vectors.faiss"))
        names = ["vectors.faiss", "metadata.parquet"]
        if not flat:
            _place(path, temporary / "vectors.npy")
            names.append("vectors.npy")
        pq.write_table(table, temporary / "metadata.parquet", compression="zstd")
        info = IndexInfo(
            kind=chosen.kind, reason=reason, recall=chosen.recall,
            normalisation=normalisation_of(about["metric"]), dim=vectors.shape[1],
            count=len(vectors), sources=sources, shape=chosen.shape, search=chosen.search,
            files={name: sha256(temporary / name) for name in names}, **measured, **about,
        )  # fmt: skip
        write_json(temporary / "index.json", asdict(info))
    log(f"{out}: {reason}")
    return info


def asked_of(settings: IndexSettings) -> dict[str, Any]:
    """What of the settings a later ``index add`` keeps to; ``AT`` neighbours count."""
    return {"kind": settings.kind, "recall": settings.recall, "memory_gb": settings.memory_gb,
            "neighbours": AT}  # fmt: skip
