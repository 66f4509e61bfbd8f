"""``--like TOTUSJH=3000,USFLUX=2e22``: observations nearest in numbers, with no encoder.

Each number is measured in the spread of the archive: the interquartile range over its
records (one value per record, whatever the number of tiles), divided by 1.349, which is the
standard deviation of a normal distribution and does not feel the few extreme regions. The
distance is the root mean square of the differences in these units.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sunpipe.errors import UsageError
from sunpipe.index.columns import Columns, by_record

NORMAL = 1.349  # interquartile range of a normal distribution, in standard deviations
FEWEST = 4  # records that make a spread
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Like:
    """Numbers to be near to.

    Attributes
    ----------
    wanted : dict
        Column to value.
    spread : dict
        Column to its robust standard deviation over the records of the index.
    distance : float64 ndarray (N,)
        Of every row; NaN where one of the columns is missing.
    """

    wanted: dict[str, float]
    spread: dict[str, float]
    distance: Floats

    def about(self, records: NDArray[np.int64]) -> dict[str, Any]:
        """What the answer says of the question."""
        missing = len(np.unique(records[np.isnan(self.distance)]))
        return {"kind": "like", "wanted": self.wanted, "spread": self.spread,
                "spread_is": "interquartile range over records / 1.349",
                "records_without": missing}  # fmt: skip


def read_like(text: str, columns: Columns) -> dict[str, float]:
    """Columns and wanted values.

    Raises
    ------
    UsageError
    """
    wanted: dict[str, float] = {}
    for item in text.split(","):
        match = re.fullmatch(r"\s*([A-Za-z_]\w*)\s*=\s*(\S+)\s*", item)
        try:
            value = float(match[2]) if match else math.nan
        except ValueError:
            value = math.nan
        if match is None or not math.isfinite(value):
            raise UsageError(
                f"--like: cannot read {item.strip()!r}; write TOTUSJH=3000,USFLUX=2e22"
            )
        name = columns.find(match[1], "--like")
        if name in wanted:
            raise UsageError(f"--like: {name} stands twice")
        wanted[name] = value
    return wanted


def like(text: str, columns: Columns) -> Like:
    """How near every row is to some numbers.

    Raises
    ------
    UsageError
        An unknown column, one that holds no numbers, or one that does not vary.
    """
    wanted = read_like(text, columns)
    first, _ = by_record(columns.table)
    total, spread = np.zeros(len(columns.table)), {}
    for name, value in wanted.items():
        try:
            numbers = columns.numbers(name)
        except UsageError as error:
            raise UsageError(f"--like: {error}") from None
        known = numbers[first][np.isfinite(numbers[first])]
        if len(known) < FEWEST:
            raise UsageError(f"--like: {name} is known for {len(known)} records of the index;"
                             f" at least {FEWEST} make a spread")  # fmt: skip
        low, high = np.percentile(known, [25, 75])
        spread[name] = float(high - low) / NORMAL
        if spread[name] <= 0:
            raise UsageError(f"--like: {name} is {low:g} for most records; it tells nothing apart")
        total += ((numbers - value) / spread[name]) ** 2
    return Like(wanted, spread, np.sqrt(total / len(wanted)))
