"""``--where``: a small language of conditions on the metadata. Nothing is ever evaluated as code.

::

    condition := term { "or" term }            term := factor { "and" factor }
    factor    := "not" factor | "(" condition ")" | column test
    test      := operator literal | "between" literal "and" literal | "in" literal ".." literal
    operator  := = == != < <= > >=             literal := number | 'text' | "text" | true | false

Words are read in any case, columns (`sunpipe.index.columns`) as the metadata spells them or
in any case where that is unambiguous. Both ends of a range belong to it. A value that is
missing or NaN satisfies no comparison, and its negation neither.

A time may be written as far as it matters (2014, '2014.03', '2014-03-29T17') and then means
all of that year, month or hour: ``t_rec in 2011..2014`` ends with 2014.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from sunpipe.errors import UsageError
from sunpipe.index.columns import Columns
from sunpipe.index.compare import Literal, compare

LONGEST = 4000  # characters
DEEPEST = 50  # brackets and negations inside each other
_TOKEN = re.compile(
    r"\s*(?:(?P<number>[-+]?(?:[0-9]+\.(?!\.)[0-9]*|[0-9]+|\.[0-9]+)(?:[eE][-+]?[0-9]+)?)"
    r"(?![A-Za-z0-9_]|\.(?!\.))"
    r"|(?P<word>[A-Za-z_][A-Za-z0-9_]*)"
    r"|(?P<text>'[^']*'|\"[^\"]*\")"
    r"|(?P<operator>==|!=|<=|>=|=|<|>)"
    r"|(?P<range>\.\.)"
    r"|(?P<bracket>[()]))"
)
Bools = NDArray[np.bool_]


class Token(NamedTuple):
    """A part of a condition, and where it stands."""

    kind: str
    text: str
    start: int
    end: int


class Part(NamedTuple):
    """A condition that must hold beside others, and the rows that satisfy it."""

    text: str
    mask: Bools


def tokens(text: str) -> list[Token]:
    """The parts of a condition.

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
            kind = word
        found.append(Token(kind, match[kind] if kind in match.groupdict() else word,
                           match.start(str(match.lastgroup)), match.end()))  # fmt: skip
        place = match.end()
    return found


def _literal(token: Token) -> Literal:
    if token.kind == "text":
        return token.text[1:-1]
    if token.kind == "word":
        return token.text.lower() == "true"
    return int(token.text) if re.fullmatch(r"[-+]?[0-9]{1,18}", token.text) else float(token.text)


class _Parser:
    """Recursive descent over the tokens; each rule returns a mask with nulls for unknown."""

    def __init__(self, text: str, columns: Columns) -> None:
        self.text, self.tokens, self.columns = text, tokens(text), columns
        self.place = self.depth = 0
        self.end = Token("end", "the end", len(text), len(text))

    def peek(self) -> Token:
        return self.tokens[self.place] if self.place < len(self.tokens) else self.end

    def take(self, kind: str, wanted: str) -> Token:
        found = self.peek()
        if found.kind != kind:
            raise UsageError(f"--where: expected {wanted}, found {found.text!r}")
        self.place += 1
        return found

    def chain(self, word: str, rule: Callable[[], Any], join: Callable[..., Any]) -> Any:
        mask = rule()
        while self.peek().kind == word:
            self.place += 1
            mask = join(mask, rule())
        return mask

    def condition(self) -> Any:
        return self.chain("or", self.term, pc.or_kleene)

    def term(self) -> Any:
        return self.chain("and", self.factor, pc.and_kleene)

    def factor(self) -> Any:
        self.depth += 1
        if self.depth > DEEPEST:
            raise UsageError(f"--where: more than {DEEPEST} brackets inside each other")
        try:
            if self.peek().kind == "not":
                self.place += 1
                return pc.invert(self.factor())
            if self.peek()[:2] == ("bracket", "("):
                self.place += 1
                mask = self.condition()
                if self.peek()[:2] != ("bracket", ")"):
                    raise UsageError(f"--where: expected ')', found {self.peek().text!r}")
                self.place += 1
                return mask
            return self.test(self.take("word", "a column").text)
        finally:
            self.depth -= 1

    def test(self, name: str) -> Any:
        word = self.peek().text.lower() if self.peek().kind == "word" else ""
        if word in ("between", "in"):
            self.place += 1
            low = self.literal(f"{name} {word}")
            joint = "and" if word == "between" else "range"
            self.take(joint, f"'{'..' if joint == 'range' else joint}' after {name} {word} {low}")
            high = self.literal(f"{name} {word} {low} ..")
            return pc.and_kleene(compare(self.columns, name, ">=", low),
                                 compare(self.columns, name, "<=", high))  # fmt: skip
        sign = self.take("operator", f"an operator after {name}").text
        return compare(self.columns, name, sign, self.literal(f"{name} {sign}"))

    def literal(self, behind: str) -> Literal:
        token = self.peek()
        truth = token.kind == "word" and token.text.lower() in ("true", "false")
        if token.kind not in ("number", "text") and not truth:
            raise UsageError(
                f"--where: expected a number or a quoted text after {behind}, found {token.text!r}"
            )
        self.place += 1
        return _literal(token)

    def parts(self) -> list[tuple[str, Any]]:
        """The factors of a plain chain of ``and``; anything else as one."""
        found: list[tuple[str, Any]] = []

        def factor() -> Any:
            start = self.peek().start
            mask = self.factor()
            found.append((self.text[start : self.tokens[self.place - 1].end], mask))
            return mask

        whole = self.chain("and", factor, pc.and_kleene)
        if self.peek().kind == "or":
            self.place += 1
            found = [(self.text.strip(), pc.or_kleene(whole, self.condition()))]
        if self.peek().kind != "end":
            raise UsageError(
                f"--where: expected 'and', 'or' or the end, found {self.peek().text!r}"
            )
        return found


def plain(mask: Any) -> Bools:
    """A mask of Arrow as one of NumPy; unknown is no."""
    filled = pc.fill_null(mask, False)
    if isinstance(filled, pa.ChunkedArray):
        filled = filled.combine_chunks()
    return filled.to_numpy(zero_copy_only=False).astype(bool)


def where_parts(table: pa.Table | Columns, text: str) -> list[Part]:
    """The conditions that ``and`` joins, each with the rows that satisfy it alone.

    Raises
    ------
    UsageError
        As `where_mask`.
    """
    columns = table if isinstance(table, Columns) else Columns(table)
    return [Part(part, plain(mask)) for part, mask in _Parser(text, columns).parts()]


def where_mask(table: pa.Table | Columns, text: str) -> Bools:
    """Rows of `table` that satisfy a condition.

    Parameters
    ----------
    table : pyarrow.Table
        Metadata of N vectors.
    text : str
        For example ``TOTUSJH in 2000..4000 and not (split = 'test')``.

    Returns
    -------
    ndarray of bool, (N,)

    Raises
    ------
    UsageError
        Not a condition, an unknown column, or a number compared with a text.
    """
    masks = [part.mask for part in where_parts(table, text)]
    return np.logical_and.reduce(masks)
