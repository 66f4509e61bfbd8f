"""TensorBoard: event files in ``<run>/tensorboard``, one more at each start.

An event file is a sequence of records (length, checksum, protocol buffer, checksum).
`SummaryWriter` writes them from a thread of its own, whose errors are tracebacks: here
a row is one event, written where an error is seen.
"""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from sunpipe.train.sinks import Row, numbers

HEAD, TAIL = struct.Struct("<QI"), 4  # length and its checksum; checksum of what follows


def events(file: Path) -> Iterator[Any]:
    """Events of a file, up to where a kill or a full disk has torn it."""
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    from tensorboard.compat.proto.event_pb2 import Event  # type: ignore[import-untyped]

    data, place = file.read_bytes(), 0
    while place + HEAD.size <= len(data):
        size, _ = HEAD.unpack_from(data, place)
        first, place = place + HEAD.size, place + HEAD.size + size + TAIL
        if place > len(data):
            return
        try:
            yield Event.FromString(data[first : first + size])
        except DecodeError:
            return


def _mark(row: Row) -> tuple[str, int] | None:
    """One point of a row: events hold a row, or were written one after the other."""
    return next(((key, int(row["nimg"])) for key in numbers(row)), None)


def lacks(files: Sequence[Path], rows: Sequence[Row]) -> bool:
    """Whether a row is in none of the files, as TensorBoard reads them."""
    from tensorboard.compat.proto.event_pb2 import SessionLog

    wanted = set(filter(None, map(_mark, rows)))
    tags = {tag for tag, _ in wanted}
    found: set[tuple[str, int]] = set()
    for file in files:
        for event in events(file):
            if event.session_log.status == SessionLog.START:  # what was beyond is purged
                found = {point for point in found if point[1] < event.step}
            found.update((v.tag, event.step) for v in event.summary.value if v.tag in tags)
    return not wanted <= found


class TensorboardSink:
    """Scalars over images shown; what is known beyond the start is purged.

    Where something is missing before it, which an earlier start could not write (a full
    disk), all is written anew: points added later would run backwards.

    Parameters
    ----------
    rows : sequence of dict
        Known up to `nimg`.
    """

    def __init__(self, folder: Path, nimg: int, rows: Sequence[Row]) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.compat.proto.summary_pb2 import Summary  # type: ignore[import-untyped]
        from tensorboard.summary.writer import record_writer  # type: ignore[import-untyped]

        self._event, self._summary = Event, Summary
        folder.mkdir(exist_ok=True)
        before = sorted(folder.glob("events.out.tfevents.*"))
        anew = lacks(before, rows)
        for file in before if anew else ():
            file.unlink()
        name = f"events.out.tfevents.{time.time():.6f}.{os.getpid()}"
        self._file = open(folder / name, "ab")  # noqa: SIM115
        self._writer = record_writer.RecordWriter(self._file)
        self._put(file_version="brain.Event:2")
        # the events of `nimg` itself stay: purged are those at this step and later ones
        self._put(step=0 if anew else nimg + 1, session_log=SessionLog(status=SessionLog.START))
        for row in rows if anew else ():
            self.add(row)

    def _put(self, wall_time: float | None = None, **event: Any) -> None:
        stamp = time.time() if wall_time is None else wall_time
        try:
            self._writer.write(self._event(wall_time=stamp, **event).SerializeToString())
            self._file.flush()
        except OSError:
            with suppress(OSError):  # what is left in its buffer is not tried again
                self._file.close()
            raise

    def add(self, row: Row) -> None:
        """One point per number."""
        values = [self._summary.Value(tag=key, simple_value=value)
                  for key, value in numbers(row).items()]  # fmt: skip
        if values:
            self._put(row.get("time"), step=int(row["nimg"]), summary=self._summary(value=values))

    def image(self, nimg: int, path: Path) -> None:
        """Nothing: grids lie beside it as files."""

    def close(self) -> None:
        """Close the file."""
        self._file.close()
