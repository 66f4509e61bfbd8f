"""Reading shards: both storages, many threads and processes, damage found by name."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray

from sunpipe.errors import DataError
from sunpipe.shards.guard import check_shard
from sunpipe.shards.reader import MAX_OPEN, ShardReader
from sunpipe.shards.shardfile import open_shard
from tests.unit.shards_fake import write_dataset


@pytest.mark.parametrize("storage", ["chunked", "contiguous"])
@pytest.mark.parametrize("dtype", ["int16", "float16", "float32"])
@pytest.mark.parametrize("side", [32, 50])
def test_what_was_written_is_read(storage: str, dtype: str, side: int, tmp_path: Path) -> None:
    images, masks = write_dataset(tmp_path / "d", 20, side, dtype=dtype, storage=storage)
    reader = ShardReader(tmp_path / "d")
    rows = [19, 0, 16, 16, 3]
    assert reader.stored(rows).dtype == np.dtype(dtype)
    assert np.array_equal(reader.stored(rows), images[rows])
    assert np.array_equal(reader.images(rows), images[rows].astype(np.float32) * np.float32(0.5))
    assert np.array_equal(reader.masks(rows), masks[rows] == 1)
    assert reader.stored([]).shape == (0, 3, side, side)
    with h5py.File(tmp_path / "d/shard-00000.h5") as file:  # and by anyone's HDF5
        assert np.array_equal(file["images"][:], images[:16])
        assert np.array_equal(file["mask"][:], masks[:16])


def test_rows_of_a_split(tmp_path: Path) -> None:
    write_dataset(tmp_path / "d")
    whole, train = ShardReader(tmp_path / "d"), ShardReader(tmp_path / "d", splits=("train",))
    assert whole.rows.tolist() == list(range(40))
    assert train.rows.tolist() == [row for row in range(40) if row % 5 != 4]
    assert train.shards() == [0, 1, 2]
    with pytest.raises(IndexError, match=r"0 \.\. 39"):
        whole.images([40])


@pytest.mark.parametrize("storage", ["chunked", "contiguous"])
def test_threads_read_what_one_thread_reads(storage: str, tmp_path: Path) -> None:
    images, _ = write_dataset(tmp_path / "d", storage=storage)
    reader = ShardReader(tmp_path / "d")
    orders = [np.random.default_rng(seed).permutation(40) for seed in range(8)]
    with ThreadPoolExecutor(8) as pool:
        for order, found in zip(orders, pool.map(reader.stored, orders), strict=True):
            assert np.array_equal(found, images[order])


def _child(reader: ShardReader, rows: list[int], queue: multiprocessing.Queue[bytes]) -> None:
    queue.put(reader.stored(rows).tobytes() + reader.masks(rows).tobytes())


@pytest.mark.parametrize("start", ["fork", "spawn"])
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_processes_read_what_one_process_reads(start: str, tmp_path: Path) -> None:
    images, masks = write_dataset(tmp_path / "d")
    reader = ShardReader(tmp_path / "d")
    reader.images([0, 20])  # open before the fork
    context = multiprocessing.get_context(start)
    queue = context.Queue()
    rows = [5, 39, 17, 0]
    with reader._lock:  # as if another thread were opening a shard at that moment
        several = range(3 if start == "fork" else 1)  # a spawned one imports everything again
        workers = [context.Process(target=_child, args=(reader, rows, queue)) for _ in several]
        for worker in workers:
            worker.start()
    expected = images[rows].tobytes() + (masks[rows] == 1).tobytes()
    for _ in workers:
        assert queue.get(timeout=60) == expected
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    assert np.array_equal(reader.stored([1]), images[[1]])


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_forks_while_other_threads_open_shards(tmp_path: Path) -> None:
    images, masks = write_dataset(tmp_path / "d", per_shard=2, side=8)
    expected = images[:6].tobytes() + (masks[:6] == 1).tobytes()
    stop = threading.Event()

    def keep_opening() -> None:
        while not stop.is_set():
            ShardReader(tmp_path / "d").stored(range(40))

    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    reader = ShardReader(tmp_path / "d")
    with ThreadPoolExecutor(2) as pool:
        busy = [pool.submit(keep_opening) for _ in range(2)]
        workers = [context.Process(target=_child, args=(reader, list(range(6)), queue))
                   for _ in range(12)]  # fmt: skip
        try:
            for worker in workers:
                worker.start()
            assert [queue.get(timeout=60) for _ in workers] == [expected] * 12
        finally:
            stop.set()
            for worker in workers:
                worker.join(20)
                worker.kill()
        assert [thread.result() for thread in busy] == [None, None]
    assert [worker.exitcode for worker in workers] == [0] * 12


def test_a_pickled_reader_opens_its_own_files(tmp_path: Path) -> None:
    images, _ = write_dataset(tmp_path / "d")
    reader = ShardReader(tmp_path / "d")
    reader.images([0])
    assert np.array_equal(pickle.loads(pickle.dumps(reader)).stored([9]), images[[9]])


def test_open_files_are_bounded_and_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert MAX_OPEN <= 512
    monkeypatch.setattr("sunpipe.shards.reader.MAX_OPEN", 2)
    images, _ = write_dataset(tmp_path / "d", per_shard=4)
    before = len(os.listdir("/proc/self/fd"))
    reader = ShardReader(tmp_path / "d")
    assert np.array_equal(reader.stored(range(40)), images)
    assert len(os.listdir("/proc/self/fd")) == before + 2
    reader.close()
    assert len(os.listdir("/proc/self/fd")) == before


def flip(path: Path, place: int, bit: int = 2) -> None:
    raw = bytearray(path.read_bytes())
    raw[place] ^= 1 << bit
    path.write_bytes(raw)


@pytest.mark.parametrize("member", ["images", "mask"])
@pytest.mark.parametrize("storage", ["chunked", "contiguous"])
def test_damage_is_named(storage: str, member: str, tmp_path: Path) -> None:
    images, _ = write_dataset(tmp_path / "d", storage=storage)
    path = tmp_path / "d/shard-00001.h5"
    place = open_shard(path).members[member]
    flip(path, int(place.offsets[3]) + int(place.sizes[3]) // 2)
    reader = ShardReader(tmp_path / "d")
    read = reader.images if member == "images" else reader.masks
    what = "image 3" if member == "images" else "the mask of image 3"
    with pytest.raises(DataError, match=rf"shard-00001\.h5 is damaged at {what} .*checksum"):
        read([19])
    read([18, 20, 0])
    assert np.array_equal(reader.stored([18]), images[[18]])


def test_200_flips_of_uncompressed_images_are_all_seen(tmp_path: Path) -> None:
    images, _ = write_dataset(tmp_path / "d", 4, storage="contiguous")
    path = tmp_path / "d/shard-00000.h5"
    good = path.read_bytes()
    place = open_shard(path).members["images"]
    rng = np.random.default_rng(1)
    unseen = 0
    for _ in range(200):
        image = int(rng.integers(4))
        at = int(place.offsets[image]) + int(rng.integers(place.sizes[image]))
        flip(path, at, int(rng.integers(8)))
        with pytest.raises(DataError, match=f"damaged at image {image} "):
            ShardReader(tmp_path / "d").images([image])
        careless = ShardReader(tmp_path / "d", check=False)
        unseen += not np.array_equal(careless.stored([image])[0], images[image])
        path.write_bytes(good)
    assert unseen == 200  # the switch is what it says


@pytest.mark.parametrize("storage", ["chunked", "contiguous"])
def test_flips_anywhere_never_change_an_image(storage: str, tmp_path: Path) -> None:
    images, masks = write_dataset(tmp_path / "d", 4, 8, storage=storage)
    path = tmp_path / "d/shard-00000.h5"
    good = path.read_bytes()
    for place in range(0, len(good), 31):
        flip(path, place, place % 8)
        with suppress(DataError):
            reader = ShardReader(tmp_path / "d")
            assert np.array_equal(reader.stored(range(4)), images)
            assert np.array_equal(reader.masks(range(4)), masks == 1)
        path.write_bytes(good)


@pytest.mark.parametrize("storage", ["chunked", "contiguous"])
def test_a_truncated_shard_is_named(storage: str, tmp_path: Path) -> None:
    write_dataset(tmp_path / "d", storage=storage)
    path = tmp_path / "d/shard-00002.h5"
    reader = ShardReader(tmp_path / "d")
    reader.images([32])  # open; then the file shrinks under the reader
    os.truncate(path, 3000)
    with pytest.raises(DataError, match=r"shard-00002\.h5"):
        reader.images([33, 39])
    with pytest.raises(DataError, match=r"cannot open .*shard-00002\.h5"):
        ShardReader(tmp_path / "d").images([33])
    path.unlink()
    with pytest.raises(DataError, match=r"cannot open .*shard-00002\.h5: No such file"):
        ShardReader(tmp_path / "d").images([33])


def rebuild(path: Path, images: NDArray[np.generic], **options: object) -> None:
    """Replace /images of a contiguous shard."""
    with h5py.File(path, "r+") as file:
        del file["images"]
        file.create_dataset("images", data=images, **options)


def test_contiguous_shards_that_are_not_ours_are_refused(tmp_path: Path) -> None:
    images, _ = write_dataset(tmp_path / "d", 4, storage="contiguous")
    path = tmp_path / "d/shard-00000.h5"
    good = path.read_bytes()
    (tmp_path / "raw").write_bytes(images.tobytes())

    def refused(what: str) -> None:
        with pytest.raises(DataError, match=rf"shard-00000\.h5.*{what}"):
            ShardReader(tmp_path / "d").images([0])
        path.write_bytes(good)

    rebuild(path, images, chunks=(1, 3, 32, 32))
    refused("contiguous")
    rebuild(path, images.astype("float64"))
    refused("float64")
    with h5py.File(path, "r+") as file:
        del file["images"]
        outside = [(str(tmp_path / "raw"), 0, h5py.h5f.UNLIMITED)]
        file.create_dataset("images", images.shape, "i2", external=outside)
    refused("in another file")
    with h5py.File(path, "r+") as file:
        del file["image_sums"]
    refused("checked chunk")
    with h5py.File(path, "r+") as file:
        del file["image_sums"]
        file.create_dataset("image_sums", data=np.zeros((4, 2), np.uint64))
    refused("image_sums")


def test_a_shard_of_another_shape_is_refused(tmp_path: Path) -> None:
    write_dataset(tmp_path / "a", 4, 32)
    write_dataset(tmp_path / "b", 4, 16)
    (tmp_path / "b/shard-00000.h5").replace(tmp_path / "a/shard-00000.h5")
    with pytest.raises(DataError, match=r"\(3, 16, 16\).*\(3, 32, 32\)"):
        ShardReader(tmp_path / "a").images([0])


def test_unknown_filters_are_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        for name, shape in (("images", (2, 1, 8, 8)), ("mask", (2, 8, 8))):
            kind = "i2" if name == "images" else "u1"
            file.create_dataset(name, shape, kind, chunks=(1, *shape[1:]), compression="gzip",
                                fletcher32=True)  # fmt: skip
        with pytest.raises(DataError, match="not compressed by bitshuffle with LZ4"):
            check_shard(file, "x.h5")
