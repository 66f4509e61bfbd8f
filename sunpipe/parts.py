"""Parts of an array job: ``--part I/N``, one meaning for all stages that have parts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TypeVar

from sunpipe.errors import UsageError

Item = TypeVar("Item")


def parse_part(text: str) -> tuple[int, int]:
    """``I/N`` to (I, N), I from 1 to N.

    Raises
    ------
    UsageError
        Anything else.
    """
    match = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text.strip())
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise UsageError(f"--part {text!r}: write I/N with I from 1 to N, for example 1/4")
    return int(match[1]), int(match[2])


def share(items: Sequence[Item], part: tuple[int, int]) -> list[Item]:
    """Items of part (I, N): every N-th from the I-th on, so that shares differ by at most one."""
    index, count = part
    return list(items[index - 1 :: count])
