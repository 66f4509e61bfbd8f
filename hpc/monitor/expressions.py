"""The expressions in files of rules and in Grafana's dashboards, and misspelt names in them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from hpc.monitor.dialects import unknown_names

_KEY = re.compile(r"""(?P<lead> *(?:- +)*)["']?(?P<key>\w+)["']?:(?: +(?P<rest>.*))?$""")
_BLOCK = re.compile(r"[|>][-+0-9]* *(?:#.*)?")
_STRING_OR_COMMENT = re.compile(
    r"""("(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|`[^`]*`)|(?<!\S)#.*""", re.MULTILINE
)

_ESCAPED = {"n": " ", "t": " ", "r": " "}  # in double quotes; white space is all alike to PromQL


def in_rules(text: str) -> Iterator[tuple[str, str]]:
    """Name and expression of each rule in a file of rules (YAML in blocks, as usual).

    Any order of the keys, plain, quoted and block scalars (``|``, ``>``), on the line of the
    key or below it. What is written in braces, or read as empty, is not found: compare the
    number of rules with what promtool counts.
    """
    column, found = -1, dict[str, str]()
    for lead, key, value in _entries(text.splitlines()):
        if "-" in lead:  # a new item of a list: a rule, or a group
            yield from _rule(found)
            column, found = len(lead), {}
        if len(lead) == column:
            found[key] = value
    yield from _rule(found)


def _rule(found: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    name = found.get("record") or found.get("alert")
    if name and found.get("expr"):
        yield name, found["expr"]


def _entries(lines: list[str]) -> Iterator[tuple[str, str, str]]:
    """(what stands before the key, key, scalar) of each key; a scalar may take several lines."""
    place = 0
    while place < len(lines):
        match = _KEY.match(lines[place])
        place += 1
        if not match:
            continue
        lead, rest = match["lead"], match["rest"] or ""
        parts = [] if _BLOCK.fullmatch(rest) else [rest]
        deeper = " " * (len(lead) + 1)
        if (rest and not rest.startswith("#")) or _scalar_follows(lines[place:], deeper):
            while place < len(lines) and (not lines[place].strip()
                                          or lines[place].startswith(deeper)):  # fmt: skip
                parts.append(lines[place])
                place += 1
        plain = _STRING_OR_COMMENT.sub(lambda one: one[1] or "", "\n".join(parts))
        yield lead, match["key"], _unquoted(" ".join(plain.split()))


def _scalar_follows(lines: list[str], deeper: str) -> bool:
    """Whether a scalar begins on the line after its key; else a mapping or a list does."""
    line = next((one for one in lines if one.strip() and not one.lstrip().startswith("#")), "")
    item = line.strip() == "-" or line.lstrip().startswith("- ")
    return line.startswith(deeper) and not item and not _KEY.match(line)


def _unquoted(scalar: str) -> str:
    if len(scalar) > 1 and scalar[0] == scalar[-1] == '"':
        return re.sub(r"\\(.)", lambda one: _ESCAPED.get(one[1], one[1]), scalar[1:-1])
    if len(scalar) > 1 and scalar[0] == scalar[-1] == "'":
        return scalar[1:-1].replace("''", "'")
    return scalar


def in_dashboard(board: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Where, and expression, of each query, annotation and variable of a dashboard's JSON.

    Raises
    ------
    TypeError, AttributeError
        Something in it is not of the kind that Grafana has there.
    """
    yield from _in_panels(board.get("panels") or [])
    for mark in (board.get("annotations") or {}).get("list") or []:
        for expr in (mark.get("expr"), (mark.get("target") or {}).get("expr")):
            if expr:
                yield f"annotation {mark.get('name', '')!r}", _text(expr)
    for variable in (board.get("templating") or {}).get("list") or []:
        query = variable.get("query")
        text = query.get("query", "") if isinstance(query, Mapping) else query
        if found := re.fullmatch(r"label_values\((.+),\s*\w+\)", str(text)):
            yield f"variable {variable.get('name', '')!r}", found[1]


def _in_panels(panels: Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    for panel in panels:
        for target in panel.get("targets") or []:
            if expr := target.get("expr"):
                yield f"panel {panel.get('title', '')!r}", _text(expr)
        yield from _in_panels(panel.get("panels") or [])  # of a row that is folded


def _text(expression: Any) -> str:
    if not isinstance(expression, str):
        raise TypeError(f"the expression {expression!r} is no text")
    return expression


def misspelt(found: Iterable[tuple[str, str]]) -> list[str]:
    """One line for each name that nothing serves, of (where, expression) pairs."""
    return [f"{where}: nothing serves {name}" for where, expression in found
            for name in sorted(unknown_names(expression))]  # fmt: skip
