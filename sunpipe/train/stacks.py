"""Where the threads of this process are, asked from one of them."""

from __future__ import annotations

import inspect
import sys
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import sunpipe

OWN = str(Path(sunpipe.__file__).parent)
EXCHANGE = ("/torch/distributed/", "/sunpipe/models/exchange.py")
DEVICE = ("/torch/cuda/",)
WRAPPER = "/train/exchanges.py"  # stands around every exchange
MOST = 60_000  # characters of all stacks of a rank


@dataclass(frozen=True)
class Place:
    """Where one process is.

    Attributes
    ----------
    where : str
        Where the main thread is: the innermost function of ours, and of all.
    exchange : bool
        A thread is inside an exchange between ranks.
    device : bool
        The main thread waits for its device.
    reading : tuple of str
        Files that threads are inside of.
    text : str
        The stacks of all threads, innermost first.
    steps : int
        Done so far.
    """

    where: str
    exchange: bool
    device: bool
    reading: tuple[str, ...]
    text: str
    steps: int

    def as_json(self) -> dict[str, Any]:
        """Plain values, for `from_json`."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Place:
        """What `as_json` gave."""
        return cls(**{**value, "reading": tuple(value["reading"])})


def _frames(frame: FrameType | None) -> Iterator[FrameType]:
    """From the innermost outwards."""
    while frame is not None:
        yield frame
        frame = frame.f_back


def _file(frame: FrameType) -> Path | None:
    """A path that a function of ours works on: its own, or that of its object."""
    if not frame.f_code.co_filename.startswith(OWN):
        return None
    here = frame.f_locals
    own = inspect.getattr_static(here.get("self"), "path", None)  # runs none of its code
    return next((value for value in (here.get("path"), here.get("source"), own)
                 if isinstance(value, Path)), None)  # fmt: skip


def in_exchange() -> bool:
    """Whether a thread of this process is inside an exchange between ranks."""
    mine = threading.get_ident()
    return any(
        any(part in frame.f_code.co_filename for part in EXCHANGE)
        for ident, top in sys._current_frames().items() if ident != mine
        for frame in _frames(top)
    )  # fmt: skip


def _named(frame: FrameType) -> str:
    file = Path(frame.f_code.co_filename)
    return f"{frame.f_code.co_name} ({'/'.join(file.parts[-3:])}:{frame.f_lineno})"


def _ours(frame: FrameType) -> bool:
    file = frame.f_code.co_filename
    return file.startswith(OWN) and not file.endswith(WRAPPER)


def _where(top: FrameType | None) -> str:
    if top is None:
        return "nowhere"
    own = next(filter(_ours, _frames(top)), top)
    return _named(own) if own is top else f"{_named(own)}, in {_named(top)}"


def look(steps: int, waits_for_device: bool = False) -> Place:
    """Where all threads but the caller's are.

    Parameters
    ----------
    waits_for_device : bool
        What the caller knows of it: waits inside of torch's C++ code do not show.
    """
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    # no lines of source: the disk that they are on may be what hangs
    mine, main = threading.get_ident(), threading.main_thread().ident
    tops = {ident: top for ident, top in sys._current_frames().items() if ident != mine}
    parts, reading = [], []
    for ident, frame in sorted(tops.items(), key=lambda item: item[0] != main):
        found = next((path for path in map(_file, _frames(frame)) if path is not None), None)
        if found is not None:
            reading.append(str(found))
        parts.append(f"thread {names.get(ident, ident)}"
                     + (f", at {found}" if found is not None else "")
                     + "\n" + "".join(
                         f"  {f.f_code.co_filename}:{f.f_lineno} in {f.f_code.co_name}\n"
                         for f in _frames(frame)))  # fmt: skip
    top = tops.get(main) if main is not None else None
    return Place(
        where=_where(top), exchange=in_exchange(),
        device=waits_for_device or (top is not None and any(
            part in top.f_code.co_filename for part in DEVICE)),
        reading=tuple(dict.fromkeys(reading)), text="\n".join(parts)[:MOST], steps=steps,
    )  # fmt: skip
