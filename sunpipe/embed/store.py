"""``embeddings/<name>/`` (contract C8): the one place that writes and reads it. No torch.

::

    embedding-00000.npy    float32 (rows, dim), one file per shard, as the encoder gave them
    embedding-00000.json   what made it; present when the file is complete
    metadata.parquet       one row per vector: embedding (file), vector (row in it), all of records
    embedding.json         see `EmbeddingInfo`; written last
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from sunpipe.errors import DataError
from sunpipe.files import atomic_path, read_json, sha256, write_json
from sunpipe.provenance import provenance

SCHEMA = 1
Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class EmbeddingInfo:
    """``embedding.json``.

    Attributes
    ----------
    encoder : dict
        Card of the encoder (`sunpipe.embed.encoder.EncoderCard`).
    dataset : dict
        name, id, and how its patches were cut: channels, units, resolution,
        tile, stride, reduce, settings.
    splits : list of str
    dim, count : int
        Length and number of vectors.
    normalisation : str
        ``none``: vectors are as the encoder gave them.
    files : dict
        File name to ``{"rows": n, "sha256": digest}``, in the order of the metadata.
    metadata : str
        SHA-256 of ``metadata.parquet``.
    """

    encoder: dict[str, Any]
    dataset: dict[str, Any]
    splits: list[str]
    dim: int
    count: int
    normalisation: str
    files: dict[str, dict[str, Any]]
    metadata: str
    provenance: dict[str, Any] = field(default_factory=provenance)
    schema: int = SCHEMA


def part_name(shard: int) -> str:
    """File name of the vectors of one shard."""
    return f"embedding-{shard:05d}.npy"


def write_part(folder: Path, shard: int, vectors: Vectors, made_from: dict[str, Any]) -> None:
    """Write the vectors of one shard, then the note that says what made them."""
    target = folder / part_name(shard)
    note = target.with_suffix(".json")
    note.unlink(missing_ok=True)
    with atomic_path(target) as temporary, open(temporary, "wb") as handle:
        np.save(handle, vectors.astype(np.float32), allow_pickle=False)
    write_json(
        note, {"schema": SCHEMA, **made_from, "rows": len(vectors), "sha256": sha256(target)}
    )


def part_note(folder: Path, shard: int, made_from: dict[str, Any]) -> dict[str, Any] | None:
    """Rows and digest of a shard's vectors, or None when they are missing or of something else."""
    target = folder / part_name(shard)
    note = target.with_suffix(".json")
    if not (target.is_file() and note.is_file()):
        return None
    try:
        found = read_json(note)
    except DataError:
        return None  # cut short by a full disk: made again
    if any(found.get(key) != value for key, value in {"schema": SCHEMA, **made_from}.items()):
        return None
    if sha256(target) != found.get("sha256"):
        return None
    return {"rows": found["rows"], "sha256": found["sha256"]}


def publish(folder: Path, table: pa.Table, **about: Any) -> EmbeddingInfo:
    """Write metadata and ``embedding.json``: only now is the embedding complete."""
    with atomic_path(folder / "metadata.parquet") as temporary:
        pq.write_table(table, temporary, compression="zstd")
    info = EmbeddingInfo(
        count=len(table), normalisation="none", metadata=sha256(folder / "metadata.parquet"),
        **about,
    )  # fmt: skip
    write_json(folder / "embedding.json", asdict(info))
    return info


def withdraw(folder: Path) -> None:
    """Unpublish: the vectors are about to change."""
    (folder / "embedding.json").unlink(missing_ok=True)


def read_embedding(folder: Path) -> EmbeddingInfo:
    """Read ``embedding.json``; a `DataError` tells what to run when it is not there."""
    folder = Path(folder)
    if not (folder / "embedding.json").is_file():
        raise DataError(f"no complete embedding in {folder}; run sunpipe embed first")
    data = read_json(folder / "embedding.json")
    if not isinstance(data, dict) or data.get("schema") != SCHEMA:
        raise DataError(f"{folder} has another schema than {SCHEMA}; run sunpipe embed again")
    try:
        return EmbeddingInfo(**data)
    except TypeError as error:
        raise DataError(f"{folder / 'embedding.json'} is not an embedding's: {error}") from None


def read_metadata(folder: Path, info: EmbeddingInfo) -> pa.Table:
    """One row per vector; refused when altered or of another count."""
    path = Path(folder) / "metadata.parquet"
    if not path.is_file() or sha256(path) != info.metadata:
        raise DataError(f"{path} is missing or was altered; run sunpipe embed again")
    table = pq.read_table(path)
    if len(table) != info.count:
        raise DataError(f"{path} has {len(table)} rows for {info.count} vectors; embed again")
    return table


def read_vectors(folder: Path, info: EmbeddingInfo) -> Iterator[Vectors]:
    """Vectors file by file, in the order of the metadata; altered files are refused."""
    for name, known in info.files.items():
        path = Path(folder) / name
        if not path.is_file() or sha256(path) != known["sha256"]:
            raise DataError(f"{path} is missing or was altered; run sunpipe embed again")
        vectors = np.load(path, allow_pickle=False)
        if vectors.shape != (known["rows"], info.dim) or not np.isfinite(vectors).all():
            raise DataError(f"{path} does not hold {known['rows']} finite vectors of {info.dim}")
        yield vectors
