"""Which settings of several runs differ, by dotted key."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

ABSENT = object()
DIGEST = re.compile(r"[0-9a-f]{64}")  # shown by its first digits
NOT_SETTINGS = frozenset({"schema", "name"})  # of the file, and a label


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted key to value; an empty section stands as itself, lists are values."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        path = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            found |= flat(value, f"{path}.")
        else:
            found[path] = value
    return found


def text(value: Any) -> str:
    """A value for people: strings without quotes; what a run does not have is said."""
    if value is ABSENT:
        return "not set"
    if isinstance(value, str):
        return f"{value[:12]}…" if DIGEST.fullmatch(value) else value
    return json.dumps(value, ensure_ascii=False)


def same(values: Sequence[Any]) -> bool:
    """Whether values are equal, of one type too: ``"1"`` is not 1, though 1.0 is."""
    first = values[0]
    plain = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    return all(value == first and (plain or type(value) is type(first)) for value in values)


def differences(configs: Sequence[Mapping[str, Any]]) -> tuple[list[dict[str, Any]], int]:
    """Settings that are not the same in all of `configs`.

    Returns
    -------
    rows : list of dict
        ``key`` and ``values`` (text, one of each run), in the order of the first run.
    same : int
        How many settings are equal.
    """
    each = [{key: value for key, value in flat(config).items() if key not in NOT_SETTINGS}
            for config in configs]  # fmt: skip
    keys = list(dict.fromkeys(key for found in each for key in found))
    rows, equal = [], 0
    for key in keys:
        values = [found.get(key, ABSENT) for found in each]
        if same(values):
            equal += 1
        else:
            others = {text(value) for value in values if not isinstance(value, str)}
            texts = [json.dumps(value) if isinstance(value, str) and value in others
                     else text(value) for value in values]  # fmt: skip
            differs = [not same((values[0], value)) for value in values]
            rows.append({"key": key, "values": texts, "differs": differs})
    return rows, equal
