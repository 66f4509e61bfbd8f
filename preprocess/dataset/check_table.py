"""Tables of a dataset for checking: one column in memory at a time, faults by row and record."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

Report = Callable[[str], None]
Numbers = NDArray[np.float64]
Whole = NDArray[np.int64]
Flags = NDArray[np.bool_]
NULL = np.iinfo(np.int64).min  # stands for null among whole numbers
BATCH = 1 << 16  # rows
NAMED = 3  # faults of one kind that are named one by one


class Faults:
    """Passes on the first faults of a kind; `close` says how many there were.

    Parameters
    ----------
    report : callable
        Takes one line.
    """

    def __init__(self, report: Report) -> None:
        self._report = report
        self._counts: Counter[str] = Counter()

    def add(self, kind: str, line: str, count: int = 1) -> None:
        """Note a fault, which stands for `count` of its kind."""
        self._counts[kind] += count
        if self._counts[kind] - count < NAMED:
            self._report(line)

    def close(self) -> None:
        """Say how many there were of kinds of which not all were named."""
        for kind, count in self._counts.items():
            if count > NAMED:
                self._report(f"{kind}: {count} in all")
        self._counts.clear()


class Columns:
    """A table on disk, read column by column: a million rows of 130 columns are never in memory.

    Parameters
    ----------
    path : Path
        Parquet.

    Raises
    ------
    pyarrow.ArrowException, OSError
        When it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.name = path.name
        self._file = pq.ParquetFile(path)
        self.schema: pa.Schema = self._file.schema_arrow
        self.count: int = self._file.metadata.num_rows

    def read_all(self) -> None:
        """Read every column once.

        Raises
        ------
        pyarrow.ArrowException, OSError
            At the first that cannot be read, or whose texts are no text.
        """
        for name in self.schema.names:
            for batch in self._file.iter_batches(BATCH, columns=[name], use_threads=False):
                batch.validate(full=True)

    def column(self, name: str) -> pa.Array:
        """One column."""
        found = self._file.read([name], use_threads=False)[name].combine_chunks()
        return found if isinstance(found, pa.Array) else pa.chunked_array(found).combine_chunks()

    def numbers(self, name: str) -> Numbers:
        """A column of floats; null is NaN."""
        found = self.column(name).cast(pa.float64())
        return np.asarray(found.to_numpy(zero_copy_only=False), np.float64)

    def whole(self, name: str) -> Whole:
        """A column of whole numbers (or of flags); null is `NULL`."""
        found = pc.fill_null(self.column(name).cast(pa.int64()), NULL)
        return np.asarray(found.to_numpy(), np.int64)

    def words(self, name: str) -> tuple[list[str | None], Whole]:
        """Different values of a column of texts, and which of them each row has."""
        found = self.column(name).dictionary_encode(null_encoding="encode")
        return found.dictionary.to_pylist(), np.asarray(found.indices.to_numpy(), np.int64)

    def nulls(self, name: str) -> Flags:
        """Which rows have null."""
        return np.asarray(self.column(name).is_null().to_numpy(zero_copy_only=False), bool)

    def values(self, name: str) -> Whole:
        """A number for every value of any column, equal where the values are equal."""
        kind = self.schema.field(name).type
        if pa.types.is_string(kind):
            return self.words(name)[1]
        if pa.types.is_floating(kind):
            found = self.numbers(name)
            return np.where(np.isnan(found), np.nan, found + 0.0).view(np.int64)
        return self.whole(name)


class Records:
    """``records.parquet`` and ``quarantine.parquet`` with their records numbered together.

    Parameters
    ----------
    rows, lines : Columns
    report : callable

    Attributes
    ----------
    names : list of str
        The different records.
    of_row, of_line : ndarray of int64
        Which record each row, and each line of the quarantine, is of.
    held : ndarray of int64
        Records that have rows.
    first : ndarray of int64
        The first row of each of `held`.
    faults : Faults
        For faults that are found one by one.
    """

    def __init__(self, rows: Columns, lines: Columns, report: Report) -> None:
        self.rows, self.lines, self.report = rows, lines, report
        self.faults = Faults(report)
        both = pa.chunked_array([rows.column("record"), lines.column("record")], pa.string())
        found = both.combine_chunks().dictionary_encode(null_encoding="encode")
        self.names: list[str] = [str(name) for name in found.dictionary.to_pylist()]
        codes = np.asarray(found.indices.to_numpy(), np.int64)
        self.of_row, self.of_line = codes[: rows.count], codes[rows.count :]
        self.held, self.first = np.unique(self.of_row, return_index=True)
        self._place = np.full(len(self.names), -1, np.int64)
        self._place[self.held] = self.first

    def first_of(self, rows: Whole | None = None) -> Whole:
        """The first row of the record of each row."""
        return self._place[self.of_row if rows is None else rows]

    def one_each(self) -> bool:
        """Whether no record has two rows."""
        return len(self.held) == self.rows.count

    def row(self, number: int) -> str:
        """A row in words."""
        return f"records.parquet row {number} ({self.names[self.of_row[number]]})"

    def line(self, number: int) -> str:
        """A line of the quarantine in words."""
        return f"quarantine.parquet line {number} ({self.names[self.of_line[number]]})"

    def fault(self, wrong: Flags, say: str | Callable[[int], str]) -> None:
        """Report the rows that are `wrong`."""
        self._tell(wrong, say, self.row)

    def fault_of_line(self, wrong: Flags, say: str | Callable[[int], str]) -> None:
        """Report the lines of the quarantine that are `wrong`."""
        self._tell(wrong, say, self.line)

    def fault_of_record(self, wrong: Flags, say: str | Callable[[int], str]) -> None:
        """Report the records of `held` that are `wrong`, by their first rows."""
        which = np.zeros(self.rows.count, bool)
        which[self.first[wrong]] = True
        self.fault(which, say)

    def _tell(
        self, wrong: Flags, say: str | Callable[[int], str], name: Callable[[int], str]
    ) -> None:
        places = np.flatnonzero(wrong)
        for place in places[:NAMED].tolist():
            self.report(f"{name(place)}: {say if isinstance(say, str) else say(place)}")
        if len(places) > NAMED:
            self.report(f"{name(int(places[-1]))}: the last of {len(places)} with this fault")
