"""Where vectors come from: files of an embedding, or an index that grows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sunpipe.embed.store import EmbeddingInfo
from sunpipe.errors import DataError
from sunpipe.files import sha256
from sunpipe.index.store import Index, map_vectors, prepare

Vectors = NDArray[np.float32]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Source:
    """Vectors of one file.

    Attributes
    ----------
    path : Path
    rows : int
        Vectors in the file.
    dim : int
    sha256 : str or None
        Of the whole file; None when it was checked already.
    prepared : bool
        They stand in an index, so they are normalised.
    keep : int64 ndarray or None
        Rows of the file that are taken; all by default.
    """

    path: Path
    rows: int
    dim: int
    sha256: str | None
    prepared: bool = False
    keep: Ints | None = None

    @property
    def count(self) -> int:
        """Vectors that are taken."""
        return self.rows if self.keep is None else len(self.keep)


def embedding_sources(folder: Path, info: EmbeddingInfo) -> list[Source]:
    """One source per file of an embedding, in the order of its metadata."""
    return [Source(Path(folder) / name, known["rows"], info.dim, known["sha256"])
            for name, known in info.files.items()]  # fmt: skip


def index_source(index: Index) -> Source:
    """The vectors of an open index, whose digests were checked."""
    name = "vectors.faiss" if index.info.kind == "flat" else "vectors.npy"
    return Source(index.folder / name, index.info.count, index.info.dim, None, prepared=True)


def starts(sources: Sequence[Source]) -> list[int]:
    """First row of each source in the index, and the number of all rows."""
    return [0, *np.cumsum([each.count for each in sources]).tolist()]


def check(source: Source) -> None:
    """Refuse a file that is not the one the embedding speaks of."""
    if source.sha256 is None:
        return
    if not source.path.is_file() or sha256(source.path) != source.sha256:
        raise DataError(f"{source.path} is missing or was altered; run sunpipe embed again")


def _open(source: Source) -> Vectors:
    if source.path.name == "vectors.faiss":
        return map_vectors(source.path.parent, "flat", source.rows, source.dim)
    try:
        vectors: Vectors = np.load(source.path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError):
        raise DataError(
            f"{source.path} is missing or was altered; run sunpipe embed again"
        ) from None
    if vectors.shape != (source.rows, source.dim) or vectors.dtype != np.float32:
        raise DataError(
            f"{source.path} holds {vectors.dtype} of shape {vectors.shape}, not {source.rows}"
            f" finite vectors of {source.dim}; run sunpipe embed again"
        )
    return vectors


def _ready(source: Source, vectors: Vectors, rows: Ints, metric: str) -> Vectors:
    if source.prepared:
        return np.array(vectors, np.float32)
    good = np.isfinite(vectors).all(axis=1)
    if not good.all():
        row = int(rows[np.argmin(good)])
        raise DataError(f"{source.path} does not hold {source.rows} finite vectors of {source.dim}:"
                        f" row {row} has NaN or infinity; run sunpipe embed again")  # fmt: skip
    if metric == "euclidean":
        return prepare(vectors, "none")
    zero = ~vectors.any(axis=1)
    if zero.any():
        raise DataError(
            f"{source.path} has {int(zero.sum())} zero vectors (first: row"
            f" {int(rows[np.argmax(zero)])}): they have no direction for cosine; use --metric"
            " euclidean, or look whether the encoder has collapsed"
        )
    return prepare(vectors, "l2")


def blocks(source: Source, size: int, metric: str) -> Iterator[tuple[int, Vectors]]:
    """Prepared vectors, `size` at a time, each with its place among those taken.

    Raises
    ------
    DataError
        The file was altered, or a vector is not finite, or is zero under ``cosine``.
    """
    check(source)
    vectors = _open(source)
    kept = np.arange(source.rows) if source.keep is None else source.keep
    for start in range(0, source.count, size):
        rows = kept[start : start + size]
        part = vectors[rows[0] : rows[-1] + 1] if source.keep is None else vectors[rows]
        yield start, _ready(source, part, rows, metric)


def take(sources: Sequence[Source], rows: Ints, metric: str) -> Vectors:
    """Prepared vectors of some rows of the index to be; `rows` ascend."""
    first = starts(sources)
    taken = np.empty((len(rows), sources[0].dim), np.float32)
    for start, source in zip(first, sources, strict=False):
        low, high = np.searchsorted(rows, (start, start + source.count))
        if low < high:
            places = rows[low:high] - start
            mine = places if source.keep is None else source.keep[places]
            taken[low:high] = _ready(source, _open(source)[mine], mine, metric)
    return taken
