"""Compilation of numerical kernels by numba, kept on disk between processes.

A kernel has explicit signatures, so that it is compiled, or loaded from the
cache, when its module is imported and never in the middle of a run. numba keeps
the code beside the module, in ``NUMBA_CACHE_DIR`` where that is set, or in the
user's cache folder where the package is read-only; where none of these can be
written the kernel is compiled once per process, which takes a few seconds.
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
        except RuntimeError as error:
            if "cannot cache" not in str(error):
                raise
            return numba.njit(list(signatures), **options)(function)

    return compiled
