"""``sunpipe embed``: vectors of every patch of the wanted splits, one file per shard."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sunpipe.embed.store import (
    part_name,
    part_note,
    publish,
    read_embedding,
    read_metadata,
    withdraw,
    write_part,
)
from sunpipe.errors import DataError, Stopped
from sunpipe.parts import parse_part, share
from sunpipe.paths import Layout
from sunpipe.settings import Config
from sunpipe.shards.reader import ShardReader
from sunpipe.shards.schema import DatasetInfo, dataset_id, read_info
from sunpipe.stage import Result, log
from sunpipe.stop import StopFlag, requeue_if_progress

if TYPE_CHECKING:
    import torch

    from sunpipe.embed.encoder import FieldEncoder

DATASET_KEYS = (
    "name", "channels", "units", "resolution", "tile", "stride", "reduce", "scale", "settings",
)  # fmt: skip


def dataset_card(reader: ShardReader) -> dict[str, Any]:
    """Identity of a dataset, how its patches were cut, and the size of a stored pixel."""
    info = reader.info
    return {
        "id": dataset_id(info),
        "pixel_cm": float(np.median(reader.pixel_cm)),
        **{key: getattr(info, key) for key in DATASET_KEYS},
    }


def _made_from(encoder: FieldEncoder, info: DatasetInfo, splits: list[str]) -> dict[str, Any]:
    return {"encoder": encoder.card.digest, "dataset": dataset_id(info), "splits": splits}


def _rows_of_shards(reader: ShardReader) -> list[NDArray[np.int64]]:
    """Rows that are served, by shard, each in the order of the dataset."""
    shard = reader.records["shard"].to_numpy()[reader.rows]
    ordered = reader.rows[np.argsort(shard, kind="stable")]
    return np.split(ordered, np.searchsorted(np.sort(shard), np.arange(1, len(reader.info.shards))))


def _batches(
    reader: ShardReader, shards: list[int], size: int,
    prepare: Callable[[NDArray[Any]], torch.Tensor], threads: int = 1,
) -> Iterator[tuple[int, int, torch.Tensor]]:  # fmt: skip
    """Shard, first place in it and images, read, decoded and made ready while others pass."""
    rows = _rows_of_shards(reader)
    wanted = [
        (shard, start, rows[shard][start : start + size])
        for shard in shards
        for start in range(0, len(rows[shard]), size)
    ]

    def load(one: NDArray[np.int64]) -> torch.Tensor:
        return prepare(reader.stored(one))

    with ThreadPoolExecutor(threads, "sunpipe-read") as pool:
        pending: deque[Future[torch.Tensor]] = deque()
        asked = iter(wanted)
        try:
            for shard, start, _ in wanted:
                while len(pending) <= threads and (one := next(asked, None)) is not None:
                    pending.append(pool.submit(load, one[2]))
                yield shard, start, pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


def embed_shards(
    reader: ShardReader, encoder: FieldEncoder, shards: list[int], batch: int
) -> Iterator[tuple[int, NDArray[np.float32] | None]]:
    """Vectors of shards, in order.

    Yields
    ------
    shard : int
    vectors : ndarray of float32 (rows, dim), or None
        None after a batch that does not end the shard: the moment to stop.
    """
    from sunpipe.shards.loader import default_threads

    rows = _rows_of_shards(reader)
    counts = {shard: len(rows[shard]) for shard in shards}
    yield from ((shard, np.zeros((0, encoder.card.dim), np.float32))
                for shard in shards if not counts[shard])  # fmt: skip
    parts: list[NDArray[np.float32]] = []
    # on a CPU one thread reads many times faster than networks pass, and more would be in their way
    threads = 1 if encoder.device.type == "cpu" else default_threads()
    scale = reader.info.scale

    def prepare(stored: NDArray[Any]) -> torch.Tensor:
        return encoder.prepared(stored, scale)

    for shard, start, ready in _batches(reader, shards, batch, prepare, threads):
        parts.append(encoder.prepared_vectors(ready, scale))
        if start + len(ready) < counts[shard]:
            yield shard, None
        else:
            yield shard, np.concatenate(parts)
            parts = []


def _metadata(reader: ShardReader) -> pa.Table:
    """Records in the order of the vectors, with the file and place of each vector."""
    rows = _rows_of_shards(reader)
    table = reader.records.take(pa.array(np.concatenate(rows)))
    files = [part_name(shard) for shard, part in enumerate(rows) for _ in part]
    places = np.concatenate([np.arange(len(part)) for part in rows])
    table = table.add_column(0, "embedding", pa.array(files, pa.string()))
    return table.add_column(1, "vector", pa.array(places, pa.int64()))


def _published(folder: Path, made_from: dict[str, Any], notes: list[Any]) -> bool:
    """Whether ``embedding.json`` already describes exactly these parts."""
    if not (folder / "embedding.json").is_file():
        return False
    try:
        info = read_embedding(folder)
        read_metadata(folder, info)
    except DataError as error:
        log(f"made again: {error}")
        return False
    same = (info.encoder["digest"], info.dataset["id"], info.splits) == tuple(made_from.values())
    return same and list(info.files.values()) == notes


def embed(config: Config, part: str | None = None) -> Result:
    """Embed the shards of one part (all without `part`); the last part publishes.

    Whoever finds all shards embedded writes ``metadata.parquet`` and
    ``embedding.json``, so array tasks may end in any order. Shards embedded by
    the same encoder from the same dataset are left as they are.

    Returns
    -------
    dict
        embeddings (folder), vectors, dim, embedded, kept, complete, missing,
        encoder, run.
    """
    from sunpipe.embed.encoder import FieldEncoder, encoder_run

    layout = Layout.current()
    folder = layout.embeddings(config.name)
    splits: list[str] = sorted(set(config.embed.splits))
    reader = ShardReader(layout.shards(config.dataset), splits=splits)
    info, shards = reader.info, len(reader.info.shards)
    if not len(reader):
        raise DataError(f"dataset {config.dataset} has no rows in the splits {', '.join(splits)}")
    mine = share(range(shards), parse_part(part) if part else (1, 1))
    encoder = FieldEncoder.load(encoder_run(layout, config.name), config.embed.orbit)
    card = dataset_card(reader)
    encoder.check(
        info.channels, info.resolution, f"dataset {info.name}", info.units, card["pixel_cm"]
    )
    made_from = _made_from(encoder, info, splits)

    stale = [shard for shard in mine if part_note(folder, shard, made_from) is None]
    if stale:
        withdraw(folder)
    kept = len(mine) - len(stale)
    with StopFlag() as stop:
        for shard, vectors in embed_shards(reader, encoder, stale, config.embed.batch):
            if vectors is not None:
                write_part(folder, shard, vectors, made_from)
                kept += 1
                log(f"embed {part_name(shard)}: {len(vectors)} vectors of {encoder.card.dim}")
            if stop:
                if stop.requeue:
                    requeue_if_progress("embed", kept)
                raise Stopped(
                    f"embed stopped by {stop.reason}; run the same command again to continue"
                )
    reader.close()

    notes = [part_note(folder, shard, made_from) for shard in range(shards)]
    missing = [part_name(shard) for shard, note in enumerate(notes) if note is None]
    result = {
        "embeddings": str(folder), "vectors": len(reader), "dim": encoder.card.dim,
        "embedded": len(stale), "kept": len(mine) - len(stale), "complete": not missing,
        "missing": missing, "encoder": encoder.card.digest, "run": encoder.card.run,
    }  # fmt: skip
    if missing:
        log(f"{len(missing)} of {shards} shards are left to other parts")
    elif _published(folder, made_from, notes):
        log(f"{folder} is up to date")
    else:
        publish(
            folder, _metadata(reader), encoder=encoder.describe(),
            dataset=card, splits=splits, dim=encoder.card.dim,
            files={part_name(shard): note for shard, note in enumerate(notes)},
        )  # fmt: skip
        _sweep(folder, shards)
    return result


def _sweep(folder: Path, shards: int) -> None:
    """Remove vectors of shards that the dataset no longer has."""
    known = {part_name(shard) for shard in range(shards)}
    for path in folder.glob("embedding-*.npy"):
        if path.name not in known:
            path.with_suffix(".json").unlink(missing_ok=True)
            path.unlink()


def plan(config: Config, part: str | None = None) -> Result:
    """What `embed` would do."""
    layout = Layout.current()
    info = read_info(layout.shards(config.dataset))
    mine = share(range(len(info.shards)), parse_part(part) if part else (1, 1))
    return {
        "embeddings": str(layout.embeddings(config.name)),
        "shards": [part_name(shard) for shard in mine],
        "splits": sorted(set(config.embed.splits)),
    }
