"""The last rows of a growing file of JSON lines, without reading it again."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

WINDOW = 1 << 20  # bytes of the end that the first look reads
ROWS = 2  # kept


class Tail:
    """Follows one file by its inode and the place up to which it was read.

    A file that was replaced (`sunpipe.run.Run.rewind_stats`) or became shorter is
    begun again. A last line without its end is left for the next look.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[dict[str, Any]] = []
        self._inode, self._offset, self._window = -1, 0, WINDOW

    def _begin(self, inode: int, size: int) -> bool:
        """Start near the end; True when that is inside a line."""
        self._inode, self.rows = inode, []
        self._offset = max(size - self._window, 0)
        return self._offset > 0

    def look(self) -> list[dict[str, Any]]:
        """The last rows, oldest first; lines that are no JSON object are left out."""
        inside = False
        try:
            with open(self.path, "rb") as handle:
                stat = os.fstat(handle.fileno())
                behind = stat.st_size - self._offset
                if stat.st_ino != self._inode or not 0 <= behind <= self._window:
                    inside = self._begin(stat.st_ino, stat.st_size)
                handle.seek(self._offset)
                raw = handle.read(stat.st_size - self._offset)
        except FileNotFoundError:
            self._inode, self.rows = -1, []
            return []
        whole = raw[: raw.rfind(b"\n") + 1]
        if inside and whole.count(b"\n") < 2 and self._window < stat.st_size:
            self._window *= 8  # a row is longer than the window
            self._inode = -1
            return self.look()
        self._offset += len(whole)
        lines = whole.splitlines()[1 if inside else 0 :]
        for line in lines[-ROWS:]:
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):  # torn, or nested too deeply
                continue
            if isinstance(row, dict):
                self.rows.append(row)
        self.rows = self.rows[-ROWS:]
        return self.rows
