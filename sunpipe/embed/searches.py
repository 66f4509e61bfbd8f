"""``searches/<name>/``: generated queries and the observations that answered; one reader each.

::

    hits.parquet    one row per query and rank: query, rank, record, harpnum, t_rec, split, row,
                    distance, tile_y, tile_x, query_<Q> and match_<Q> for each quantity Q
    queries.h5      /fields (N, C, H, W) float32 in the unit of the channels, /w float32 (N, w_dim),
                    or of samples of two styles (N, num_ws, w_dim)
    search.json     what was asked with what, and the correlation of each quantity; see `Search`
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from sunpipe.errors import DataError
from sunpipe.files import atomic_folder, read_json, sha256, write_json
from sunpipe.hdf5 import new_hdf5
from sunpipe.provenance import provenance

SCHEMA = 1
Floats32 = NDArray[np.float32]


@dataclass(frozen=True)
class Search:
    """``search.json``.

    Attributes
    ----------
    made_from : dict
        index (SHA-256 of its ``index.json``), encoder, generator, dataset
        (digests), settings, source (``samples`` or ``seeds``), seed, psi, styles and
        noise of the queries, control_seed (of the shuffled control).
    queries, answered : int
        Queries asked, and those that found a match.
    channels : list of str
        Of the query fields.
    pixel_cm : float
    quantities : dict
        Name to unit and what `sunpipe.embed.correlation` found between queries
        and best matches.
    records : dict
        Record-set string to the number of queries it answers best.
    files : dict
        ``hits.parquet`` and ``queries.h5`` to SHA-256.
    """

    made_from: dict[str, Any]
    queries: int
    answered: int
    channels: list[str]
    pixel_cm: float
    quantities: dict[str, dict[str, Any]]
    records: dict[str, int]
    files: dict[str, str]
    provenance: dict[str, Any] = field(default_factory=provenance)
    schema: int = SCHEMA


def write_search(
    folder: Path, hits: pa.Table, fields: Floats32, w: Floats32, **about: Any
) -> Search:
    """Write all three files at once."""
    import hdf5plugin

    with atomic_folder(folder) as temporary:
        pq.write_table(hits, temporary / "hits.parquet", compression="zstd")
        with new_hdf5(temporary / "queries.h5") as handle:
            handle.attrs["schema"] = SCHEMA
            handle.create_dataset(
                "fields", data=fields, chunks=(1, *fields.shape[1:]), fletcher32=True,
                **hdf5plugin.Bitshuffle(),
            )  # fmt: skip
            handle.create_dataset("w", data=w, fletcher32=True)
        names = ("hits.parquet", "queries.h5")
        search = Search(files={name: sha256(temporary / name) for name in names}, **about)
        write_json(temporary / "search.json", asdict(search))
    return search


def read_search(folder: Path) -> Search:
    """Read ``search.json``; a `DataError` tells what to run when it is not there."""
    folder = Path(folder)
    if not (folder / "search.json").is_file():
        raise DataError(f"no search in {folder}; run sunpipe search first")
    data = read_json(folder / "search.json")
    if not isinstance(data, dict) or data.get("schema") != SCHEMA:
        raise DataError(f"{folder} has another schema than {SCHEMA}; run sunpipe search again")
    try:
        return Search(**data)
    except TypeError as error:
        raise DataError(f"{folder / 'search.json'} is not a search's: {error}") from None


def whole(folder: Path, search: Search) -> bool:
    """Whether both data files are exactly those that were written."""
    return all(
        (folder / name).is_file() and sha256(folder / name) == known
        for name, known in search.files.items()
    )


def read_hits(folder: Path) -> pa.Table:
    """All answers, by query, then rank from 1."""
    path = Path(folder) / "hits.parquet"
    if not path.is_file():
        raise DataError(f"{path} does not exist; run sunpipe search first")
    return pq.read_table(path)


def read_queries(folder: Path) -> tuple[Floats32, Floats32]:
    """Query fields (N, C, H, W) and their w, (N, w_dim) or (N, num_ws, w_dim)."""
    import h5py
    import hdf5plugin  # noqa: F401  registers bitshuffle

    path = Path(folder) / "queries.h5"
    try:
        with h5py.File(path, "r") as handle:
            return handle["fields"][:], handle["w"][:]
    except (OSError, KeyError) as error:
        raise DataError(f"cannot read {path} ({error}); run sunpipe search again") from None
