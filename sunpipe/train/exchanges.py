"""How long this rank is inside exchanges with others: what is left of a step is its own work.

torch offers no hook around a collective and DeepSpeed calls them by name, so the
names in ``torch.distributed`` are wrapped between `start_timing` and
`stop_timing`. On the CPU, Gloo blocks the caller: the time is that of waiting and
sending. NCCL returns at once, and the host waits for its device elsewhere.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any

import torch.distributed as torch_dist

TIMED = ("all_reduce", "all_gather", "all_gather_into_tensor", "all_gather_object", "barrier",
         "broadcast", "broadcast_object_list", "reduce", "reduce_scatter_tensor")  # fmt: skip
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
