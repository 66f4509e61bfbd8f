"""Metrics of the archive, the datasets, the indices and the disk of a data root."""

from __future__ import annotations

import fcntl
import os
import socket
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from hpc.monitor.faults import Faults, check_root
from hpc.monitor.names import DATASETS_SHOWN, FETCH_STATES
from hpc.monitor.rows import number, section
from hpc.monitor.samples import Sample, sample
from hpc.status.alive import lock_held
from sunpipe.errors import DataError
from sunpipe.files import read_json
from sunpipe.lock import NO_LOCKS
from sunpipe.paths import Layout

Mark = tuple[tuple[str, int, int, int], ...]


def mark(paths: list[Path]) -> Mark:
    """What changes when one of the files does; files that went meanwhile are left out."""
    found = []
    for path in paths:
        try:
            stat = path.stat()
        except FileNotFoundError:
            continue
        found.append((path.name, stat.st_ino, stat.st_mtime_ns, stat.st_size))
    return tuple(found)


def count_records(archive: Path) -> Counter[str]:
    """Records of an archive by state, journals of running fetches included.

    A record of which one file is still wanted is wanted: `FETCH_STATES` is the order.
    Only three columns of the manifest are read, so that millions of rows are no burden.

    Raises
    ------
    DataError
        The manifest or a journal is damaged.
    """
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    from preprocess.acquire.journal import read_journals
    from preprocess.manifest import NAME

    columns = ["record", "segment", "state"]
    late = {entry.key: entry for entry in read_journals(archive)}
    table = _strings().empty_table()
    path = archive / NAME
    if path.is_file():
        try:
            table = pq.read_table(path, columns=columns).cast(_strings())
        except (pa.ArrowException, KeyError) as error:
            raise DataError(f"{path} cannot be read ({error})") from None
    if late:
        keys = pc.binary_join_element_wise(table["record"], table["segment"], "\x1f")
        known = pa.array(["\x1f".join(key) for key in late])
        table = table.filter(pc.invert(pc.is_in(keys, value_set=known)))
        newer = {name: [getattr(entry, name) for entry in late.values()] for name in columns}
        table = pa.concat_tables([table, pa.table(newer, _strings())])
    places = pc.index_in(table["state"], value_set=pa.array(FETCH_STATES))
    table = pa.table({"record": table["record"], "place": places})
    worst = table.group_by("record").aggregate([("place", "min")])["place_min"]
    rows = pc.value_counts(worst.drop_null()).to_pylist()
    return Counter({FETCH_STATES[row["values"]]: row["counts"] for row in rows})


def _strings() -> Any:
    import pyarrow as pa

    return pa.schema([(name, pa.string()) for name in ("record", "segment", "state")])


class Journals:
    """Which journals of fetches belong to processes that live.

    Those of this machine are looked up in ``/proc/locks``. The lock of another's can
    only be tried: that leaves a living one alone, and a dead one is never tried again
    (the name of a journal is used once), so that `merge_dead` is not kept from it.
    """

    def __init__(self) -> None:
        self._dead: set[str] = set()

    def living(self, paths: Iterable[Path]) -> int | None:
        """How many of `paths` are written now; None where the file system has no locks."""
        lives = {path.name: path.name not in self._dead and is_held(path) for path in paths}
        self._dead = {name for name, told in lives.items() if told is False}
        return None if None in lives.values() else sum(map(bool, lives.values()))


def is_held(path: Path) -> bool | None:
    """Whether a process has locked a journal; None where the file system has no locks."""
    here = socket.gethostname().partition(".")[0]
    if path.name.startswith(f"{here}-") and (held := lock_held(path)) is not None:
        return held
    try:
        with open(path, "rb") as handle:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:  # merged meanwhile
        return False
    except OSError as error:
        if error.errno in NO_LOCKS:
            return None
        raise
    return False


class Data:
    """The archive, the datasets and the indices; read again when their files changed."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self._faults = Faults("data")
        self._counted: tuple[Mark, Counter[str]] | None = None
        self._journals = Journals()

    def _fetch(self) -> Iterator[Sample]:
        archive = self.layout.archive
        journals = sorted((archive / "journal").glob("*.jsonl"))
        paths = [archive / "manifest.parquet", *journals]
        seen = mark(paths)
        if not seen:
            return
        if self._counted is None or self._counted[0] != seen:
            self._counted = (seen, count_records(archive))
        for state in FETCH_STATES:
            yield sample("sunpipe_fetch_records", self._counted[1][state], state=state)
        if (living := self._journals.living(journals)) is not None:
            yield sample("sunpipe_fetch_running", living)
        newest = max(one[2] for one in seen) / 1e9
        yield sample("sunpipe_fetch_last_change_timestamp_seconds", newest)

    def _dataset(self, folder: Path) -> Iterator[Sample]:
        name = folder.name
        building = folder.with_name(f".building-{name}")
        under_way = sum(1 for _ in building.glob("shard-*.h5")) if building.is_dir() else 0
        yield sample("sunpipe_shards", under_way, dataset=name, state="building")
        if not (folder / "dataset.json").is_file():
            return
        info = read_json(folder / "dataset.json")
        yield sample("sunpipe_shards", len(info["shards"]), dataset=name, state="complete")
        for state in ("train", "test", "quarantined"):
            if (count := number(section(info, "counts").get(state))) is not None:
                yield sample("sunpipe_shard_records", count, dataset=name, state=state)

    def _index(self, folder: Path) -> Iterator[Sample]:
        if (folder / "index.json").is_file():
            count = number(read_json(folder / "index.json").get("count"))
            if count is not None:
                yield sample("sunpipe_index_vectors", count, index=folder.name)

    def read(self) -> list[Sample]:
        """All samples; a folder that cannot be read costs only itself."""
        check_root(self.layout)
        found: list[Sample] = []
        self._faults.begin()
        with self._faults.of("archive"):
            found += self._fetch()
        for folder in datasets(self.layout.root / "shards"):
            with self._faults.of(f"shards/{folder.name}"):
                found += self._dataset(folder)
        for folder in newest_folders(self.layout.root / "index"):
            with self._faults.of(f"index/{folder.name}"):
                found += self._index(folder)
        return [*found, self._faults.sample()]


def newest_folders(parent: Path) -> list[Path]:
    """At most `DATASETS_SHOWN` folders, those that changed last."""

    def changed(entry: os.DirEntry[str]) -> float | None:
        try:
            return entry.stat().st_mtime if entry.is_dir() else None
        except OSError:  # gone meanwhile, or a link in a circle
            return None

    try:
        with os.scandir(parent) as entries:
            found = [(when, Path(entry.path)) for entry in entries
                     if entry.name[0] != "." and (when := changed(entry)) is not None]  # fmt: skip
    except FileNotFoundError:
        return []
    return [path for _, path in sorted(found, reverse=True)[:DATASETS_SHOWN]]


def datasets(parent: Path) -> list[Path]:
    """Folders of datasets, those included that are built for the first time."""
    found = newest_folders(parent)
    first = [path.with_name(path.name.removeprefix(".building-"))
             for path in sorted(parent.glob(".building-*"))]  # fmt: skip
    return list(dict.fromkeys([*first, *found]))[:DATASETS_SHOWN]


def read_disk(layout: Layout) -> list[Sample]:
    """Room on the disk of the data root, for a user without privileges."""
    check_root(layout)
    found = os.statvfs(layout.root)
    samples = [
        sample("sunpipe_disk_free_bytes", found.f_bavail * found.f_frsize),
        sample("sunpipe_disk_size_bytes", found.f_blocks * found.f_frsize),
    ]
    if found.f_files:  # file systems such as Btrfs count no inodes
        samples.append(sample("sunpipe_disk_free_inodes", found.f_favail))
    return samples
