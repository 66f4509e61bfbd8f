"""``index/<name>/`` (contract C8): the one place that reads it.

::

    vectors.faiss      the FAISS index: the vectors themselves (``flat``), or their codes
    vectors.npy        with codes only: float32 (count, dim), mapped by every search
    metadata.parquet   one row per vector
    index.json         see `IndexInfo`

Vectors stand on disk once and are mapped, never loaded: from ``vectors.npy``, or
from the end of ``vectors.faiss`` of a flat index, which FAISS maps as well. Codes
(a tenth to a sixtieth of the vectors) are loaded.

Of 1000 damaged FAISS files 220 gave other results without a word, so the digest
of every file is checked before it is used.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from sunpipe.errors import DataError, UsageError
from sunpipe.files import read_json, sha256
from sunpipe.index.digests import known_sha256
from sunpipe.provenance import provenance

SCHEMA = 3
NEVER = 1e9  # seconds of a search through codes that are never read
FILES = ("vectors.faiss", "vectors.npy", "metadata.parquet", "index.json")
METRICS = ("cosine", "euclidean")
KINDS = ("flat", "fastscan", "ivf")
Vectors = NDArray[np.float32]
# FAISS's IndexFlat: name, dimension (int32), vectors (int64), 21 bytes of two reserved
# numbers, "trained" and the metric, count of the numbers that follow (uint64); then those.
# (facebookresearch/faiss, faiss/impl/index_write.cpp: write_index_header, write_index)
FLAT_HEAD = struct.Struct("<4siq21xQ")
FLAT = (b"IxFI", b"IxF2")  # inner product, L2


@dataclass(frozen=True)
class IndexInfo:
    """``index.json``.

    Attributes
    ----------
    kind : str
        ``flat`` (every vector is compared), ``fastscan`` (every code is read, the
        best are compared exactly) or ``ivf`` (the codes of the nearest lists).
    reason : str
        Why this kind, in words.
    recall : float
        Share of the true 10 nearest that are found, measured on this index with
        rows that neither trained nor tuned it; 1 for ``flat`` by construction.
    metric : str
        ``cosine`` (distance 1 - cos) or ``euclidean``.
    normalisation : str
        What was done to the encoder's vectors: ``l2`` (unit length) or ``none``.
    dim, count : int
    encoder, dataset : dict
        Cards as in `sunpipe.embed.store.EmbeddingInfo`.
    splits : list of str
    embedding : str
        SHA-256 of the ``embedding.json`` that was added last.
    files : dict
        File name to SHA-256.
    asked : dict
        ``kind``, ``recall`` and ``memory_gb`` of the settings.
    shape, search, costs : dict
        What codes are made of, how they are searched, what that costs:
        see `sunpipe.index.codes.Shape` and `sunpipe.index.lookup.Lookup`.
    trained : int
        Vectors that were there when lists and codes were learned.
    candidates : list of dict
        All that was measured (`sunpipe.index.choose.Candidate`).
    sources : list of dict
        Embeddings in the order they were added: ``embedding``, ``dataset``,
        ``dataset_id``, ``first`` row, ``rows`` and ``pairs`` (`sunpipe.index.pairs`).
    measured : dict
        Recall, queries, queries per second, threads and device of the measurement.
    """

    kind: str
    recall: float
    metric: str
    normalisation: str
    dim: int
    count: int
    encoder: dict[str, Any]
    dataset: dict[str, Any]
    splits: list[str]
    embedding: str
    files: dict[str, str]
    reason: str
    asked: dict[str, Any]
    shape: dict[str, int]
    search: dict[str, Any]
    costs: dict[str, float]
    trained: int
    candidates: list[dict[str, Any]]
    sources: list[dict[str, Any]]
    measured: dict[str, Any]
    provenance: dict[str, Any] = field(default_factory=provenance)
    schema: int = SCHEMA


@dataclass(frozen=True)
class Index:
    """An open index.

    Attributes
    ----------
    folder : Path
    info : IndexInfo
    faiss : faiss.Index
    table : pyarrow.Table
        Metadata, one row per vector.
    vectors : float32 ndarray (count, dim)
        The prepared vectors, mapped from disk.
    """

    folder: Path
    info: IndexInfo
    faiss: Any
    table: pa.Table
    vectors: Vectors


def unit_length(vectors: Vectors) -> Vectors:
    """Vectors divided by their length, float32; a zero vector stays zero."""
    wide = vectors.astype(np.float64)
    length = np.linalg.norm(wide, axis=1, keepdims=True)
    return (wide / np.where(length == 0, 1, length)).astype(np.float32)


def prepare(vectors: Vectors, normalisation: str) -> Vectors:
    """Vectors as the index holds them: contiguous float32, normalised or not."""
    done = unit_length(vectors) if normalisation == "l2" else vectors
    return np.ascontiguousarray(done, np.float32)


def normalisation_of(metric: str) -> str:
    """What a metric does to vectors before they are stored."""
    return "l2" if metric == "cosine" else "none"


def check_target(folder: Path) -> None:
    """Refuse to replace a folder that holds anything but an index.

    Raises
    ------
    UsageError
        The folder has other files, or is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file; give a folder for the index")
    if folder.is_dir():
        other = sorted({path.name for path in folder.iterdir()} - set(FILES))
        if other:
            raise UsageError(f"{folder} holds {other[0]}, which is no part of an index; choose a"
                             " folder of its own")  # fmt: skip


def read_info(folder: Path) -> IndexInfo:
    """Read ``index.json``; a `DataError` tells what to run when it is not there."""
    folder = Path(folder)
    path = folder / "index.json"
    if not path.is_file():
        raise DataError(f"no index in {folder}; run sunpipe index build first")
    data = read_json(path)
    if not isinstance(data, dict) or data.get("schema") != SCHEMA:
        raise DataError(f"{folder} has another schema than {SCHEMA} (it was built by another"
                        " version); run sunpipe index build again")  # fmt: skip
    try:
        info = IndexInfo(**data)
    except TypeError as error:
        raise DataError(f"{path} is not an index's: {error}") from None
    wanted = set(FILES[:3]) - ({"vectors.npy"} if info.kind == "flat" else set())
    if info.kind not in KINDS or info.metric not in METRICS or set(info.files) != wanted:
        raise DataError(f"{path} is not an index's: kind {info.kind!r}, metric {info.metric!r},"
                        f" files {sorted(info.files)}")  # fmt: skip
    _check_keys(path, info)
    return info


def _check_keys(path: Path, info: IndexInfo) -> None:
    codes = info.kind != "flat"
    searched = {"nprobe", "factor", "full_factor"}
    if codes and isinstance(info.costs, dict) and info.costs.get("scan", 0.0) < NEVER:
        searched |= {"margin", "far", "trusted"}  # codes that are never read are not trusted either
    wanted = {
        "encoder": {"digest", "run"}, "dataset": {"name", "id"}, "measured": {"recall"},
        "asked": {"kind", "recall", "memory_gb"}, "shape": {"lists", "sub"} if codes else set(),
        "search": searched if codes else set(),
        "costs": {"exact", "gather"} | ({"scan", "full"} if codes else set()),
    }  # fmt: skip
    for name, keys in wanted.items():
        found = getattr(info, name)
        if not isinstance(found, dict) or (keys := keys - found.keys()):
            raise DataError(f"{path} is not an index's: {name} lacks {', '.join(sorted(keys))}")
    keys = {"embedding", "dataset", "dataset_id", "first", "rows", "pairs"}
    if not all(isinstance(each, dict) and keys <= each.keys() for each in info.sources):
        raise DataError(f"{path} is not an index's: sources lack {', '.join(sorted(keys))}")


def altered(folder: Path, info: IndexInfo, sums: Callable[[Path], str] = sha256) -> list[str]:
    """Files that are missing or whose content is not what was built."""
    return [name for name, known in info.files.items()
            if not (folder / name).is_file() or sums(folder / name) != known]  # fmt: skip


def map_vectors(folder: Path, kind: str, count: int, dim: int) -> Vectors:
    """The prepared vectors, mapped: they end ``vectors.faiss`` of a flat index.

    Raises
    ------
    DataError
        The file holds another number of vectors, or of another length.
    """
    if kind == "flat":
        path = folder / "vectors.faiss"
        with open(path, "rb") as file:
            # Mapped from the file whose head was read, whatever takes its name meanwhile.
            head = file.read(FLAT_HEAD.size)
            said = FLAT_HEAD.unpack(head) if len(head) == FLAT_HEAD.size else (b"", 0, 0, 0)
            whole = os.fstat(file.fileno()).st_size == FLAT_HEAD.size + 4 * count * dim
            if said[0] not in FLAT or said[1:] != (dim, count, count * dim) or not whole:
                raise DataError(f"{path} does not hold the {count} vectors of {dim} that index.json"
                                " tells of; build the index again")  # fmt: skip
            return np.memmap(file, "<f4", "r", FLAT_HEAD.size, (count, dim))
    vectors: Vectors = np.load(folder / "vectors.npy", mmap_mode="r", allow_pickle=False)
    if vectors.shape != (count, dim) or vectors.dtype != np.float32:
        raise DataError(f"{folder / 'vectors.npy'} has shape {vectors.shape}, but index.json says"
                        f" {count} of {dim}; build the index again")  # fmt: skip
    return vectors


def load_index(folder: Path) -> Index:
    """Open an index whose files are exactly those that were built.

    Digests of files above 64 MB are remembered while the file stays the same
    (`sunpipe.index.digests`).

    Raises
    ------
    DataError
        No index, an altered file, or counts and dimension that disagree.
    """
    import faiss

    folder = Path(folder)
    info = read_info(folder)
    if bad := altered(folder, info, known_sha256):
        raise DataError(
            f"{folder / bad[0]} was altered or cut short (its SHA-256 is not the one in"
            " index.json); build the index again"
        )
    flags = faiss.IO_FLAG_MMAP_IFC if info.kind == "flat" else 0
    index = faiss.read_index(str(folder / "vectors.faiss"), flags)
    table = pq.read_table(folder / "metadata.parquet")
    if not index.ntotal == len(table) == info.count or index.d != info.dim:
        raise DataError(
            f"{folder}: {index.ntotal} vectors of {index.d}, {len(table)} rows of metadata, but"
            f" index.json says {info.count} of {info.dim}; build the index again"
        )
    return Index(folder, info, index, table, map_vectors(folder, info.kind, info.count, info.dim))
