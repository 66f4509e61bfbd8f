"""Imports point one way: jobs -> hpc -> preprocess -> sunpipe, and inside sunpipe."""

from __future__ import annotations

import ast
from pathlib import Path

from tests.conftest import REPO

# package prefix: imports it may not have. cli modules compose, and are exempt inside sunpipe.
FORBIDDEN = {
    "sunpipe": ("hpc", "preprocess"),
    "preprocess": ("hpc", "torch", "deepspeed", "faiss"),
    "hpc": ("torch", "deepspeed", "faiss", "drms", "mpi4py"),
    "sunpipe.models": ("sunpipe.latent", "sunpipe.embed", "sunpipe.index", "sunpipe.train",
                       "sunpipe.report", "sunpipe.files", "sunpipe.run", "h5py"),
    "sunpipe.physics": ("sunpipe.latent", "sunpipe.embed", "sunpipe.index", "sunpipe.train",
                        "sunpipe.report", "sunpipe.models"),
    "sunpipe.shards": ("sunpipe.latent", "sunpipe.embed", "sunpipe.index", "sunpipe.train",
                       "sunpipe.report", "sunpipe.models"),
    "sunpipe.index": ("torch", "sunpipe.models", "sunpipe.latent", "sunpipe.train", "sunpipe.embed",
                      "sunpipe.report"),
    "sunpipe.latent": ("sunpipe.train", "sunpipe.embed", "sunpipe.index", "sunpipe.report"),
    "sunpipe.embed": ("sunpipe.train", "sunpipe.report"),
    "sunpipe.train": ("sunpipe.latent", "sunpipe.embed", "sunpipe.index", "sunpipe.report"),
    "sunpipe.evaluate": ("sunpipe.train", "sunpipe.report"),
    "sunpipe.report": ("sunpipe.train",),
}  # fmt: skip
ONLY = {"deepspeed": "sunpipe.train", "drms": "preprocess", "mpi4py": "preprocess",
        "submitit": "hpc"}  # fmt: skip


def modules() -> dict[str, Path]:
    found = {}
    for package in ("sunpipe", "preprocess", "hpc"):
        for path in (REPO / package).rglob("*.py"):
            parts = path.relative_to(REPO).with_suffix("").parts
            found[".".join(parts).removesuffix(".__init__")] = path
    return found


def imports(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


# The one module that knows the files of embeddings: numpy and parquet, no torch.
ALLOWED = {("sunpipe.index", "sunpipe.embed.store")}


def allowed(package: str, name: str) -> bool:
    return any(package == importer and within(name, target) for importer, target in ALLOWED)


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def test_imports_point_one_way() -> None:
    faults = []
    for module, path in modules().items():
        composes = path.name in ("cli.py", "__main__.py")
        for package, banned in FORBIDDEN.items():
            if not within(module, package) or (composes and package.startswith("sunpipe.")):
                continue
            faults += [f"{module} imports {name}" for name in sorted(imports(path))
                       if any(within(name, other) for other in banned)
                       and not allowed(package, name)]  # fmt: skip
    assert faults == []


def test_some_libraries_have_one_home() -> None:
    faults = [
        f"{module} imports {library}"
        for module, path in modules().items()
        for library, home in ONLY.items()
        if any(within(name, library) for name in imports(path)) and not within(module, home)
    ]
    assert faults == []


def test_files_stay_small() -> None:
    long = {module: count for module, path in modules().items()
            if (count := path.read_text().count("\n")) > 350}  # fmt: skip
    assert long == {}
