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
    """A value as it would stand in TOML; what a run does not have is said."""
    if value is ABSENT:
        return "not set"
    if isinstance(value, str):
        return f"{value[:12]}…" if DIGEST.fullmatch(value) else value
    return json.dumps(value, ensure_ascii=False)


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
    rows, same = [], 0
    for key in keys:
        values = [text(found.get(key, ABSENT)) for found in each]
        if len(set(values)) == 1:
            same += 1
        else:
            rows.append({"key": key, "values": values,
                         "differs": [value != values[0] for value in values]})  # fmt: skip
    return rows, same
