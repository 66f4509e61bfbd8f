"""Command lines as text for a shell: nothing in them can act on a terminal, nothing is cut."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable, Sequence

from hpc.status.text import acts

PART = re.compile(r"(\d{1,9})/(\d{1,9})")
ENOUGH = 3  # numbers in a row that are written as a range


def shell_word(word: str) -> str:
    r"""A word of a command; control characters as ``$'\x1b'``, which bash and zsh turn back."""
    if not any(map(acts, word)):
        return shlex.quote(word)
    shown = [
        "".join(f"\\x{byte:02x}" for byte in os.fsencode(one)) if acts(one)
        else f"\\{one}" if one in "\\'" else one
        for one in word
    ]  # fmt: skip
    return f"$'{''.join(shown)}'"


def shell_line(words: Iterable[str]) -> str:
    """A command line."""
    return " ".join(map(shell_word, words))


def spans(tasks: Sequence[str], shell: bool = False) -> list[str]:
    """Parts ``I/N``, or numbers, in their order, with those in a row as one.

    Parameters
    ----------
    shell : bool
        For a ``for`` loop of bash and zsh, ``{1..9}/200``; for the eye, ``1-9/200``, otherwise.
    """
    out: list[str] = []
    at = 0
    while at < len(tasks):
        found = PART.fullmatch(tasks[at]) or re.fullmatch(r"(\d{1,9})()", tasks[at])
        if found is None:
            out.append(shell_word(tasks[at]) if shell else tasks[at])
            at += 1
            continue
        end = f"/{found[2]}" if found[2] else ""
        first, count = int(found[1]), 1
        while at + count < len(tasks) and tasks[at + count] == f"{first + count}{end}":
            count += 1
        if count < ENOUGH:
            out += tasks[at : at + count]
        else:
            last = first + count - 1
            out.append(f"{{{first}..{last}}}{end}" if shell else f"{first}-{last}{end}")
        at += count
    return out
