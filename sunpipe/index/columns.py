"""What a condition may name: the columns of the metadata, and some that are computed from them.

===================  ==================================================================
``angle``            degrees from disk centre, arccos of ``mu``; null for whole disks
``year``             of ``t_rec``
``flare_24h``        class of the largest flare within 24 h after the record; compared
                     with a class ('M1', 'none') or a peak flux in W/m2
``flare_flux_24h``   its peak flux, W/m2; 0 when none is listed
``flares_24h``       how many flares are listed
``flare_before_24h``, ``flare_flux_before_24h``, ``flares_before_24h``
                     the same of the 24 h before the record
===================  ==================================================================
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from sunpipe.errors import UsageError

TIMES = ("t_rec", "T_OBS", "T_FRST1", "T_LAST1", "DATE__OBS")
CLASSES = ("flare_24h", "flare_before_24h")
FLARE_NEEDS = ("record", "noaa_ars", "t_rec", "simulated")


def by_record(table: pa.Table) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First row of every record, and for every row the number of its record."""
    column = table["record"].combine_chunks().dictionary_encode()
    codes = np.asarray(column.indices, dtype=np.int64)
    first = np.full(len(column.dictionary), len(table), np.int64)
    np.minimum.at(first, codes, np.arange(len(table)))
    return first, codes


class Columns:
    """Columns by name; a computed one is made when it is first asked for.

    Parameters
    ----------
    table : pyarrow.Table
        Metadata of N vectors.
    """

    def __init__(self, table: pa.Table) -> None:
        self.table = table
        self.named: list[str] = []  # what was asked for, in order
        self._made: dict[str, Any] = {}

    @cached_property
    def computed(self) -> dict[str, Callable[[str], Any]]:
        """Names that can be computed from this table, and what makes each."""
        makers: list[tuple[tuple[str, ...], tuple[str, ...], Callable[[str], Any]]] = [
            (("angle",), ("mu",), self._angle),
            (("year",), ("t_rec",), self._year),
            (tuple(f"{kind}_{side}24h" for side in ("", "before_")
                   for kind in ("flare", "flare_flux", "flares")), FLARE_NEEDS, self._flares),
        ]  # fmt: skip
        have = set(self.table.column_names)
        return {name: maker for names, needs, maker in makers if have.issuperset(needs)
                for name in names if name not in have}  # fmt: skip

    @property
    def names(self) -> list[str]:
        """Stored columns, then computed ones."""
        return [*self.table.column_names, *self.computed]

    def find(self, name: str, option: str = "--where") -> str:
        """The column of that name, or the only one that differs in case.

        Raises
        ------
        UsageError
            No such column; near names are listed.
        """
        same = [known for known in self.names if known.lower() == name.lower()]
        if name in same or len(same) == 1:
            self.named.append(name if name in same else same[0])
            return self.named[-1]
        lower = {known.lower(): known for known in self.names}
        near = [lower[hit] for hit in difflib.get_close_matches(name.lower(), list(lower), n=3)]
        hint = f"did you mean {' or '.join(near)}?" if near else "known: " + ", ".join(self.names)
        raise UsageError(f"{option}: no column {name!r} ({hint})")

    def __getitem__(self, name: str) -> Any:
        if name not in self.computed:
            return self.table[name]
        if name not in self._made:
            self._made[name] = self.computed[name](name)
        return self._made[name]

    def numbers(self, name: str) -> NDArray[np.float64]:
        """A numeric column as float64 (N,), NaN where it is missing.

        Raises
        ------
        UsageError
            The column holds something else.
        """
        column = self[name]
        kind = column.type
        if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_null(kind)):
            raise UsageError(f"{name} holds no numbers but {kind}")
        column = pc.fill_null(pc.cast(column, pa.float64(), safe=False), float("nan"))
        if isinstance(column, pa.ChunkedArray):
            column = column.combine_chunks()
        return column.to_numpy(zero_copy_only=False).astype(np.float64)

    def _angle(self, _: str) -> Any:
        mu = np.clip(self.numbers("mu"), -1, 1)
        angle = pa.array(np.degrees(np.arccos(mu)), from_pandas=True)
        if "harpnum" in self.table.column_names:  # the mu of a whole disk is 1 by definition
            angle = pc.if_else(pc.is_valid(self.table["harpnum"]), angle, None)
        return angle

    def _year(self, _: str) -> Any:
        year = pc.utf8_slice_codeunits(self.table["t_rec"], 0, 4)
        known = pc.match_substring_regex(year, "^[0-9]{4}$")
        return pc.cast(pc.if_else(known, year, None), pa.int64())

    @cached_property
    def windows(self) -> tuple[Any, NDArray[np.int64]]:
        """Flares of every record (`sunpipe.index.flares.windows`), and each row's record."""
        from sunpipe.index.flares import windows

        first, codes = by_record(self.table)
        rows = self.table.select(list(FLARE_NEEDS)).take(pa.array(first))
        found = windows(*(rows[name].to_pylist() for name in FLARE_NEEDS[1:]))
        return found, codes

    def _flares(self, name: str) -> Any:
        windows, codes = self.windows
        window = windows["before" if "before" in name else "after"]
        if name.startswith("flares"):
            return pa.array(window.count[codes], mask=window.count[codes] < 0)
        return pa.array(window.largest[codes], from_pandas=True)
