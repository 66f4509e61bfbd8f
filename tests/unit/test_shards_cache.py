"""Copies on the node's disk: made once, checked, bounded, and never in the way."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from sunpipe.errors import DataError, UsageError
from sunpipe.files import sha256
from sunpipe.shards.cache import NodeCache, node_cache
from sunpipe.shards.loader import Loader
from sunpipe.shards.reader import ShardReader
from tests.conftest import REPO
from tests.unit.shards_fake import write_dataset


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    write_dataset(tmp_path / "d")
    return tmp_path / "d"


@pytest.fixture
def said() -> list[str]:
    return []


def cache_in(folder: Path, said: list[str], limit: int | None = None) -> NodeCache:
    return NodeCache(folder, limit, said.append)


def everything(reader: ShardReader) -> list[tuple[Path, str]]:
    return [(reader.path(number), reader.digest(number)) for number in reader.shards()]


def copies(cache: NodeCache) -> set[str]:
    return {path.stem for path in cache.folder.glob("*.h5") if not path.name.startswith(".")}


def test_images_come_from_the_copies(dataset: Path, tmp_path: Path, said: list[str]) -> None:
    plain = ShardReader(dataset)
    cache = cache_in(tmp_path / "c", said)
    reader = ShardReader(dataset, cache=cache)
    expected = plain.stored(range(40))
    assert np.array_equal(reader.stored(range(40)), expected)  # none is copied yet
    assert cache.fill(everything(reader)) == 3
    for path, digest in everything(reader):
        assert sha256(cache.folder / f"{digest}.h5") == digest
        path.unlink()
    assert np.array_equal(reader.stored(range(40)), expected)
    assert said == []
    assert (tmp_path / "c").stat().st_mode & 0o777 == 0o700


def test_the_loader_fills_the_cache(dataset: Path, tmp_path: Path, said: list[str]) -> None:
    reader = ShardReader(dataset, cache=cache_in(tmp_path / "c", said))
    plain = ShardReader(dataset)
    with Loader(reader, 0, 0, 8) as loader:
        for _ in range(20):
            batch = next(loader)
            assert np.array_equal(batch.images.numpy(), plain.stored(batch.rows))
        assert loader._filler is not None
        loader._filler.shutdown(wait=True)
    assert copies(reader.cache) == {digest for _, digest in everything(reader)}  # type: ignore[arg-type]


def test_a_shard_that_is_not_what_was_published_ends_the_run(
    dataset: Path, tmp_path: Path, said: list[str]
) -> None:
    path = dataset / "shard-00001.h5"
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)
    cache = cache_in(tmp_path / "c", said)
    reader = ShardReader(dataset, cache=cache)
    with pytest.raises(DataError, match=r"shard-00001\.h5 is not what was published"):
        cache.fill(everything(reader))
    assert len(copies(cache)) == 1
    assert not list(cache.folder.glob(".tmp-*"))


RACER = """
import sys, time
from pathlib import Path
from sunpipe.shards.cache import NodeCache
from sunpipe.shards.reader import ShardReader
dataset, folder, start = Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3])
cache = NodeCache(folder)
reader = ShardReader(dataset, cache=cache)
made = []
copy = cache._copy
cache._copy = lambda source, *rest: (made.append(source.name), copy(source, *rest))
time.sleep(max(0, start - time.time()))
shards = [(reader.path(n), reader.digest(n)) for n in reader.shards()]
cache.fill(shards)
while sum(cache.has(digest) for _, digest in shards) < len(shards):
    time.sleep(0.01)
for path, _ in shards:
    path.with_suffix(".gone")
print(*made)
print(int(reader.stored(range(40)).astype(int).sum()))
"""


def test_ranks_of_a_node_share_the_work(dataset: Path, tmp_path: Path) -> None:
    import time

    command = [sys.executable, "-c", RACER, str(dataset), str(tmp_path / "c"),
               str(time.time() + 3)]  # fmt: skip
    racers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=REPO)
              for _ in range(2)]  # fmt: skip
    lines = [racer.communicate(timeout=60)[0].splitlines() for racer in racers]
    assert [racer.returncode for racer in racers] == [0, 0]
    made = [name for each in lines for name in each[0].split()]
    assert sorted(made) == ["shard-00000.h5", "shard-00001.h5", "shard-00002.h5"]
    assert lines[0][1] == lines[1][1]
    assert not list((tmp_path / "c").glob(".tmp-*"))


def test_the_limit_holds_and_is_said_once(dataset: Path, tmp_path: Path, said: list[str]) -> None:
    size = (dataset / "shard-00000.h5").stat().st_size
    cache = cache_in(tmp_path / "c", said, limit=int(size * 1.5))
    reader = ShardReader(dataset, cache=cache)
    assert cache.fill(everything(reader)) == 1  # and the second does not drive out the first
    assert copies(cache) == {reader.digest(0)}
    assert len(said) == 1
    assert "limit of" in said[0]
    assert "shard-00001.h5" in said[0]
    assert str(dataset) in said[0]
    assert np.array_equal(reader.stored([39]), ShardReader(dataset).stored([39]))


def test_the_longest_unused_copy_goes_first(dataset: Path, tmp_path: Path, said: list[str]) -> None:
    size = (dataset / "shard-00000.h5").stat().st_size
    earlier = cache_in(tmp_path / "c", said)
    cache = cache_in(tmp_path / "c", said, limit=int(size * 2.2))
    reader = ShardReader(dataset)
    for number, when in ((0, 1000), (1, 2000)):
        assert earlier.add(reader.path(number), reader.digest(number))
        os.utime(cache.folder / f"{reader.digest(number)}.h5", (when, when))
    open_one = cache.open(reader.digest(0))  # used now: shard 1 is older
    assert open_one is not None
    assert cache.add(reader.path(2), reader.digest(2))
    assert copies(cache) == {reader.digest(0), reader.digest(2)}
    assert said == []


def test_what_a_killed_copy_left_is_removed(dataset: Path, tmp_path: Path, said: list[str]) -> None:
    size = (dataset / "shard-00000.h5").stat().st_size
    cache = cache_in(tmp_path / "c", said, limit=int(size * 1.5))
    left = cache.folder / ".tmp-0123456789ab-dead.h5"
    left.write_bytes(bytes(size))
    reader = ShardReader(dataset)
    assert cache.add(reader.path(0), reader.digest(0))
    assert not left.exists()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=180k,mode=700", "tmpfs", folder],
                          capture_output=True, check=False)  # fmt: skip
    if made.returncode:
        pytest.skip("a small disk needs the right to mount one")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk_is_said_and_passed_by(
    dataset: Path, small_disk: Path, said: list[str]
) -> None:
    cache = cache_in(small_disk, said, limit=10**9)
    reader = ShardReader(dataset, cache=cache)
    assert cache.fill(everything(reader)) == 2
    assert len(said) == 1
    assert "No space left on device" in said[0]
    assert not list(small_disk.glob(".tmp-*"))
    assert np.array_equal(reader.stored(range(40)), ShardReader(dataset).stored(range(40)))


FULL = """
import resource, sys
from pathlib import Path
from sunpipe.shards.cache import NodeCache
from sunpipe.shards.reader import ShardReader
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
cache = NodeCache(Path(sys.argv[2]))
reader = ShardReader(Path(sys.argv[1]), cache=cache)
print(cache.fill([(reader.path(n), reader.digest(n)) for n in reader.shards()]))
print(reader.stored(range(40)).shape)
"""


def test_a_file_limit_is_said_and_passed_by(dataset: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", FULL, str(dataset), str(tmp_path / "c")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPO, check=True)
    assert done.stdout.split("\n")[:2] == ["0", "(40, 3, 32, 32)"]
    assert done.stderr.count("\n") == 1
    assert "File too large" in done.stderr
    assert not list((tmp_path / "c").glob("*.h5"))
    assert not list((tmp_path / "c").glob(".tmp-*"))


def test_a_damaged_copy_is_dropped_and_the_shard_read(
    dataset: Path, tmp_path: Path, said: list[str]
) -> None:
    cache = cache_in(tmp_path / "c", said)
    reader = ShardReader(dataset, cache=cache)
    cache.fill(everything(reader))
    copy = cache.folder / f"{reader.digest(1)}.h5"
    opened = cache.open(reader.digest(1))
    assert opened is not None
    raw = bytearray(copy.read_bytes())
    raw[int(opened.members["images"].offsets[2]) + 20] ^= 8
    copy.write_bytes(raw)
    expected = ShardReader(dataset).stored([18])
    assert np.array_equal(reader.stored([18]), expected)
    assert len(said) == 1
    assert "damaged at image 2" in said[0]
    assert not copy.exists()
    copy.write_bytes(b"no shard")  # and one that cannot even be opened
    assert np.array_equal(ShardReader(dataset, cache=cache).stored([18]), expected)
    assert len(said) == 2


def test_a_copy_under_way_can_be_stopped(dataset: Path, tmp_path: Path, said: list[str]) -> None:
    cache = cache_in(tmp_path / "c", said)
    reader = ShardReader(dataset)
    assert not cache.add(reader.path(0), reader.digest(0), stopped=lambda: True)
    assert cache.fill(everything(reader), stopped=lambda: True) == 0
    assert said == []
    assert not [path for path in cache.folder.iterdir() if path.suffix == ".h5"]


def test_a_folder_that_others_write_to_is_refused(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    with pytest.raises(UsageError, match="only you can write"):
        NodeCache(shared)
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(UsageError, match="only you can write"):
        NodeCache(tmp_path / "link")
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="node cache"):
        NodeCache(tmp_path / "file")


def test_the_environment_names_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SUNPIPE_CACHE", raising=False)
    assert node_cache() is None
    monkeypatch.setenv("SUNPIPE_CACHE", str(tmp_path / "c"))
    monkeypatch.setenv("SUNPIPE_CACHE_GB", "1.5")
    found = node_cache()
    assert found is not None
    assert found.limit == 1_500_000_000
    for wrong in ("much", "-1", "nan"):
        monkeypatch.setenv("SUNPIPE_CACHE_GB", wrong)
        with pytest.raises(UsageError, match="gigabytes"):
            node_cache()
