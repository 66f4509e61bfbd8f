"""The shards behind an index: each of its embeddings was made of one dataset."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sunpipe.errors import DataError
from sunpipe.index.store import Index
from sunpipe.paths import Layout
from sunpipe.shards.reader import ShardReader
from sunpipe.shards.schema import dataset_id

Ints = NDArray[np.int64]


def source_of(index: Index, rows: Ints) -> Ints:
    """Number of the source (``index.json``) that each row of the index came with."""
    first = np.array([source["first"] for source in index.info.sources], np.int64)
    return np.searchsorted(first, np.asarray(rows, np.int64), side="right") - 1


def open_source(index: Index, number: int) -> ShardReader:
    """The dataset of a source, in the data root of the index or in the current one.

    Raises
    ------
    DataError
        It is not there, or is another one by now.
    """
    about = index.info.sources[number]
    layouts = [Layout.current()]
    folder = index.folder.absolute()
    if folder.parent.name == "index":
        layouts.insert(0, Layout(folder.parent.parent))
    for layout in layouts:
        path = layout.shards(about["dataset"])
        if not (path / "dataset.json").is_file():
            continue
        reader = ShardReader(path)
        if dataset_id(reader.info) != about["dataset_id"]:
            raise DataError(
                f"{path} changed since the index was built; run sunpipe embed and sunpipe index"
                " build again"
            )
        return reader
    raise DataError(f"the shards of {about['dataset']} are not under {layouts[0].root}")


class Datasets:
    """Readers of the sources of an index, each opened when it is first needed."""

    def __init__(self, index: Index) -> None:
        self.index = index
        self._open: dict[int, ShardReader] = {}

    def reader(self, number: int) -> ShardReader:
        """The reader of a source.

        Raises
        ------
        DataError
            As `open_source`.
        """
        if number not in self._open:
            self._open[number] = open_source(self.index, number)
        return self._open[number]

    def close(self) -> None:
        """Close all of them."""
        for reader in self._open.values():
            reader.close()
        self._open.clear()
