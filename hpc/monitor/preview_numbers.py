"""Values with the units of the dashboards, and round ticks for their axes."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Sequence

from sunpipe.report.numbers import DASH, MINUS, SPACE

BINARY = ((2.0**40, "TiB"), (2.0**30, "GiB"), (2.0**20, "MiB"), (2.0**10, "KiB"), (1.0, "B"))
TIME = ((86400.0, "d"), (3600.0, "h"), (60.0, "min"), (1.0, "s"))
SHORT = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""))
# Grafana's name of a unit: scales (factor, name), largest first. One scale: never changed.
SCALES: dict[str, tuple[tuple[float, str], ...]] = {
    "short": SHORT, "bytes": BINARY, "dtdurations": TIME,
    "s": ((60.0, "min"), (1.0, "s"), (1e-3, "ms")),
    "Bps": tuple((factor, f"{name}B/s") for factor, name in SHORT),
    "percentunit": ((0.01, "%"),), "percent": ((1.0, "%"),), "celsius": ((1.0, "°C"),),
    "watt": tuple((factor, f"{name}W") for factor, name in SHORT[1:]),
    "kwatth": ((1e3, "MWh"), (1.0, "kWh"), (1e-3, "Wh")),
    "hertz": tuple((factor, f"{name}Hz") for factor, name in SHORT),
    "kimg": ((1.0, "kimg"),),
}  # fmt: skip
TIME_STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600,
              43200, 86400, 172800, 604800)  # fmt: skip


def scale(value: float, unit: str) -> tuple[float, str]:
    """The factor and name in which `value` is best read; an unknown unit is its own name.

    Minutes, hours and days begin at two of them.
    """
    choices = SCALES.get(unit, ((1.0, unit),))
    for factor, name in choices:
        if abs(value) >= factor * (2 if name in ("min", "h", "d") else 1):
            return factor, name
    return choices[-1] if value else next((c for c in choices if c[0] == 1.0), choices[-1])


def text(value: float, unit: str, decimals: int | None = None) -> str:
    """`value` with three significant digits and its unit; a dash when not finite."""
    if not math.isfinite(value):
        return DASH
    if unit == "dtdurations":
        return duration(value)
    factor, name = scale(value, unit)
    shown = value / factor
    if decimals is not None:
        number = f"{shown:.{decimals}f}"
    elif shown == int(shown) and abs(shown) < 1e5:
        number = f"{shown:.0f}"
    else:
        number = f"{shown:.{max(0, 2 - math.floor(math.log10(abs(shown) or 1)))}f}"
        if abs(shown) < 1e-4:
            number = f"{shown:.2e}"
    if "e" not in number and float(number) == 0:
        number = number.lstrip("-")
    return f"{number.replace('-', MINUS)}{SPACE}{name}".rstrip(SPACE)


def duration(seconds: float) -> str:
    """The two largest parts of a time: ``41 s``, ``3 min 20 s``, ``21 h 12 min``, ``3 d 4 h``."""
    whole = round(abs(seconds))
    sign = MINUS if seconds <= -0.5 else ""
    for (factor, name), (smaller, part) in itertools.pairwise(TIME):
        if whole >= factor:
            big, rest = divmod(whole, int(factor))
            return f"{sign}{big}{SPACE}{name} {rest // int(smaller)}{SPACE}{part}"
    return f"{sign}{whole}{SPACE}s"


def plain(value: float, unit: str) -> str:
    """`value` without digits that say nothing, for a limit: ``0.8``, ``20 %``, ``2 h``."""
    factor, name = scale(value, unit)
    return f"{value / factor:g}{SPACE}{name}".replace("-", MINUS).rstrip(SPACE)


def ticks(low: float, high: float, unit: str, count: int = 5) -> list[tuple[float, str]]:
    """Round values from `low` to `high`, about `count`, each with its text."""
    factor, name = scale(max(abs(low), abs(high)), unit)
    span = (high - low) / factor
    rough = span / count
    base = 10.0 ** math.floor(math.log10(rough))
    step = next(base * nice for nice in (1, 2, 2.5, 5, 10) if base * nice >= rough * 0.999)
    if name in ("min", "s", "h", "KiB", "MiB", "GiB") and rough > 5:  # sixties and powers of two
        finer = (10, 15, 20, 30, 60, 120, 128, 256, 512)
        step = next((nice for nice in finer if nice >= rough), step)
    places = max(0, -math.floor(math.log10(step) + 1e-9))
    if round(step, places) != step:
        places += 1
    first = math.ceil(low / factor / step - 1e-6)
    last = math.floor(high / factor / step + 1e-6)
    found = []
    for index in range(first, last + 1):
        number = f"{index * step:.{places}f}".replace("-", MINUS)
        label = f"{number}{SPACE}{name}".rstrip(SPACE) if index else "0"
        found.append((index * step * factor, label))
    return found


def moments(start: float, end: float, count: int = 5) -> list[tuple[float, str]]:
    """Round moments (UTC) from `start` to `end` in unix seconds, each with its text."""
    rough = (end - start) / count
    step = next((each for each in TIME_STEPS if each >= rough), TIME_STEPS[-1])
    form = "%H:%M:%S" if step < 60 else "%H:%M" if step < 43200 else "%b %d"
    first = math.ceil(start / step) * step
    return [(moment, time.strftime(form, time.gmtime(moment)))
            for moment in _steps(first, end, step)]  # fmt: skip


def _steps(first: float, end: float, step: float) -> Sequence[float]:
    return [first + index * step for index in range(math.floor((end - first) / step) + 1)]
