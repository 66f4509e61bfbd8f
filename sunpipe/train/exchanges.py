"""How long this rank is inside exchanges with others, and how torch words that one failed.

What is left of a step is its own work.

torch offers no hook around a collective and DeepSpeed calls them by name, so the
names in ``torch.distributed`` are wrapped between `start_timing` and
`stop_timing`. On the CPU, Gloo blocks the caller: the time is that of waiting and
sending. NCCL returns at once, and the host waits for its device elsewhere.
"""

from __future__ import annotations

import functools
import re
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch.distributed as torch_dist

TIMED = ("all_reduce", "all_gather", "all_gather_into_tensor", "all_gather_object", "barrier",
         "broadcast", "broadcast_object_list", "reduce", "reduce_scatter_tensor")  # fmt: skip
EXCHANGE = re.compile(r"gloo|nccl|ProcessGroup|c10d|TCPStore", re.IGNORECASE)
_plain: dict[str, Callable[..., Any]] = {}
_spent = 0.0


def seconds() -> float:
    """Seconds that this process has been inside exchanges since `start_timing`."""
    return _spent


def _timed(inner: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(inner)
    def call(*args: Any, **kwargs: Any) -> Any:
        global _spent
        begun = time.perf_counter()
        try:
            return inner(*args, **kwargs)
        finally:
            _spent += time.perf_counter() - begun

    return call


def start_timing() -> None:
    """Time the exchanges from here on; a second call changes nothing."""
    global _spent
    if not _plain:
        _spent = 0.0
        for name in TIMED:
            _plain[name] = getattr(torch_dist, name)
            setattr(torch_dist, name, _timed(_plain[name]))


def stop_timing() -> None:
    """Put torch's functions back."""
    for name, inner in _plain.items():
        setattr(torch_dist, name, inner)
    _plain.clear()


def is_exchange(error: BaseException) -> bool:
    """Whether an error comes from an exchange between ranks, as torch words it."""
    if isinstance(error, torch_dist.DistError):
        return True
    return type(error) is RuntimeError and EXCHANGE.search(str(error)) is not None


def reason(error: BaseException) -> str:
    """What an error says, in one line: NCCL's own last error where there is one."""
    said = [line.strip() for line in str(error).splitlines() if line.strip()]
    for before, line in pairwise(said):
        if before.startswith("Last error"):
            return line[:300]
    # Gloo's begin with the place in its code
    return re.sub(r"^\[\S+:\d+\] ", "", said[0])[:300] if said else type(error).__name__
