"""The loader: the right images in the right order, whoever reads them and however many do."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from sunpipe.errors import DataError
from sunpipe.shards.loader import Batch, Loader, to_physical
from sunpipe.shards.order import rank_part, sample_indices
from sunpipe.shards.reader import ShardReader
from sunpipe.shards.shardfile import open_shard
from sunpipe.shards.stored import restore
from tests.unit.shards_fake import write_dataset


@pytest.fixture
def reader(tmp_path: Path) -> ShardReader:
    write_dataset(tmp_path / "d")
    return ShardReader(tmp_path / "d", splits=("train",))


def take(loader: Loader, count: int) -> list[Batch]:
    with loader:
        return [next(loader) for _ in range(count)]


def whole(parts: list[list[Batch]]) -> np.ndarray:
    """The images that ranks saw, put together in the order of the batch."""
    world = len(parts)
    batches = []
    for together in zip(*parts, strict=True):
        merged = np.empty((world * len(together[0].rows), *together[0].images.shape[1:]), np.int16)
        for rank, part in enumerate(together):
            merged[rank::world] = part.images.numpy()
        batches.append(merged)
    return np.concatenate(batches)


def test_batches_are_the_samples_of_the_order(reader: ShardReader) -> None:
    for place, batch in enumerate(take(Loader(reader, 3, 0, 8, masks=True), 9)):
        rows = reader.rows[sample_indices(len(reader), 3, 8 * place, 8)]
        assert batch.nimg == 8 * place
        assert np.array_equal(batch.rows, rows)
        assert np.array_equal(batch.images.numpy(), reader.stored(rows))
        assert batch.masks.dtype == torch.bool
        assert np.array_equal(batch.masks.numpy(), reader.masks(rows))


@pytest.mark.parametrize("world", [1, 2, 4])
@pytest.mark.parametrize("threads", [1, 3])
def test_any_number_of_ranks_and_threads_shows_the_same(
    reader: ShardReader, world: int, threads: int
) -> None:
    expected = reader.stored(reader.rows[sample_indices(len(reader), 1, 0, 80)])
    parts = [
        take(Loader(reader, 1, 0, 8, rank=rank, world=world, threads=threads, ahead=3), 10)
        for rank in range(world)
    ]
    assert np.array_equal(whole(parts), expected)


def test_a_resume_at_another_number_of_ranks_continues_the_order(reader: ShardReader) -> None:
    expected = whole([take(Loader(reader, 9, 0, 8), 12)])
    first = whole([take(Loader(reader, 9, 0, 8, rank=r, world=2, threads=2), 5) for r in range(2)])
    rest = whole([take(Loader(reader, 9, 40, 8, rank=r, world=4), 7) for r in range(4)])
    assert np.array_equal(np.concatenate([first, rest]), expected)


def test_a_rank_reads_its_own_samples_only(
    reader: ShardReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    read = reader.read_into
    monkeypatch.setattr(reader, "read_into", lambda *a: (asked.append(a[1]), read(*a))[1])
    with Loader(reader, 0, 0, 8, rank=1, world=4, threads=1, ahead=1) as loader:
        next(loader)
    mine = set(reader.rows[sample_indices(len(reader), 0, 0, 16)][1::4].tolist())
    assert set(asked) <= mine
    assert len(asked) in (2, 3, 4)


def test_parts_cover_the_batch() -> None:
    parts = [rank_part(10, 5, 4, 12, rank, 3) for rank in range(3)]
    assert np.array_equal(np.stack(parts, 1).ravel(), sample_indices(10, 5, 4, 12))
    for batch, rank, world in ((8, 0, 3), (8, 2, 2), (8, -1, 2)):
        with pytest.raises(ValueError, match="no equal part"):
            rank_part(10, 0, 0, batch, rank, world)


def test_a_batch_that_is_kept_does_not_change(reader: ShardReader) -> None:
    with Loader(reader, 0, 0, 4, threads=2) as loader:
        kept = [next(loader) for _ in range(12)]
        copies = [batch.images.clone() for batch in kept]
        slices = [next(loader).images[1:3] for _ in range(6)]
        parts = [each.clone() for each in slices]
        addresses = set()
        for _ in range(30):  # and those that are not kept are used again
            addresses.add(next(loader).images.data_ptr())
    assert len(addresses) < 12
    for batch, copy in zip(kept, copies, strict=True):
        assert torch.equal(batch.images, copy)
    for one, other in zip(slices, parts, strict=True):
        assert torch.equal(one, other)


def test_damage_ends_the_loop_with_its_name(tmp_path: Path) -> None:
    write_dataset(tmp_path / "d")
    path = tmp_path / "d/shard-00001.h5"
    raw = bytearray(path.read_bytes())
    raw[int(open_shard(path).members["images"].offsets[0]) + 30] ^= 1
    path.write_bytes(raw)
    with pytest.raises(DataError, match=r"shard-00001\.h5 is damaged at image 0"):
        take(Loader(ShardReader(tmp_path / "d"), 0, 0, 8), 6)


def test_waiting_is_measured_and_threads_end(
    reader: ShardReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = reader.read_into

    def slow(*args: object) -> None:
        time.sleep(0.02)
        read(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(reader, "read_into", slow)
    before = threading.active_count()
    with Loader(reader, 0, 0, 4, threads=1) as loader:
        next(loader)
        assert loader.wait_s >= 0.08
        time.sleep(0.4)  # the next ones are read meanwhile
        waited = loader.wait_s
        next(loader)
        assert loader.wait_s - waited < 0.07
    assert threading.active_count() == before


@pytest.mark.parametrize("scale", [0.2, [0.2, 3.0, 1.0]])
@pytest.mark.parametrize("dtype", ["int16", "float16", "float32"])
def test_physical_units_on_the_device_are_those_of_the_reader(
    dtype: str, scale: float | list[float]
) -> None:
    stored = (3000 * np.random.default_rng(0).standard_normal((2, 3, 9, 9))).astype(dtype)
    found = to_physical(torch.from_numpy(stored), scale)
    assert found.dtype == torch.float32
    if isinstance(scale, float):
        assert np.array_equal(found.numpy(), restore(stored, scale))
    for channel, factor in enumerate([scale] * 3 if isinstance(scale, float) else scale):
        expected = stored[:, channel].astype(np.float32) * np.float32(factor)
        assert np.array_equal(found[:, channel].numpy(), expected)


@pytest.mark.gpu
def test_pinned_batches_survive_asynchronous_copies(reader: ShardReader) -> None:
    with Loader(reader, 0, 0, 8, pin=True) as loader:
        there, rows = [], []
        for _ in range(40):
            batch = next(loader)
            assert batch.images.is_pinned()
            there.append(batch.images.to("cuda", non_blocking=True))
            rows.append(batch.rows)
    for found, wanted in zip(there, rows, strict=True):
        assert np.array_equal(found.cpu().numpy(), reader.stored(wanted))
