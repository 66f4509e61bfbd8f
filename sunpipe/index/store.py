"""``index/<name>/`` (contract C8): the one place that writes and reads it.

::

    vectors.faiss      the vectors, in the order of the metadata
    metadata.parquet   one row per vector
    index.json         see `IndexInfo`

Of 1000 damaged FAISS files 220 gave other results without a word, so the digest
of every file is checked before it is used.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from sunpipe.errors import DataError, UsageError
from sunpipe.files import atomic_folder, read_json, sha256, write_json
from sunpipe.provenance import provenance

SCHEMA = 1
FILES = ("vectors.faiss", "metadata.parquet", "index.json")
METRICS = ("cosine", "euclidean")
Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class IndexInfo:
    """``index.json``.

    Attributes
    ----------
    kind : str
        ``flat``: every vector is compared, nothing is approximated.
    recall : float
        Share of the true nearest vectors that are found; 1 for ``flat``.
    metric : str
        ``cosine`` (distance 1 - cos) or ``euclidean``.
    normalisation : str
        What was done to the encoder's vectors: ``l2`` (unit length) or ``none``.
    dim, count : int
    encoder, dataset : dict
        Cards as in `sunpipe.embed.store.EmbeddingInfo`.
    splits : list of str
    embedding : str
        SHA-256 of the ``embedding.json`` that the index was built from.
    files : dict
        ``vectors.faiss`` and ``metadata.parquet`` to SHA-256.
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
    provenance: dict[str, Any] = field(default_factory=provenance)
    schema: int = SCHEMA


@dataclass(frozen=True)
class Index:
    """An index in memory: the FAISS object, its metadata, and what it says of itself."""

    folder: Path
    info: IndexInfo
    faiss: Any
    table: pa.Table


def unit_length(vectors: Vectors) -> Vectors:
    """Vectors divided by their length, float32; a zero vector stays zero."""
    wide = vectors.astype(np.float64)
    length = np.linalg.norm(wide, axis=1, keepdims=True)
    return (wide / np.where(length == 0, 1, length)).astype(np.float32)


def prepare(vectors: Vectors, normalisation: str) -> Vectors:
    """Vectors as the index holds them: contiguous float32, normalised or not."""
    done = unit_length(vectors) if normalisation == "l2" else vectors
    return np.ascontiguousarray(done, np.float32)


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


def write_index(folder: Path, parts: Iterable[Vectors], table: pa.Table, **about: Any) -> IndexInfo:
    """Write a flat index, all three files at once.

    Parameters
    ----------
    parts : iterable of float32 ndarray (n, dim)
        As the encoder gave them; added one after the other, so that memory
        holds the index and one part.
    table : pyarrow.Table
        One row per vector.
    """
    import faiss

    normalisation = "l2" if about["metric"] == "cosine" else "none"
    flat = faiss.IndexFlatIP if about["metric"] == "cosine" else faiss.IndexFlatL2
    index = flat(about["dim"])
    for vectors in parts:
        index.add(prepare(vectors, normalisation))
    if index.ntotal != len(table):
        raise DataError(f"{index.ntotal} vectors for {len(table)} rows of metadata; embed again")
    check_target(folder)
    with atomic_folder(folder) as temporary:
        faiss.write_index(index, str(temporary / "vectors.faiss"))
        pq.write_table(table, temporary / "metadata.parquet", compression="zstd")
        info = IndexInfo(
            kind="flat", recall=1.0, normalisation=normalisation, count=index.ntotal,
            files={name: sha256(temporary / name) for name in FILES[:2]}, **about,
        )  # fmt: skip
        write_json(temporary / "index.json", asdict(info))
    return info


def read_info(folder: Path) -> IndexInfo:
    """Read ``index.json``; a `DataError` tells what to run when it is not there."""
    folder = Path(folder)
    if not (folder / "index.json").is_file():
        raise DataError(f"no index in {folder}; run sunpipe index build first")
    data = read_json(folder / "index.json")
    if not isinstance(data, dict) or data.get("schema") != SCHEMA:
        raise DataError(f"{folder} has another schema than {SCHEMA}; build the index again")
    try:
        return IndexInfo(**data)
    except TypeError as error:
        raise DataError(f"{folder / 'index.json'} is not an index's: {error}") from None


def altered(folder: Path, info: IndexInfo) -> list[str]:
    """Files that are missing or whose content is not what was built."""
    return [
        name for name in FILES[:2]
        if not (folder / name).is_file() or sha256(folder / name) != info.files.get(name)
    ]  # fmt: skip


def load_index(folder: Path) -> Index:
    """Load an index whose files are exactly those that were built.

    Raises
    ------
    DataError
        No index, an altered file, or counts and dimension that disagree.
    """
    import faiss

    folder = Path(folder)
    info = read_info(folder)
    if bad := altered(folder, info):
        raise DataError(
            f"{folder / bad[0]} was altered or cut short (its SHA-256 is not the one in"
            " index.json); build the index again"
        )
    index = faiss.read_index(str(folder / "vectors.faiss"))
    table = pq.read_table(folder / "metadata.parquet")
    if not index.ntotal == len(table) == info.count or index.d != info.dim:
        raise DataError(
            f"{folder}: {index.ntotal} vectors of {index.d}, {len(table)} rows of metadata, but"
            f" index.json says {info.count} of {info.dim}; build the index again"
        )
    return Index(folder, info, index, table)
