"""The ways a walk can go: straight along a direction, or bent by local responses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from sunpipe.errors import DataError, UsageError
from sunpipe.latent.ask import Asked, Wish
from sunpipe.latent.axes import Axes
from sunpipe.latent.calibrate import TOLERANCE, seek
from sunpipe.latent.direction import Floats, conditional
from sunpipe.latent.directions import SUFFIX, Directions
from sunpipe.latent.hold import Goal, Measure, Whitened, follow
from sunpipe.latent.leakage import natural
from sunpipe.latent.samples import Samples
from sunpipe.stage import log


@dataclass(frozen=True)
class Route:
    """A way through the latents and what is known of its end.

    Attributes
    ----------
    way : {"straight", "bent", "held"}
    nodes : ndarray, shape (K, D)
        Latents on the way, straight lines between them, the start first.
    steps : ndarray, shape (K,)
        Signed position of the nodes: standard deviations along the direction where the way
        is straight, else length in standard deviations of the cloud of latents.
    before, after : ndarray, shape (Q,)
        All quantities at both ends.
    reached : bool
    reason : str
        Why not; empty when reached.
    """

    way: str
    nodes: Floats
    steps: Floats
    before: Floats
    after: Floats
    reached: bool
    reason: str

    def frames(self, count: int) -> tuple[Floats, Floats]:
        """Steps (F,) and latents (F, D) at equal distances on the way; one where it did not go."""
        if self.steps[-1] == self.steps[0]:
            return self.steps[:1], self.nodes[:1]
        at = np.linspace(self.steps[0], self.steps[-1], count)
        order = np.argsort(self.steps)  # of a way against the direction steps fall
        place = self.steps[order]
        x = [np.interp(at, place, column[order]) for column in self.nodes.T]
        return at, np.stack(x, axis=1)


def room(x: Floats, vector: Floats, base: Floats, reach: float) -> tuple[float, float, float]:
    """How far a base can be moved, in standard deviations of the latents along a direction.

    Parameters
    ----------
    x : ndarray, shape (N, D)
        Sampled latents.
    vector, base : ndarray, shape (D,)
    reach : float

    Returns
    -------
    sigma : float
        One standard deviation, in units of the latents.
    low, high : float
        Steps at which the latent is `reach` standard deviations from the mean
        of the samples along the direction.
    """
    along = x @ vector
    sigma = float(along.std())
    place = float((base @ vector - along.mean()) / sigma)
    return sigma, -reach - place, reach - place


def against(directions: Directions, name: str, others: tuple[str, ...], x: Floats) -> Floats:
    """Direction of a quantity with the scores of `others` kept, in the metric of the fit.

    Raises
    ------
    DataError
        Nothing is left.
    """
    normals = [directions.vectors[each + SUFFIX["normal"]] for each in (name, *others)]
    euclidean = directions.about["recipe"]["settings"]["metric"] == "euclidean"
    root = Axes.of(x, directions.space.columns(x.shape[1])).root(isotropic=euclidean)
    found = conditional(normals[0], np.stack(normals[1:]), root)
    if found is None:
        raise DataError(f"nothing of {name}'s direction is left against {', '.join(others)}")
    return found


def direction(asked: Asked, directions: Directions, x: Floats) -> tuple[Floats, int]:
    """The unit vector that is walked, and the sign of the steps that raise the quantity."""
    if asked.quantity is None:
        return directions.vectors[asked.target], 1
    if asked.against:
        return against(directions, asked.quantity, asked.against, x), 1
    vector = directions.vector(asked.quantity, asked.conditional)
    return vector, directions.sign(asked.quantity, asked.kind)


def component(
    asked: Asked, wish: Wish, measure: Measure, base: Floats, x: Floats, vector: Floats,
    reach: float,
) -> Route:  # fmt: skip
    """Walk a principal component by standard deviations; no quantity decides."""
    sigma, low, high = room(x, vector, base, reach)
    step = float(np.clip(wish.amount, min(low, 0.0), max(high, 0.0)))
    reached = step == wish.amount
    why = f"the walk ends at step {step:.2f}, where the sampled latents end"
    nodes = np.stack([base, base + step * sigma * vector])
    before, after = measure(nodes)
    return Route("straight", nodes, np.array([0.0, step]), before, after, reached,
                 "" if reached else why)  # fmt: skip


def _straight(
    measure: Measure, base: Floats, x: Floats, vector: Floats, sign: int, target: int,
    change: float, before: Floats, reach: float,
) -> Route:  # fmt: skip
    sigma, low, high = room(x, vector, base, reach)
    move = vector * sigma

    def values(steps: Floats) -> Floats:
        return measure(base + np.asarray(steps)[:, None] * move)

    start = float(before[target])
    found = seek(lambda steps: values(steps)[:, target], start, change, low, high, sign)
    nodes = np.stack([base, base + found.step * move])
    return Route("straight", nodes, np.array([0.0, found.step]), before, measure(nodes[1:])[0],
                 found.reached, found.reason)  # fmt: skip


def choose(
    asked: Asked, wish: Wish, directions: Directions, samples: Samples, measure: Measure,
    base: Floats, reach: float, poll: Callable[[], None] = lambda: None,
) -> Route:  # fmt: skip
    """Walk as asked.

    Parameters
    ----------
    asked, wish : Asked, Wish
    directions : Directions
    samples : Samples
    measure : callable
        Flat latents (K, D) to all quantities of the samples (K, Q).
    base : ndarray, shape (D,)
    reach : float
        From `DirectionsSettings`.
    poll : callable
        Called often; may raise.

    Raises
    ------
    UsageError
        The quantity has the asked value already.
    DataError
        It, or what is held, is undefined for this latent.
    """
    x = np.asarray(directions.space.latents(samples), np.float64)
    vector, sign = direction(asked, directions, x)
    if asked.quantity is None:
        return component(asked, wish, measure, base, x, vector, reach)
    target, before = samples.names.index(asked.quantity), measure(base[None])[0]
    held = tuple(samples.names.index(name) for name in asked.hold)
    for place in (target, *held):
        if not np.isfinite(before[place]):
            raise DataError(
                f"{samples.names[place]} is undefined for this latent; try another --seed"
            )
    change = float(wish.amount - before[target]) if wish.absolute else wish.amount
    deviations = natural(samples.values)
    if abs(change) <= 1e-9 * abs(wish.amount) or change == 0:
        raise UsageError(f"--to {asked.to}: {asked.quantity} has this value already")
    straight = None
    if not held and asked.path != "bent":
        straight = _straight(measure, base, x, vector, sign, target, change, before, reach)
        # A bent walk would not keep what the direction was made to keep.
        if straight.reached or asked.path == "straight" or asked.conditional or asked.against:
            return straight
        log(f"straight on {straight.reason}; going on by local responses")
    for place in held:
        if not np.isfinite(deviations[place]):
            raise DataError(f"--hold {samples.names[place]}: it does not vary in the samples")
    goal = Goal(target, change, held, asked.hold_tolerance * deviations[list(held)],
                tuple(samples.names))  # fmt: skip
    probes = [vector] + [directions.vector(name) for name in directions.quantities]
    cloud = Whitened.of(x, directions.space.columns(x.shape[1]))
    found = follow(measure, base, cloud, probes, goal, reach, poll)
    bent = Route("held" if held else "bent", found.x, found.steps, found.values[0],
                 found.values[-1], found.reached, found.reason)  # fmt: skip
    if straight is None or bent.reached:
        return bent
    left = [abs(each.after[target] - before[target] - change) for each in (straight, bent)]
    return straight if left[0] <= left[1] + TOLERANCE * abs(change) else bent
