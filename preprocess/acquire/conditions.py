"""Keyword conditions of a request: read, checked, and written as JSOC's where clause.

A clause is SQL on the keywords of a series. What a user writes is therefore
taken apart into keyword, operator and value and written anew; nothing else of it
reaches the server.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from sunpipe.errors import ConfigError

_CONDITION = re.compile(
    r"\s*([A-Za-z][A-Za-z0-9_]{0,31})\s*(==|!=|<>|<=|>=|=|<|>)\s*"
    r"(?:([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,3})?)|(0[xX][0-9A-Fa-f]{1,8})"
    r"|'([A-Za-z0-9 _.,:/+-]{0,64})'|\"([A-Za-z0-9 _.,:/+-]{0,64})\")\s*"
)
_SQL = {"==": "=", "<>": "!="}


@dataclass(frozen=True)
class Condition:
    """One comparison; `value` is a number or a quoted string, as SQL has it."""

    keyword: str
    operator: str
    value: str

    def __str__(self) -> str:
        return f"{self.keyword} {self.operator} {self.value}"


def parse_condition(text: str) -> Condition:
    """Read ``KEYWORD OPERATOR VALUE``.

    Raises
    ------
    ConfigError
        For anything else; a condition is one comparison, several are a list.
    """
    match = _CONDITION.fullmatch(text)
    if match is None:
        raise ConfigError(
            f"query.requests where: {text!r} is not KEYWORD OPERATOR VALUE, such as"
            " USFLUX > 1e22 or NOAA_ARS = '11158'; one comparison each"
        )
    keyword, operator, number, hexadecimal, *quoted = match.groups()
    if hexadecimal:  # stored integers are signed: 0x80000000 is the record without image
        value = int(hexadecimal, 16)
        number = str(value - 2**32 if value >= 2**31 else value)
    text = number if number is not None else f"'{next(q for q in quoted if q is not None)}'"
    return Condition(keyword, _SQL.get(operator, operator), text)


def spell(conditions: Sequence[Condition], known: Collection[str], series: str) -> list[Condition]:
    """Conditions with the keywords as the series spells them.

    Raises
    ------
    ConfigError
        Naming the keywords that the series lacks.
    """
    spelling = {name.lower(): name for name in known}
    if lacking := [c.keyword for c in conditions if c.keyword.lower() not in spelling]:
        raise ConfigError(f"{series} has no keyword {', '.join(lacking)}")
    return [Condition(spelling[c.keyword.lower()], c.operator, c.value) for c in conditions]


def noaa_clause(numbers: Sequence[int]) -> str:
    """SHARPs that hold one of these active regions.

    NOAA_AR is the first region of a patch, NOAA_ARS the list of all as text.
    """
    parts = [f"NOAA_AR = {number} OR NOAA_ARS LIKE '%{number}%'" for number in numbers]
    return f"({' OR '.join(parts)})"


def where_clause(conditions: Sequence[Condition], noaa: Sequence[int] = ()) -> str:
    """The ``[? ... ?]`` of a record set; empty without conditions."""
    parts = [*([noaa_clause(noaa)] if noaa else []), *map(str, conditions)]
    return f"[? {' AND '.join(parts)} ?]" if parts else ""
