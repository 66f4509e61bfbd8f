"""Kernels are cached where that is possible, and work where it is not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from numba.core.caching import IndexDataCacheFile

from sunpipe.compiled import kernel

SOURCE = """
from sunpipe.compiled import kernel

@kernel("int64(int64)")
def twice(x):
    return 2 * x

print(twice(21), sum(twice.stats.cache_hits.values()), twice.nopython_signatures)
"""


def run(script: Path, cache: Path) -> list[str]:
    found = subprocess.run(
        [sys.executable, "-W", "error", script], capture_output=True, text=True, check=True,
        env=os.environ | {"NUMBA_CACHE_DIR": str(cache)}, timeout=100,
    )  # fmt: skip
    return found.stdout.split(" ", 2)


def test_the_second_process_loads_what_the_first_compiled(tmp_path: Path) -> None:
    script = tmp_path / "made.py"
    script.write_text(SOURCE)
    first = run(script, tmp_path / "cache")
    second = run(script, tmp_path / "cache")
    assert first == ["42", "0", "[(int64,) -> int64]\n"]
    assert second == ["42", "1", "[(int64,) -> int64]\n"]


def test_code_without_a_place_for_its_cache_is_compiled_all_the_same() -> None:
    names: dict = {}
    exec(compile("def twice(x):\n    return 2 * x\n", "<no file>", "exec"), names)
    assert kernel("int64(int64)")(names["twice"])(21) == 42


def test_a_full_disk_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(IndexDataCacheFile, "save", full)

    def thrice(x):  # type: ignore[no-untyped-def]
        return 3 * x

    assert kernel("int64(int64)")(thrice)(14) == 42


def test_a_wrong_signature_is_an_error() -> None:
    with pytest.raises(TypeError):
        kernel("int64(int64,int64)")(lambda x: x)
