"""What an answer says: the observations, what they hide, and how many were in question."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sunpipe.index.columns import Columns
from sunpipe.index.flares import context, regions
from sunpipe.index.fold import Ranked, sizes
from sunpipe.shards.schema import RECORD_COLUMNS

NOT_KEYWORDS = {*RECORD_COLUMNS, "embedding", "vector"}
Hit = dict[str, Any]


@dataclass(frozen=True)
class Answer:
    """Observations, the first the best.

    Attributes
    ----------
    hits : list of dict
        As `hit` makes them.
    about : dict
        What was asked: ``kind``, and what belongs to it.
    candidates : dict
        ``records`` and ``tiles`` that satisfy all conditions, and of the whole index
        ``records_in_index``, ``tiles_in_index``.
    conditions : list of dict
        ``condition``, and the ``records`` and ``tiles`` that it alone leaves.
    named : list of str
        Columns that the question names.
    keywords : list of str
        Keywords that every hit has, also when there is none.
    """

    hits: list[Hit]
    about: dict[str, Any]
    candidates: dict[str, int]
    conditions: list[dict[str, Any]]
    named: list[str]
    keywords: list[str]


def keyword_names(columns: Columns) -> list[str]:
    """Columns of the metadata that are keywords."""
    return [name for name in columns.table.column_names if name not in NOT_KEYWORDS]


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def hit(columns: Columns, distance: float | None, row: int) -> Hit:
    """One observation: what identifies it, its keywords, and what flared around it.

    Returns
    -------
    dict
        record, distance (None where nothing was compared), harpnum, t_rec, tile (first
        native row and column), split, row (in the dataset), noaa_ars, noaa (numbers), mu,
        angle (degrees), flux_mx, simulated, flares (`sunpipe.index.flares.context`), keywords.
    """
    table = columns.table
    found = {name: _plain(table[name][row].as_py()) for name in table.column_names}
    mu = found["mu"] if found["harpnum"] is not None else None
    simulated = found.get("simulated", False)
    return {
        "record": found["record"], "distance": distance, "harpnum": found["harpnum"],
        "t_rec": found["t_rec"], "tile": [found["tile_y"], found["tile_x"]],
        "split": found["split"], "row": found["row"], "noaa_ars": found["noaa_ars"],
        "noaa": list(regions(found["noaa_ars"])), "mu": found["mu"],
        "angle": None if mu is None else math.degrees(math.acos(min(1.0, max(-1.0, mu)))),
        "flux_mx": found["flux_mx"], "simulated": simulated,
        "flares": context(found["noaa_ars"], found["t_rec"], simulated),
        "keywords": {name: found[name] for name in keyword_names(columns)},
    }  # fmt: skip


def hits(
    columns: Columns, ranked: Ranked, allowed: NDArray[np.bool_], codes: NDArray[np.int64],
    records: NDArray[np.int64],
) -> list[Hit]:  # fmt: skip
    """The hits of a ranking; ``folded`` says what else of the group might have answered.

    Parameters
    ----------
    ranked : list of (distance, row)
        A NaN distance stands for none.
    codes, records : int64 ndarray (N,)
        Group and record of every row.
    """
    in_group, tiles = sizes(allowed, codes, records)
    found = []
    for rank, (distance, row) in enumerate(ranked, 1):
        one = hit(columns, None if math.isnan(distance) else distance, row)
        group = codes[row]
        found.append({"rank": rank, **one, "folded": {"records": int(in_group[group]) - 1,
                                                      "tiles": int(tiles[group]) - 1}})  # fmt: skip
    return found
