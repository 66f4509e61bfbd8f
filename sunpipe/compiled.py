"""Compilation of numerical kernels by numba, kept on disk between processes.

A kernel has explicit signatures, so that it is compiled, or loaded from the
cache, when its module is imported and never in the middle of a run. numba keeps
the code in ``NUMBA_CACHE_DIR`` where that is set, else beside the module, else
(an installation that is read-only) in the user's cache folder. Where nothing
can be written (a read-only home, a quota that is full) the kernel is compiled
once per process: a few seconds, and no failure.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba


def kernel(*signatures: str) -> Callable[[Callable[..., Any]], Any]:
    """Compile a function for these numba signatures, without the GIL and with a cache."""

    def compiled(function: Callable[..., Any]) -> Any:
        options: dict[str, Any] = {"nogil": True, "error_model": "numpy"}
        try:
            return numba.njit(list(signatures), cache=True, **options)(function)
        except (RuntimeError, OSError) as error:
            if not isinstance(error, OSError) and "cannot cache" not in str(error):
                raise
            return numba.njit(list(signatures), **options)(function)

    return compiled
