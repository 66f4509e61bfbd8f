"""One comparison of ``--where``: a column with a number, text, truth, time or GOES class."""

from __future__ import annotations

import re
from calendar import monthrange
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from sunpipe.errors import UsageError
from sunpipe.index import goes
from sunpipe.index.columns import CLASSES, TIMES, Columns

Literal = str | int | float | bool
OPERATORS: dict[str, Callable[..., Any]] = {
    "=": pc.equal,
    "==": pc.equal,
    "!=": pc.not_equal,
    "<": pc.less,
    "<=": pc.less_equal,
    ">": pc.greater,
    ">=": pc.greater_equal,
}


def _impossible(parts: list[str]) -> str | None:
    """Which part of a time no calendar or clock has."""
    year, month, day, hour, minute, second = [*map(int, parts), *(1, 1, 1, 0, 0, 0)[len(parts) :]]
    if year < 1:
        return f"year {parts[0]}"
    if not 1 <= month <= 12:
        return f"month {parts[1]}"
    if not 1 <= day <= monthrange(year, month)[1]:
        return f"day {parts[2]}"
    if hour > 23:
        return f"hour {parts[3]}"
    if minute > 59:
        return f"minute {parts[4]}"
    return f"second {parts[5]}" if second > 60 else None  # UTC has leap seconds


def digits(time: str) -> str:
    """The digits of a time that may be cut short; checked.

    Raises
    ------
    UsageError
        Not a time, or one that does not exist: a 13th month, the 30th of February.
    """
    found = re.fullmatch(
        r"(\d{4})(?:[-.](\d\d)(?:[-.](\d\d)(?:[T_ ](\d\d)(?::(\d\d)(?::(\d\d)"
        r"(?:\.\d+)?)?)?)?)?)?(?:_TAI|Z)?", time.strip(), re.ASCII)  # fmt: skip
    if found is None:
        raise UsageError(f"{time!r} is no time; write 2014, 2014.03 or 2014.03.29_17:48")
    parts = [part for part in found.groups() if part]
    if wrong := _impossible(parts):
        raise UsageError(f"{time!r} is no time: there is no {wrong}")
    return "".join(parts)


def _times(column: Any, value: Literal) -> tuple[Any, Any]:
    """Times cut to the length of a literal, so that it stands for all that begins with it."""
    year = isinstance(value, int) and not isinstance(value, bool) and 1000 <= value <= 9999
    if not year and not isinstance(value, str):
        raise UsageError("a time is compared with '2014.03.29_17:48', or a year")
    wanted = digits(str(value))
    bare = pc.replace_substring_regex(column, "[^0-9]", "")
    return pc.utf8_slice_codeunits(bare, 0, len(wanted)), pa.scalar(wanted)


def compare(columns: Columns, name: str, sign: str, value: Literal) -> Any:
    """Rows where a column stands so to a value; null where the column has none.

    Raises
    ------
    UsageError
        Numbers compared with a text, or a column that cannot be compared.
    """
    name = columns.find(name)
    column, kind = columns[name], columns[name].type
    try:
        if name in CLASSES and isinstance(value, str):
            value = goes.flux(value)
        if name in TIMES and not pa.types.is_null(kind):
            return OPERATORS[sign](*_times(column, value))
    except UsageError as error:
        raise UsageError(f"--where: {name}: {error}") from None
    if pa.types.is_null(kind):  # a keyword that no record has
        column = pc.cast(column, pa.string() if isinstance(value, str) else pa.float64())
    textual = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
    boolean = pa.types.is_boolean(column.type)
    numeric = pa.types.is_integer(column.type) or pa.types.is_floating(column.type)
    if not (textual or numeric or boolean):
        raise UsageError(f"--where: {name} is of type {kind}, which cannot be compared")
    if boolean != isinstance(value, bool) or textual != isinstance(value, str):
        what, example = (("text", "'...'") if textual else ("true or false", "true") if boolean
                         else ("numbers", "2000"))  # fmt: skip
        raise UsageError(f"--where: {name} holds {what}; compare it with {example}")
    # Whole numbers are compared exactly; with a float both sides become floats.
    if numeric and (isinstance(value, float) or pa.types.is_floating(column.type)):
        column = pc.cast(column, pa.float64(), safe=False)
        column = pc.if_else(pc.is_nan(column), pa.scalar(None, pa.float64()), column)
        value = float(value)
    return OPERATORS[sign](column, pa.scalar(value))
