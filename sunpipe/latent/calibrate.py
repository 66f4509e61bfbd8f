"""What a step is worth: measured value against step, and walking to an asked change."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from sunpipe.latent.direction import Floats

TOLERANCE = 0.05  # of the asked change
AIM = 0.01  # where the search stops
STRIDE = 0.25  # standard deviations; a crossing between two strides is found
AT_ONCE = 4  # positions looked at together
REFINEMENTS = 24


def response(steps: Floats, values: Floats) -> Floats:
    """Change per step of each base: the median slope over all pairs of steps.

    Theil's estimator (1950, Proc. Kon. Ned. Akad. Wet. A 53, 386): a walk that
    leaves what the generator was trained on may blow up at its ends, and must
    not decide the slope by that.

    Parameters
    ----------
    steps : ndarray, shape (K,)
    values : ndarray, shape (B, K) or (B, K, Q)

    Returns
    -------
    ndarray, shape (B,) or (B, Q)
        NaN where fewer than two thirds of the steps have a value.
    """
    values = np.where(np.isfinite(values), values, np.nan)
    first, second = np.triu_indices(len(steps), k=1)
    gaps = (steps[second] - steps[first]).reshape(-1, *[1] * (values.ndim - 2))
    slopes = (values[:, second] - values[:, first]) / gaps
    defined = np.isfinite(values).mean(axis=1) >= 2 / 3
    found = np.full(defined.shape, np.nan)
    found[defined] = np.nanmedian(np.moveaxis(slopes, 1, -1)[defined], axis=-1)
    return found


def finite(values: Floats) -> list[float | None]:
    """Numbers for JSON: None where undefined."""
    return [float(value) if np.isfinite(value) else None for value in values]


def curve(steps: Floats, values: Floats) -> dict[str, Any]:
    """Calibration curve of one walk: JSON-able.

    Parameters
    ----------
    steps : ndarray, shape (K,)
    values : ndarray, shape (B, K)
        The target quantity; NaN is left out.

    Returns
    -------
    dict
        ``steps, median, p16, p84`` (K each), ``undefined`` (share of values),
        ``monotone``: whether the median rises at every step, ``rising_share``:
        share of the bases whose own value rises at every step.
    """
    shown = np.full((3, len(steps)), np.nan)
    for number, column in enumerate(values.T):
        if np.isfinite(column).any():
            shown[:, number] = np.percentile(column[np.isfinite(column)], [16, 50, 84])
    rises = np.diff(values, axis=1) > 0
    return {
        "steps": [float(step) for step in steps],
        "median": finite(shown[1]),
        "p16": finite(shown[0]),
        "p84": finite(shown[2]),
        "undefined": float(np.mean(~np.isfinite(values))),
        "monotone": bool(np.all(np.diff(shown[1]) > 0)),
        "rising_share": float(np.mean(rises.all(axis=1))),
    }


class Found(NamedTuple):
    """Where a walk to an asked change came to.

    Attributes
    ----------
    step : float
        Position, in standard deviations of w along the direction.
    before, after : float
        Measured at 0 and at `step`.
    reached : bool
        Whether the change is within `TOLERANCE` of what was asked.
    reason : str
        Why not; empty when reached.
    """

    step: float
    before: float
    after: float
    reached: bool
    reason: str


Measure = Callable[[Floats], Floats]


def _march(measure: Measure, before: float, goal: float, side: float, end: float) -> Any:
    """Stride outward until the goal is passed: (bracket or None, best (step, value), ended)."""
    last, best = (0.0, before), (0.0, before)
    strides = np.arange(1, int(np.floor(end / STRIDE)) + 1) * STRIDE
    if len(strides) == 0 or strides[-1] < end:
        strides = np.append(strides, end)
    for start in range(0, len(strides), AT_ONCE):
        steps = side * strides[start : start + AT_ONCE]
        for step, value in zip(steps, measure(steps), strict=True):
            if not np.isfinite(value):
                return None, best, f"the quantity is undefined from step {step:.2f} on"
            if abs(value - goal) < abs(best[1] - goal):
                best = (float(step), float(value))
            if (value - goal) * (before - goal) <= 0:
                return (last, (float(step), float(value))), best, ""
            last = (float(step), float(value))
    return None, best, f"the walk ends at step {side * end:.2f}, where the sampled latents end"


def _refine(measure: Measure, bracket: Any, best: Any, goal: float, aim: float) -> Any:
    """Secant steps kept inside the bracket, halving it when they stall."""
    (a, fa), (b, fb) = bracket
    for turn in range(REFINEMENTS):
        if abs(best[1] - goal) <= aim:
            break
        share = 0.5 if turn % 2 or fb == fa else float(np.clip((goal - fa) / (fb - fa), 0.05, 0.95))
        step = a + share * (b - a)
        value = float(measure(np.array([step]))[0])
        if not np.isfinite(value):
            break
        if abs(value - goal) < abs(best[1] - goal):
            best = (step, value)
        if (value - goal) * (fa - goal) <= 0:
            b, fb = step, value
        else:
            a, fa = step, value
    return best


def seek(
    measure: Measure, before: float, change: float, low: float, high: float, sign: int = 1
) -> Found:
    """Walk until a measured value has changed by `change`.

    Strides outward from 0, to the side on which `change` is expected, until the
    value passes the goal, then closes in by secant and bisection.

    Parameters
    ----------
    measure : callable
        Steps (K,) to measured values (K,).
    before : float
        Value at step 0, finite.
    change : float
        Not 0.
    low, high : float
        The walk stays in ``low <= step <= high``; where they leave no room it
        does not move.
    sign : int
        1 where positive steps raise the value, -1 where they lower it.
    """
    goal, side = before + change, float(np.sign(change)) * sign
    end = max(high if side > 0 else -low, 0.0)
    if end == 0.0:
        return Found(0.0, before, before, False, "the walk ends where it begins: this latent is"
                     " already at the end of the sampled ones")  # fmt: skip
    bracket, best, ended = _march(measure, before, goal, side, end)
    if bracket is not None:
        best = _refine(measure, bracket, best, goal, AIM * abs(change))
    reached = abs(best[1] - goal) <= TOLERANCE * abs(change)
    if not reached and bracket is not None:
        ended = f"the value jumps over the goal near step {best[0]:.3f}"
    elif not reached and best[0] == 0.0:
        ended += "; the quantity did not move towards the goal on the way"
    return Found(best[0], before, best[1], reached, "" if reached else ended)
