"""Kernels are cached where that is possible, and work where it is not."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from numba.core.caching import IndexDataCacheFile

from sunpipe import compiled
from sunpipe.compiled import SHARED, code_digest, kernel
from tests.conftest import REPO

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


PACKAGES = ("sunpipe", "preprocess", "hpc")


def imports_of(path: Path) -> set[str]:
    """Modules that a file imports at its top or anywhere else."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(str(node.module))
    return found


def test_kernels_take_code_from_the_digested_sources_only() -> None:
    shared = {f"sunpipe.{name.removesuffix('.py').replace('/', '.')}" for name in SHARED}
    files = [path for package in PACKAGES for path in (REPO / package).rglob("*.py")]
    kernels = [path for path in files if "sunpipe.compiled" in imports_of(path)]
    assert len(kernels) >= 7
    helpers = [REPO / "sunpipe" / name for name in SHARED]
    for path in (*kernels, *helpers):
        own = {name for name in imports_of(path) if name.partition(".")[0] in PACKAGES}
        assert own <= shared, f"{path} imports {own - shared}: add it to SHARED"
    for path in set(files) - {*kernels, *helpers}:
        assert not {"numba", "numba.extending"} & imports_of(path), f"{path} compiles on its own"


USER = """
from sunpipe.compiled import kernel
from sunpipe.rice_bits import factor

@kernel("int64(int64)")
def product(x):
    return factor(x)

print(product(21), sum(product.stats.cache_hits.values()), product.nopython_signatures)
"""


def test_a_helper_that_changed_is_compiled_anew(tmp_path: Path) -> None:
    """As after ``git pull`` in an editable installation: the file of the kernel is the same."""
    package = tmp_path / "sunpipe"
    (package / "shards").mkdir(parents=True)
    for name in ("__init__.py", "shards/__init__.py", "shards/vector.py"):
        (package / name).touch()
    shutil.copy(REPO / "sunpipe/compiled.py", package / "compiled.py")
    script, helper = tmp_path / "made.py", package / "rice_bits.py"
    script.write_text(USER)
    helper.write_text("from numba import njit\n\n@njit\ndef factor(x):\n    return 2 * x\n")
    before = helper.stat()
    found = [run(script, tmp_path / "cache")[:2] for _ in range(2)]
    helper.write_text(helper.read_text().replace("2 * x", "3 * x"))
    os.utime(helper, ns=(before.st_atime_ns, before.st_mtime_ns))
    shutil.rmtree(
        package / "__pycache__", ignore_errors=True
    )  # Python's own cache goes by the date
    found += [run(script, tmp_path / "cache")[:2] for _ in range(2)]
    assert found == [["42", "0"], ["42", "1"], ["63", "0"], ["63", "1"]]


def test_the_digest_is_that_of_source_and_compiler(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = tmp_path / "one.py", tmp_path / "other.py"
    one.write_text("x = 1\n")
    other.write_text("x = 2\n")
    digest = code_digest(one)
    assert digest == code_digest(one) != code_digest(other)
    for module in (compiled.numba, compiled.llvmlite):
        monkeypatch.setattr(module, "__version__", "999")
        assert code_digest(one) != digest
        digest = code_digest(one)
