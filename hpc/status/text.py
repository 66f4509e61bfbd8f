"""Words from files and programs, made safe for a terminal."""

from __future__ import annotations

import unicodedata


def acts(one: str) -> bool:
    """Whether a character may do something to a terminal or to the line that it stands in."""
    return unicodedata.category(one) in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")


def visible(text: object) -> str:
    """The whole text on one line, each character that acts on a terminal replaced."""
    return "".join("\ufffd" if acts(one) else one for one in str(text))


def plain(text: object, most: int = 200) -> str:
    """One line without control characters, of at most `most` characters.

    A terminal acts on escape sequences, and names of folders, reasons in JSON files
    and output of programs may hold any.
    """
    words = str(text)[: 4 * most]
    shown = "".join("\ufffd" if acts(one) and one not in "\t\n" else one for one in words)
    line = " ".join(shown.split())
    return line if len(line) <= most else f"{line[: most - 3]}..."


def duration(seconds: float) -> str:
    """``45 s``, ``1:40``, ``3:07:09``, ``2 d 4 h``."""
    whole = round(max(seconds, 0.0))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02d}"
    if whole < 2 * 86400:
        return f"{whole // 3600}:{whole % 3600 // 60:02d}:{whole % 60:02d}"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"
