"""Amounts with a unit, as people write them: ``1e21Mx``, ``-5 deg``, ``2``."""

from __future__ import annotations

import math
import re

from sunpipe.errors import UsageError

_AMOUNT = re.compile(r"\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*(\S.*)?")


def _spelling(unit: str) -> str:
    """One spelling of a unit: no blanks, ``^`` for powers."""
    return unit.replace(" ", "").replace("**", "^").replace("²", "^2").replace("³", "^3")


def parse_amount(text: str, quantity: str, unit: str, option: str = "--by") -> float:
    """Amount of a quantity, in `unit`.

    Parameters
    ----------
    text : str
        A number, followed by the unit or nothing.
    quantity, unit : str
        What it is an amount of, and the unit it is measured in.
    option : {"--by", "--to"}
        A change, which must not be 0, or a value to come to.

    Raises
    ------
    UsageError
        Not a finite number, a change of 0, or another unit: units are not
        converted, so that nothing is guessed.
    """
    match = _AMOUNT.fullmatch(text)
    example = f"1e21{unit}" if unit == "Mx" else f"2{unit}"
    if not match:
        raise UsageError(f"{option} {text!r} is not a number with a unit; write it like {example}")
    if match[2] and _spelling(match[2].strip()) != _spelling(unit):
        raise UsageError(
            f"{quantity} is measured in {unit or 'no unit'}, not {match[2].strip()};"
            f" write it like {example}"
        )
    amount = float(match[1])
    if not math.isfinite(amount):
        raise UsageError(f"{option} {text!r}: the amount must be finite")
    if option == "--by" and amount == 0:
        raise UsageError(f"--by {text!r}: the change must not be 0")
    return amount
