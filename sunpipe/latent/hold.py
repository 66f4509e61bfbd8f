"""Walking by measurement: a path that changes one quantity and keeps others.

A straight walk follows one direction for the whole cloud of latents. Where a quantity
folds over the cloud, or two go together, the direction that helps differs from
place to place. Here every stride is measured first: the response of the target and of
the held quantities to small steps along a handful of axes, by central differences. The
stride is the shortest one, in the metric of the cloud of sampled latents, that changes the
target as wanted and takes back what the held ones have drifted (a minimum-norm
least-squares solve), and it is made only as long as what is measured at its end agrees.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sunpipe.errors import DataError
from sunpipe.latent.axes import Axes, pad
from sunpipe.latent.calibrate import AIM, TOLERANCE, response
from sunpipe.latent.direction import Floats

PROBES = 32  # axes along which the response is measured, at most
SCALES = (0.1, 0.3, 0.03)  # lengths of a probing step, standard deviations of the cloud
LONGEST = 0.4  # of a stride, same unit
FRACTIONS = 0.5 ** np.arange(8)  # of a stride, measured together; the best that holds is made
STRIDES = 100
LEAST_GAIN = 0.001  # of the asked change; a stride that gains less ends the walk
NOTHING = 1e-3  # relative size below which an axis depends on the axes before it
FLAT = 1e-9  # of the largest variance: less is rounding, and no way to walk
CORRECTIONS = 2  # of the drift, within a stride

Measure = Callable[[Floats], Floats]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Whitened:
    """The cloud of sampled latents, in which a unit of length is one standard deviation.

    Attributes
    ----------
    mean : ndarray, shape (D,)
    axes : ndarray, shape (R, D)
        One standard deviation along each principal axis, the longest first; R <= D.
    """

    mean: Floats
    axes: Floats

    @classmethod
    def of(cls, x: NDArray[np.floating], movable: Bools) -> Whitened:
        """The cloud of samples (N, D), with axes over the columns that may move, (D,) bool.

        Axes along which the samples do not vary are left out.

        Raises
        ------
        DataError
            None is left.
        """
        found = Axes.of(x, movable)
        kept = found.variances > FLAT * found.variances[-1]
        if not kept.any():
            raise DataError("the sampled latents do not vary; there is no way to walk")
        axes = (found.vectors[:, kept] * np.sqrt(found.variances[kept])).T[::-1]
        return cls(x.mean(axis=0, dtype=np.float64), pad(axes, movable))

    def whiten(self, moves: Floats) -> Floats:
        """Displacements (..., D) in standard deviations along the axes, (..., R)."""
        return np.asarray(moves) @ (self.axes / np.sum(self.axes**2, axis=1, keepdims=True)).T

    def probes(self, directions: Sequence[Floats], count: int = PROBES) -> Floats:
        """Orthonormal axes to probe, (P, R): those of `directions` (D,), then principal axes."""
        wanted = [self.whiten(each) for each in directions]
        wanted += list(np.eye(len(self.axes))[:count])
        found: list[Floats] = []
        for each in wanted:
            rest = each / np.linalg.norm(each)
            for _ in range(2):  # once more: rounding
                for other in found:
                    rest = rest - (rest @ other) * other
            if np.linalg.norm(rest) > NOTHING and len(found) < count:
                found.append(rest / np.linalg.norm(rest))
        return np.stack(found)

    def place(self, base: Floats, travelled: Floats) -> float:
        """Distance from the mean along the whole displacement (R,) of a walk from `base`."""
        length = float(np.linalg.norm(travelled))
        if length == 0:
            return 0.0
        return float((self.whiten(base - self.mean) + travelled) @ travelled) / length


@dataclass(frozen=True)
class Path:
    """A measured walk.

    Attributes
    ----------
    x : ndarray, shape (K, D)
        Latents after each stride, the start first.
    values : ndarray, shape (K, Q)
        Measured there.
    steps : ndarray, shape (K,)
        Length of the way so far, in standard deviations of the cloud.
    reached : bool
        Whether the target changed as asked, within `calibrate.TOLERANCE`.
    reason : str
        Why not; empty when reached.
    """

    x: Floats
    values: Floats
    steps: Floats
    reached: bool
    reason: str


@dataclass(frozen=True)
class Goal:
    """What a walk is to do.

    Attributes
    ----------
    target : int
        Column of the quantity to change.
    change : float
        By how much, not 0.
    held : tuple of int
        Columns of the quantities to keep.
    tolerance : ndarray, shape (len(held),)
        How far each may drift from its value at the start.
    names : tuple of str
        Of all columns, for messages.
    """

    target: int
    change: float
    held: tuple[int, ...]
    tolerance: Floats
    names: tuple[str, ...]

    def drift(self, values: Floats, start: Floats) -> Floats:
        """Drift of the held quantities (..., H) in units of their tolerance."""
        held = list(self.held)
        return (values[..., held] - start[held]) / self.tolerance

    def holds(self, values: Floats, start: Floats) -> Bools:
        """Where everything held is within its tolerance and nothing is undefined."""
        drift = np.abs(self.drift(values, start))
        return np.asarray(np.all(drift <= 1, axis=-1) & np.isfinite(values[..., self.target]))


def jacobian(measure: Measure, x: Floats, moves: Floats, goal: Goal, scale: float) -> Floats:
    """Response (1 + H, P) of the target and the held to unit coefficients of `moves` (P, D).

    The median slope between five points of each axis (`calibrate.response`): quantities over
    a mask jump when a pixel enters it, and one jump must not pass for a slope. The target
    is in units of the asked change, the held of their tolerance; 0 where undefined.
    """
    steps = scale * np.array([-1.0, -0.5, 0.0, 0.5, 1.0])
    beside = steps[[0, 1, 3, 4], None, None]
    values = measure(np.concatenate([x[None], (x + beside * moves).reshape(-1, len(x))]))
    values = values[:, [goal.target, *goal.held]]
    around = values[1:].reshape(4, len(moves), -1)
    here = np.broadcast_to(values[0], around[:1].shape)
    values = np.concatenate([around[:2], here, around[2:]])
    slopes = response(steps, np.moveaxis(values, 0, 1)).T
    slopes = slopes / np.array([abs(goal.change), *goal.tolerance])[:, None]
    return np.where(np.isfinite(slopes), slopes, 0.0)


def ahead(slopes: Floats, gain: float) -> Floats | None:
    """Shortest coefficients (P,) that gain `gain` and leave the held alone, or None.

    The target's response without what the held respond to as well: a projection by least
    squares, so that held quantities which are nearly one do no harm.
    """
    free = slopes[0].copy()
    if len(slopes) > 1:
        free -= slopes[1:].T @ np.linalg.lstsq(slopes[1:].T, slopes[0], rcond=1e-4)[0]
    strength = float(free @ free)
    if strength <= NOTHING**2 * float(slopes[0] @ slopes[0]):
        return None
    move = free * (gain / strength)
    return move * min(1.0, LONGEST / float(np.linalg.norm(move)))


def correct(measure: Measure, here: Floats, moves: Floats, tries: Floats, slopes: Floats,
            goal: Goal, start: Floats) -> tuple[Floats, Floats]:  # fmt: skip
    """Take the drift of the held back, the target left where it is: (tries, values).

    Newton steps with the response of the stride's beginning, as constraints are restored in
    molecular dynamics (Ryckaert et al. 1977, J. Comput. Phys. 23, 327); a try keeps the
    least drift it had.
    """
    found = measure(here + tries @ moves)
    if len(slopes) == 1:
        return tries, found
    inverse = np.linalg.pinv(slopes, rcond=1e-3)[:, 1:]
    worst = np.max(np.abs(goal.drift(found, start)), axis=1)
    for _ in range(CORRECTIONS):
        drift = goal.drift(found, start)
        back = -np.where(np.isfinite(drift), drift, 0.0) @ inverse.T
        size = np.linalg.norm(back, axis=1, keepdims=True)
        new = tries + back * np.minimum(1.0, LONGEST / np.maximum(size, 1e-12))
        values = measure(here + new @ moves)
        drifted = np.max(np.abs(goal.drift(values, start)), axis=1)
        better = drifted < np.where(np.isfinite(worst), worst, np.inf)
        tries = np.where(better[:, None], new, tries)
        found = np.where(better[:, None], values, found)
        worst = np.where(better, drifted, worst)
    return tries, found


def follow(
    measure: Measure, base: Floats, cloud: Whitened, directions: Sequence[Floats], goal: Goal,
    reach: float, poll: Callable[[], None] = lambda: None,
) -> Path:  # fmt: skip
    """Walk from `base` by measured responses until the goal, or until it cannot go on.

    Parameters
    ----------
    measure : callable
        Latents (K, D) to values (K, Q).
    base : ndarray, shape (D,)
    cloud : Whitened
    directions : sequence of ndarray, shape (D,)
        Directions that are worth probing; principal axes are added.
    goal : Goal
    reach : float
        The walk ends this many standard deviations from the mean of the cloud, along the
        whole displacement.
    poll : callable
        Called before every stride; may raise.
    """
    axes = cloud.probes(directions)
    moves = axes @ cloud.axes
    start = measure(base[None])[0]
    x, values, length = [base], [start], [0.0]
    reason, scale, failed = f"{STRIDES} strides did not reach the goal", 0, 0
    for _ in range(STRIDES):
        poll()
        here, now = x[-1], values[-1]
        left = float((start[goal.target] + goal.change - now[goal.target]) / abs(goal.change))
        if abs(left) <= AIM:
            break
        slopes = jacobian(measure, here, moves, goal, SCALES[scale])
        move = ahead(slopes, left)
        if move is None:
            why = f"from step {length[-1]:.2f} on {_apart(goal)}"
        else:
            tries, found = correct(
                measure, here, moves, FRACTIONS[:, None] * move, slopes, goal, start
            )
            travelled = cloud.whiten(here - base) + tries @ axes
            inside = np.array([cloud.place(base, each) <= reach for each in travelled])
            holding = goal.holds(found, start)
            missing = np.abs(start[goal.target] + goal.change - found[:, goal.target])
            missing = missing / abs(goal.change)
            good = holding & inside & (missing < abs(left) - LEAST_GAIN)
            why = _why(goal, found, start, inside, holding, length[-1])
        if move is None or not good.any():
            reason, scale, failed = why, (scale + 1) % len(SCALES), failed + 1
            if failed == len(SCALES):
                break
            continue
        best, failed = int(np.argmin(np.where(good, missing, np.inf))), 0
        x.append(here + tries[best] @ moves)
        values.append(found[best])
        length.append(length[-1] + float(np.linalg.norm(tries[best])))
    done = abs(values[-1][goal.target] - start[goal.target] - goal.change)
    reached = bool(done <= TOLERANCE * abs(goal.change))
    return Path(np.stack(x), np.stack(values), np.array(length), reached, "" if reached else reason)


def _apart(goal: Goal) -> str:
    """What to say when nothing moves the target alone."""
    name = goal.names[goal.target]
    if not goal.held:
        return f"no step changes {name}"
    return f"whatever changes {name} moves {', '.join(goal.names[i] for i in goal.held)} too"


def _why(
    goal: Goal, found: Floats, start: Floats, inside: Bools, holding: Bools, step: float
) -> str:
    """Why no fraction of a stride can be made."""
    name = goal.names[goal.target]
    if not inside.any():
        return f"the walk ends at step {step:.2f}, where the sampled latents end"
    if goal.held and not (holding & inside).any():
        drift = np.abs(goal.drift(found[-1], start))
        worst = goal.names[goal.held[int(np.nanargmax(np.nan_to_num(drift, nan=np.inf)))]]
        return f"from step {step:.2f} on no stride changes {name} without moving {worst}"
    beside = " while " + ", ".join(goal.names[i] for i in goal.held) + " stay" if goal.held else ""
    return f"from step {step:.2f} on no stride brings {name} nearer to the goal{beside}"
