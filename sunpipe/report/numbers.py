"""Numbers as a reader of a paper expects them: significant digits, powers of ten, units."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable

SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
SPACE = "\u00a0"  # keeps a number and its unit on one line
MINUS = "\u2212"
DASH = "\u2013"


def power(exponent: int) -> str:
    """``10²¹``."""
    return "10" + str(exponent).translate(SUPERSCRIPT)


def number(value: float | None, digits: int = 3) -> str:
    """`value` with `digits` significant digits; a dash when undefined.

    Plain from 0.001 to 99 999, else with a power of ten.
    """
    if value is None or not math.isfinite(value):
        return DASH
    if value == 0:
        return "0"
    rounded = float(f"{value:.{digits - 1}e}")
    exponent = math.floor(math.log10(abs(rounded)))
    if -4 < exponent < 5:
        text = f"{rounded:.{max(0, digits - 1 - exponent)}f}"
    else:
        text = f"{rounded / 10.0**exponent:.{digits - 1}f}{SPACE}×{SPACE}{power(exponent)}"
    return text.replace("-", MINUS)


def pretty(unit: str) -> str:
    """A unit for people: ``G^2/m`` becomes ``G²/m``."""
    return re.sub(r"\^(-?\d+)", lambda match: match[1].translate(SUPERSCRIPT), unit)


def with_unit(value: float | None, unit: str, digits: int = 3) -> str:
    """``2.71 × 10²² Mx``; the unit is left out with an undefined value."""
    text = number(value, digits)
    if text == DASH or not unit:
        return text
    return f"{text}{SPACE}{pretty(unit)}"


def signed(value: float | None, unit: str = "", digits: int = 3) -> str:
    """`with_unit` that shows a plus as well."""
    text = with_unit(value, unit, digits)
    return f"+{text}" if value is not None and math.isfinite(value) and value > 0 else text


def percent(share: float | None, decimals: int = 1) -> str:
    """``96.3 %``; no minus before a zero."""
    if share is None or not math.isfinite(share):
        return DASH
    text = f"{100 * share:.{decimals}f}"
    return (text.lstrip("-") if float(text) == 0 else text).replace("-", MINUS) + f"{SPACE}%"


def fixed(value: float | None, decimals: int = 2) -> str:
    """A coefficient: fixed decimals, no minus before a zero; 3 digits from 100 on."""
    if value is None or not math.isfinite(value):
        return DASH
    if abs(value) >= 100:
        return number(value)
    text = f"{value:.{decimals}f}"
    return (text.lstrip("-") if float(text) == 0 else text).replace("-", MINUS)


def plus_minus(mean: float | None, spread: float | None, unit: str = "") -> str:
    """``7.452 ± 0.093``: two digits of the error, and as many decimals of the value."""
    whole = (x is not None and math.isfinite(x) for x in (mean, spread))
    if not all(whole) or mean is None or not spread or not 1e-4 < abs(spread) < 1e5:
        return with_unit(mean, unit)
    decimals = max(0, 1 - math.floor(math.log10(abs(float(f"{spread:.1e}")))))
    text = f"{mean:.{decimals}f} ± {spread:.{decimals}f}".replace("-", MINUS).replace(" ", SPACE)
    return f"{text}{SPACE}{pretty(unit)}" if unit else text


def duration(seconds: float | None) -> str:
    """``12.3 s``, ``4 min 05 s``, ``2 h 10 min``."""
    if seconds is None or not math.isfinite(seconds):
        return DASH
    if seconds < 59.95:
        return f"{seconds:.1f}{SPACE}s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60}{SPACE}min {whole % 60:02d}{SPACE}s"
    return f"{whole // 3600}{SPACE}h {whole % 3600 // 60:02d}{SPACE}min"


def size(count: float) -> str:
    """Bytes in decimal units."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:.0f}{SPACE}{unit}" if unit == "B" else f"{count:.1f}{SPACE}{unit}"
        count /= 1000
    raise AssertionError("unreachable")


def axis_scale(values: Iterable[float], unit: str) -> tuple[float, str]:
    """Factor and label for an axis: large or tiny values are shown in a power of ten.

    Returns
    -------
    factor : float
        Divide the values by it.
    label : str
        ``10²¹ Mx``.
    """
    top = max((abs(value) for value in values if math.isfinite(value)), default=0.0)
    exponent = math.floor(math.log10(top)) if top > 0 else 0
    if -3 < exponent < 5:
        return 1.0, pretty(unit)
    return 10.0**exponent, f"{power(exponent)} {pretty(unit)}".strip()
