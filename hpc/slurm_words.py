"""Slurm's way of writing times, spans, counts, node lists and states, as pure functions."""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Iterator
from contextlib import suppress

from sunpipe.errors import DataError

MOST_NODES = 65536  # of one list: Slurm's own limit (MAX_SLURM_NODES)


def unix_time(text: str) -> float | None:
    """A time of squeue: seconds since 1970, or ISO in local time from a Slurm that insists."""
    if text.isdigit():
        return float(text)
    with suppress(ValueError, OverflowError):
        return time.mktime(time.strptime(text, "%Y-%m-%dT%H:%M:%S"))
    return None  # N/A, NONE, Unknown


def span(text: str) -> float | None:
    """Seconds of ``[days-]hours:minutes:seconds`` or ``minutes:seconds``; None if unlimited."""
    found = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", text)
    if not found:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return float(((days * 24 + hours) * 60 + minutes) * 60 + seconds)


def count_tasks(text: str) -> int:
    """How many tasks ``3``, ``3-9:2%1`` or ``1,4-6`` are."""
    count = 0
    for part in text.partition("%")[0].split(","):
        if found := re.fullmatch(r"(\d+)(?:-(\d+)(?::(\d+))?)?", part):
            first, last = int(found[1]), int(found[2] or found[1])
            count += len(range(first, last + 1, int(found[3] or 1)))
    return max(count, 1)


def count_gpus(text: str) -> int:
    """GPUs in ``gpu:a100:4(S:0-1),mps:100``, ``gres/gpu:2`` or ``cpu=4,gres/gpu=2``."""
    count = 0
    for part in re.sub(r"\([^)]*\)", "", text).split(","):
        if found := re.fullmatch(r"(?:gres[:/])?gpu(?:[:=](?!\d+$)[^:=]+)?(?:[:=](\d+))?", part):
            count += int(found[1] or 1)
    # AllocTRES names a typed GPU twice, as gres/gpu and as gres/gpu:a100
    if found := re.search(r"(?:^|,)gres/gpu=(\d+)", text):
        return int(found[1])
    return count


def _pieces(text: str) -> Iterator[str]:
    """Split at commas outside brackets."""
    yield from (found for found in re.findall(r"(?:[^,\[\]]|\[[^\]]*\])+", text) if found)


def _numbers(inside: str) -> Iterator[str]:
    for part in inside.split(","):
        first, _, last = part.partition("-")
        last = last or first
        if not (first.isdigit() and last.isdigit()):
            raise DataError(f"[{inside}] is not a list of node numbers")
        if int(last) - int(first) >= MOST_NODES:
            raise DataError(f"[{inside}] names more than {MOST_NODES} nodes")
        yield from (f"{number:0{len(first)}d}" for number in range(int(first), int(last) + 1))


def expand_nodes(text: str) -> list[str]:
    """Names in a node list such as ``n[1-3,07],gpu-a[01-10]r[1-2]``, in its order.

    Raises
    ------
    DataError
        It is no node list, or one of more than `MOST_NODES`.
    """
    names: list[str] = []
    for piece in _pieces(text):
        parts = re.split(r"\[([^\]]*)\]", piece)
        choices = [list(_numbers(part)) if place % 2 else [part]
                   for place, part in enumerate(parts)]  # fmt: skip
        for found in itertools.islice(itertools.product(*choices), MOST_NODES - len(names) + 1):
            names.append("".join(found))
        if len(names) > MOST_NODES:
            raise DataError(f"a list of more than {MOST_NODES} nodes: {text[:60]}")
    return names


def node_state(flags: str) -> str:
    """One word for Slurm's state of a node.

    ``IDLE+DRAIN`` is drained and ``MIXED+DRAIN`` draining, as sinfo says; one that
    does not respond (``*``) is down, whatever it was before.
    """
    parts = re.split(r"\+", flags.upper())
    base = parts[0].rstrip("*~#!%$@^-")
    names = {base, *(part.rstrip("*~#!%$@^-") for part in parts)}
    if "*" in flags or names & {"DOWN", "NOT_RESPONDING", "FAIL", "FAILING", "ERROR"}:
        return "down"
    if "DRAIN" in names:
        return "draining" if base in ("ALLOCATED", "MIXED") or "COMPLETING" in names else "drained"
    if "COMPLETING" in names:
        return "completing"
    if names & {"MAINTENANCE", "MAINT", "RESERVED"}:
        return "other"
    return base.lower() if base in ("IDLE", "MIXED", "ALLOCATED") else "other"
