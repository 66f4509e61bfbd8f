"""``--where``: a small language of conditions on the metadata. Nothing is ever evaluated as code.

::

    condition := term { "or" term }            term := factor { "and" factor }
    factor    := "not" factor | "(" condition ")" | column operator literal
    operator  := = == != < <= > >=             literal := number | 'text' | "text"

Words are read in any case, columns as the metadata spells them or in any case
where that is unambiguous. A value that is missing or NaN satisfies no
comparison, and its negation neither.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from sunpipe.errors import UsageError

LONGEST = 4000  # characters
DEEPEST = 50  # brackets and negations inside each other
OPERATORS: dict[str, Callable[..., Any]] = {
    "=": pc.equal,
    "==": pc.equal,
    "!=": pc.not_equal,
    "<": pc.less,
    "<=": pc.less_equal,
    ">": pc.greater,
    ">=": pc.greater_equal,
}
_TOKEN = re.compile(
    r"\s*(?:(?P<number>[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?)(?![A-Za-z0-9_.])"
    r"|(?P<word>[A-Za-z_][A-Za-z0-9_]*)"
    r"|(?P<text>'[^']*'|\"[^\"]*\")"
    r"|(?P<operator>==|!=|<=|>=|=|<|>)"
    r"|(?P<bracket>[()]))"
)
Token = tuple[str, str]


def tokens(text: str) -> list[Token]:
    """Kinds and spellings of the parts of a condition.

    Raises
    ------
    UsageError
        A character that belongs to nothing, or a text that is empty or too long.
    """
    if len(text) > LONGEST:
        raise UsageError(f"--where is {len(text)} characters long; at most {LONGEST} are read")
    if not text.strip():
        raise UsageError(
            "--where is empty; write a condition such as TOTUSJH > 2000, or leave it out"
        )
    found: list[Token] = []
    place = 0
    while text[place:].strip():
        match = _TOKEN.match(text, place)
        if match is None:
            raise UsageError(f"--where: cannot read {text[place:].strip()[:20]!r}")
        kind = str(match.lastgroup)
        word = match[kind].lower()
        if kind == "word" and word in ("and", "or", "not"):
            found.append((word, word))
        else:
            found.append((kind, match[kind]))
        place = match.end()
    return found


def find_column(table: pa.Table, name: str) -> str:
    """The column of that name, or the only one that differs in case.

    Raises
    ------
    UsageError
        No such column; near names are listed.
    """
    names = table.column_names
    if name in names:
        return name
    alike = [known for known in names if known.lower() == name.lower()]
    if len(alike) == 1:
        return alike[0]
    lower = {known.lower(): known for known in names}
    near = [lower[hit] for hit in difflib.get_close_matches(name.lower(), list(lower), n=3)]
    hint = f"did you mean {' or '.join(near)}?" if near else "known: " + ", ".join(names)
    raise UsageError(f"--where: no column {name!r} ({hint})")


def _literal(kind: str, text: str) -> str | int | float:
    if kind == "text":
        return text[1:-1]
    if re.fullmatch(r"[-+]?[0-9]{1,18}", text):
        return int(text)
    return float(text)


def _compare(table: pa.Table, name: str, operator: str, value: str | int | float) -> Any:
    column = table[find_column(table, name)]
    if pa.types.is_null(column.type):  # a keyword that no record has
        column = pc.cast(column, pa.string() if isinstance(value, str) else pa.float64())
    textual = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
    numeric = pa.types.is_integer(column.type) or pa.types.is_floating(column.type)
    if not textual and not numeric:
        raise UsageError(f"--where: {name} is of type {column.type}, which cannot be compared")
    if textual != isinstance(value, str):
        kind, example = ("text", "'...'") if textual else ("numbers", "2000")
        raise UsageError(f"--where: {name} holds {kind}; compare it with {example}")
    # Whole numbers are compared exactly; with a float both sides become floats.
    if numeric and (isinstance(value, float) or pa.types.is_floating(column.type)):
        column = pc.cast(column, pa.float64(), safe=False)
        column = pc.if_else(pc.is_nan(column), pa.scalar(None, pa.float64()), column)
        value = float(value)
    return OPERATORS[operator](column, pa.scalar(value))


class _Parser:
    """Recursive descent over the tokens; each rule returns a mask with nulls for unknown."""

    def __init__(self, text: str, table: pa.Table) -> None:
        self.tokens, self.place, self.depth, self.table = tokens(text), 0, 0, table

    def peek(self) -> Token:
        return self.tokens[self.place] if self.place < len(self.tokens) else ("end", "the end")

    def take(self, kind: str, wanted: str) -> str:
        found, text = self.peek()
        if found != kind:
            raise UsageError(f"--where: expected {wanted}, found {text!r}")
        self.place += 1
        return text

    def condition(self) -> Any:
        mask = self.term()
        while self.peek()[0] == "or":
            self.place += 1
            mask = pc.or_kleene(mask, self.term())
        return mask

    def term(self) -> Any:
        mask = self.factor()
        while self.peek()[0] == "and":
            self.place += 1
            mask = pc.and_kleene(mask, self.factor())
        return mask

    def factor(self) -> Any:
        self.depth += 1
        if self.depth > DEEPEST:
            raise UsageError(f"--where: more than {DEEPEST} brackets inside each other")
        try:
            if self.peek()[0] == "not":
                self.place += 1
                return pc.invert(self.factor())
            if self.peek() == ("bracket", "("):
                self.place += 1
                mask = self.condition()
                if self.peek() != ("bracket", ")"):
                    raise UsageError(f"--where: expected ')', found {self.peek()[1]!r}")
                self.place += 1
                return mask
            name = self.take("word", "a column")
            operator = self.take("operator", f"an operator after {name}")
            kind, text = self.peek()
            if kind not in ("number", "text"):
                raise UsageError(
                    f"--where: expected a number or a quoted text after {name} {operator},"
                    f" found {text!r}"
                )
            self.place += 1
            return _compare(self.table, name, operator, _literal(kind, text))
        finally:
            self.depth -= 1


def where_mask(table: pa.Table, text: str) -> NDArray[np.bool_]:
    """Rows of `table` that satisfy a condition.

    Parameters
    ----------
    table : pyarrow.Table
        Metadata of N vectors.
    text : str
        For example ``TOTUSJH > 2000 and not (split = 'test')``.

    Returns
    -------
    ndarray of bool, (N,)

    Raises
    ------
    UsageError
        Not a condition, an unknown column, or a number compared with a text.
    """
    parser = _Parser(text, table)
    mask = parser.condition()
    if parser.peek()[0] != "end":
        raise UsageError(f"--where: expected 'and', 'or' or the end, found {parser.peek()[1]!r}")
    filled = pc.fill_null(mask, False)
    if isinstance(filled, pa.ChunkedArray):
        filled = filled.combine_chunks()
    return filled.to_numpy(zero_copy_only=False).astype(bool)
