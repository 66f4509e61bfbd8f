"""Compilation of numerical kernels by numba, kept on disk between processes.

A kernel has explicit signatures, so that it is compiled, or loaded from the
cache, when its module is imported and never in the middle of a run. numba keeps
the code in ``NUMBA_CACHE_DIR`` where that is set, else beside the module, else
(an installation that is read-only) in the user's cache folder. Where nothing
can be written (a read-only home, a quota that is full) the kernel is compiled
once per process: a few seconds, and no failure.

By itself numba looks only at the date of the file that holds the decorated
function; code that was inlined from another file would stay after that file
has changed. Here the names of the cached files carry a digest of all sources
that a kernel is made of, and of the compiler's version.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import llvmlite
import numba
from numba.core import config
from numba.core.caching import FunctionCache, IndexDataCacheFile

# Sources in this package that kernels take code from, besides their own file; a test holds
# that they take none from elsewhere.
SHARED = ("compiled.py", "rice_bits.py", "shards/vector.py")


@functools.cache
def _source(path: Path) -> bytes:
    return path.read_bytes()


def code_digest(source: Path) -> str:
    """Identity of the machine code of the kernels in `source`, as 16 hexadecimal digits."""
    here = Path(__file__).parent
    found = hashlib.sha256(f"{numba.__version__} {llvmlite.__version__}".encode())
    for path in (source, *(here / name for name in SHARED)):
        found.update(hashlib.sha256(_source(path)).digest())
    return found.hexdigest()[:16]


class _Cache(FunctionCache):
    """numba's cache of one function, valid for these sources and no others."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)
        digest = code_digest(Path(function.__code__.co_filename))
        name = f"{self._impl.filename_base}-{digest}"
        self._cache_file = IndexDataCacheFile(self.cache_path, name, digest)


def kernel(*signatures: str) -> Callable[[Callable[..., Any]], Any]:
    """Compile a function for these numba signatures, without the GIL and with a cache."""

    def compiled(function: Callable[..., Any]) -> Any:
        options: dict[str, Any] = {"nogil": True, "error_model": "numpy"}
        if config.DISABLE_JIT:  # type: ignore[attr-defined]  # for a Python debugger
            return function
        try:
            made = numba.njit(**options)(function)
            made._cache = _Cache(function)
            for signature in signatures:
                made.compile(signature)
            made.disable_compile()
            return made
        except (RuntimeError, OSError) as error:
            if not isinstance(error, OSError) and "cannot cache" not in str(error):
                raise
            return numba.njit(list(signatures), **options)(function)

    return compiled
