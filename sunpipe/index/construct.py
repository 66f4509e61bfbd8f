"""Building in three steps: learn once, encode in parts, join and measure.

All of it happens in a hidden folder beside the index, ``.<name>.<plan>.building``, whose
name holds a digest of what is built. Another plan has another folder: nothing that a
task of a job array has finished is ever removed by a command with other settings::

    plan.json            what is built
    shared               there when several tasks build it
    <kind>.trained       learned by whichever part comes first, used by all
    vectors.npy          prepared vectors; each part writes its own rows
    part-I-of-N.<kind>   codes of one part
    part-I-of-N.json     written when the part is complete

The index takes its name at the very end. A killed build continues with the parts
that are missing; a refused one leaves nothing. What one process builds alone, it builds
under the lock: the folder of another such build is a dead one's, and is removed.
"""

from __future__ import annotations

import fcntl
import io
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sunpipe.errors import DataError
from sunpipe.files import TEMPORARY_PREFIX, atomic_path, digest, fsync_file, read_json, write_json
from sunpipe.index.choose import Candidate
from sunpipe.index.codes import Shape, add, copy_of
from sunpipe.index.learn import kinds_to_try, learn
from sunpipe.index.sources import Source, blocks, starts
from sunpipe.index_settings import IndexSettings
from sunpipe.lock import lock_file
from sunpipe.stage import log

Vectors = NDArray[np.float32]
Part = tuple[int, int]
BUILDING = ".building"
SHARED = "shared"


@dataclass(frozen=True)
class Plan:
    """What is to be built, and where."""

    out: Path
    metric: str
    sources: list[Source]
    settings: IndexSettings
    identity: dict[str, Any] = field(default_factory=dict)

    @property
    def asked(self) -> dict[str, Any]:
        """What decides the result; vectors read at a time (`block`) do not."""
        settings = {name: value for name, value in asdict(self.settings).items() if name != "block"}
        return {**self.identity, "metric": self.metric, "settings": settings,
                "count": self.count, "dim": self.dim}  # fmt: skip

    @property
    def work(self) -> Path:
        """The folder of a build under way."""
        return self.out.with_name(f".{self.out.name}.{digest(self.asked)[:12]}{BUILDING}")

    @property
    def count(self) -> int:
        """Vectors of the index to be."""
        return starts(self.sources)[-1]

    @property
    def dim(self) -> int:
        """Length of the vectors."""
        return self.sources[0].dim


@contextmanager
def alone(out: Path) -> Iterator[None]:
    """One process at a time changes an index; others wait. The lock falls with its holder."""
    out.parent.mkdir(parents=True, exist_ok=True)
    path = out.with_name(f"{TEMPORARY_PREFIX}{out.name}.lock")
    while True:
        with open(path, "a+") as handle:
            lock_file(handle, fcntl.LOCK_EX)
            # The last holder removed the name, maybe after we opened it.
            if not _is_named(handle.fileno(), path):
                continue
            try:
                yield
            finally:
                path.unlink(missing_ok=True)
            return


def _is_named(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def is_shared(folder: Path) -> bool:
    """Whether several tasks build what stands in a folder of a build."""
    return (folder / SHARED).exists() and (folder / "plan.json").is_file()


def discard(plan: Plan) -> None:
    """Remove the folder of the build."""
    shutil.rmtree(plan.work, ignore_errors=True)


def others(plan: Plan) -> list[Path]:
    """Folders of builds of the same index by other plans."""
    name = re.compile(rf"\.{re.escape(plan.out.name)}\.[0-9a-f]{{12}}{re.escape(BUILDING)}")
    parent = plan.out.parent
    return sorted(path for path in (parent.iterdir() if parent.is_dir() else ())
                  if name.fullmatch(path.name) and path != plan.work)  # fmt: skip


def start(plan: Plan, shared: bool = False) -> None:
    """Open the folder of the build, under the lock.

    Dead folders of builds by one process are removed; what tasks share is left.

    Raises
    ------
    DataError
        The folder was made for another plan: somebody has renamed it.
    """
    for other in others(plan):
        if is_shared(other):
            log(f"another build of {plan.out} stands unfinished in {other}; remove that folder if"
                " nobody wants it any more")  # fmt: skip
        else:
            log(f"removed what a killed build of {plan.out} had left in {other}")
            shutil.rmtree(other, ignore_errors=True)
    plan.work.mkdir(parents=True, exist_ok=True)
    note = plan.work / "plan.json"
    if not note.is_file():
        write_json(note, plan.asked)
    elif read_json(note) != json.loads(json.dumps(plan.asked)):
        raise DataError(f"{plan.work} was made for another build; remove it")
    if shared:
        (plan.work / SHARED).touch()


def difference(plan: Plan, other: Path) -> str:
    """What another plan asks otherwise, in words."""
    theirs = read_json(other / "plan.json")
    mine = plan.asked
    pairs = [(name, mine[name], theirs.get(name)) for name in mine if name != "settings"]
    asked = theirs.get("settings", {})
    pairs += [(name, value, asked.get(name)) for name, value in mine["settings"].items()
              if name != "metric"]  # fmt: skip
    return ", ".join(f"{name} {_short(there)}, not {_short(here)}"
                     for name, here, there in pairs if here != there)  # fmt: skip


def _short(value: Any) -> str:
    return value[:12] if isinstance(value, str) else str(value)


def learned(plan: Plan) -> tuple[dict[str, Shape], list[Candidate], str]:
    """Learn lists and codes, or read what another part has learned."""
    import faiss

    note = plan.work / "learned.json"
    if not note.is_file():
        kinds, why = kinds_to_try(plan.settings, plan.count, plan.dim)
        if kinds:
            log(f"learning codes for {', '.join(kinds)}")
        found, left_out = learn(plan.sources, kinds, plan.metric, plan.settings)
        for kind, (_, index) in found.items():
            with atomic_path(plan.work / f"{kind}.trained") as temporary:
                faiss.write_index(index, str(temporary))
        write_json(note, {"shapes": {kind: asdict(shape) for kind, (shape, _) in found.items()},
                          "left_out": [asdict(each) for each in left_out], "why": why})  # fmt: skip
    known = read_json(note)
    shapes = {kind: Shape(**shape) for kind, shape in known["shapes"].items()}
    return shapes, [Candidate(**each) for each in known["left_out"]], known["why"]


def part_files(plan: Plan, part: Part) -> tuple[int, int]:
    """First and last + 1 of the files of a part: neighbours, so that rows keep their order."""
    index, number = part
    edges = np.linspace(0, len(plan.sources), number + 1).round().astype(int)
    return int(edges[index - 1]), int(edges[index])


def part_name(part: Part) -> str:
    """Name of what a part leaves, without ending."""
    return f"part-{part[0]}-of-{part[1]}"


def is_done(plan: Plan, part: Part) -> bool:
    """Whether a part is complete."""
    return (plan.work / f"{part_name(part)}.json").is_file()


def _header(plan: Plan) -> bytes:
    text = io.BytesIO()
    shape = (plan.count, plan.dim)
    about = {"descr": "<f4", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(text, about)
    return text.getvalue()


def encode(plan: Plan, part: Part, shapes: dict[str, Shape]) -> None:
    """Write the vectors and codes of one part."""
    import faiss

    if is_done(plan, part):
        return
    low, high = part_files(plan, part)
    first, header = starts(plan.sources), _header(plan)
    filling = {kind: copy_of(faiss.read_index(str(plan.work / f"{kind}.trained")))
               for kind in shapes}  # fmt: skip
    target = plan.work / "vectors.npy"
    handle = os.open(target, os.O_RDWR | os.O_CREAT, 0o666)
    with os.fdopen(handle, "r+b") as file:
        file.write(header)
        for number in range(low, high):
            source = plan.sources[number]
            for start_, vectors in blocks(source, plan.settings.block, plan.metric):
                row = first[number] + start_
                file.seek(len(header) + 4 * plan.dim * row)
                file.write(np.ascontiguousarray(vectors, "<f4").data)
                for index in filling.values():
                    add(index, vectors, row)
    fsync_file(target)
    for kind, index in filling.items():
        with atomic_path(plan.work / f"{part_name(part)}.{kind}") as temporary:
            faiss.write_index(index, str(temporary))
    write_json(plan.work / f"{part_name(part)}.json", {"rows": first[high] - first[low]})


def missing(plan: Plan, number: int) -> list[str]:
    """Parts of `number` that are not complete."""
    return [f"{index}/{number}" for index in range(1, number + 1)
            if not is_done(plan, (index, number))]  # fmt: skip


def joined(plan: Plan, kind: str, number: int) -> Any:
    """The codes of all parts in one index, in the order of the rows."""
    import faiss

    whole = faiss.read_index(str(plan.work / f"{part_name((1, number))}.{kind}"))
    for index in range(2, number + 1):
        other = faiss.read_index(str(plan.work / f"{part_name((index, number))}.{kind}"))
        whole.merge_from(other, 0)
    return whole


def prepared(plan: Plan) -> Vectors:
    """All prepared vectors, mapped."""
    vectors: Vectors = np.load(plan.work / "vectors.npy", mmap_mode="r", allow_pickle=False)
    return vectors
