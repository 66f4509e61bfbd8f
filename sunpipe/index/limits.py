"""What may answer: conditions of the user, and the query's own record or HARP left out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from sunpipe.errors import UsageError
from sunpipe.index.columns import Columns
from sunpipe.index.compare import compare, digits
from sunpipe.index.fold import key_of, keys
from sunpipe.index.where import Part, plain, where_parts

Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Limits:
    """Conditions that all hold.

    Attributes
    ----------
    where : str or None
        As of `sunpipe.index.where`.
    within : float or None
        Largest angle from disk centre, degrees.
    after, before : str or None
        Times, cut as short as one likes: from the beginning of `after`, and until the
        beginning of `before`.
    other_harps : bool
        Leave out the HARP of the query (of a whole disk: its day).
    include_self : bool
        Let the query's own record answer.
    """

    where: str | None = None
    within: float | None = None
    after: str | None = None
    before: str | None = None
    other_harps: bool = False
    include_self: bool = False


def _time(option: str, text: str) -> str:
    try:
        digits(text)
    except UsageError as error:
        raise UsageError(f"{option}: {error}") from None
    return text


def parts(columns: Columns, limits: Limits, record: str | None = None) -> list[Part]:
    """Every condition and the rows that satisfy it alone.

    Parameters
    ----------
    record : str, optional
        Of the query.

    Raises
    ------
    UsageError
        A condition that cannot be read, or one that needs a record when there is none.
    """
    found = where_parts(columns, limits.where) if limits.where is not None else []
    if limits.within is not None:
        if not 0 <= limits.within <= 180:
            raise UsageError(f"--within {limits.within:g}: an angle is from 0 to 180 degrees")
        near = compare(columns, "angle", "<=", float(limits.within))
        found.append(Part(f"within {limits.within:g} degrees of disk centre", plain(near)))
    for option, sign, text in (("--after", ">=", limits.after), ("--before", "<", limits.before)):
        if text is not None:
            mask = plain(compare(columns, "t_rec", sign, _time(option, text)))
            found.append(Part(f"{option.removeprefix('--')} {text}", mask))
    if limits.other_harps:
        key = key_of(record) if record is not None else None
        if key is None:
            raise UsageError("--other-harps: this query has no HARP; it goes with --record or"
                             " --fits")  # fmt: skip
        found.append(
            Part(
                "of another HARP", plain(pc.not_equal(keys(columns.table).dictionary_decode(), key))
            )
        )
    if record is not None and not limits.include_self:
        found.append(
            Part("not the query's own record", plain(pc.not_equal(columns["record"], record)))
        )
    return found


def allowed(columns: Columns, conditions: list[Part]) -> Bools:
    """Rows that satisfy all conditions."""
    everything = np.ones(len(columns.table), bool)
    return np.logical_and.reduce([part.mask for part in conditions], initial=True) & everything


def alone(conditions: list[Part], records: NDArray[np.int64]) -> list[dict[str, Any]]:
    """How much each condition would leave by itself.

    Parameters
    ----------
    records : int64 ndarray (N,)
        Record of every row.
    """
    return [
        {"condition": part.text, "records": len(np.unique(records[part.mask])),
         "tiles": int(part.mask.sum())}
        for part in conditions
    ]  # fmt: skip
