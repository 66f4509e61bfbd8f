"""Findings as lines: coloured on a terminal, plain otherwise."""

from __future__ import annotations

import shutil
import sys
import textwrap

from hpc.doctor.finding import Finding, worst
from hpc.doctor.place import Place

STYLE = {"OK": "32", "WARN": "33", "MISS": "1;31"}  # SGR colours: ECMA-48
WORDS = {"login": "on a login node", "no slurm": "without Slurm"}


def lines(findings: list[Finding], width: int, colour: bool) -> list[str]:
    """One line per finding and one per fix, wrapped to `width`.

    Parameters
    ----------
    width : int
        Columns; 0: do not wrap.
    """
    room = max((len(one.name) for one in findings), default=0)
    out = []
    for one in findings:
        level = f"{one.level:<4}"
        begin = f"{level}  {one.name:<{room}}  "
        text = _wrap(one.seen, begin, width)
        if colour:
            text[0] = text[0].replace(level, f"\033[{STYLE[one.level]}m{level}\033[0m", 1)
        out += text
        if one.fix:
            out += _wrap(f"fix: {one.fix}", " " * len(begin), width)
    return out


def _wrap(text: str, begin: str, width: int) -> list[str]:
    if not width:
        return [begin + text]
    return textwrap.wrap(text, max(width, len(begin) + 20), initial_indent=begin,
                         subsequent_indent=" " * len(begin), break_on_hyphens=False,
                         break_long_words=False) or [begin.rstrip()]  # fmt: skip


def where(place: Place) -> str:
    """Where this is, in words."""
    if place.where == "allocation":
        count = f"{place.nodes} node{'s' if place.nodes > 1 else ''}"
        return f"inside job {place.env.get('SLURM_JOB_ID')} on {count}"
    return WORDS[place.where]


def show(findings: list[Finding], place: Place, left_out: list[str], seconds: float) -> None:
    """Print everything on stdout."""
    terminal = sys.stdout.isatty()
    width = shutil.get_terminal_size().columns if terminal else 0
    print(f"sunpipe doctor {where(place)}")
    print("\n".join(lines(findings, width, terminal)))
    if left_out:
        print(f"not looked at: {', '.join(left_out)}; they need nodes: sunpipe doctor --srun, or"
              " run it inside a job of two nodes")  # fmt: skip
    count = {level: sum(one.level == level for one in findings) for level in STYLE}
    summary = ", ".join(f"{number} {level}" for level, number in count.items() if number)
    print(f"{summary} in {seconds:.1f} s: "
          + {"OK": "ready", "WARN": "ready, with what is said above",
             "MISS": "not ready"}[worst(findings)])  # fmt: skip
