"""Problems of one set of samples, solved together in batches that fit a memory budget."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from sunpipe.errors import DataError, SunpipeError
from sunpipe.latent.direction import Floats
from sunpipe.latent.newton import TOLERANCE, Batch, Problems

MEMORY = 2 << 30  # bytes of the weights of one batch
NARROW = 25  # a product with T vectors takes as long as T + NARROW of a wide one (measured)
SHARE = 8  # a descent from nothing begins on every eighth sample
ENOUGH = 4  # of them, for each dimension
ROUGH = 0.05  # tolerance there
OPEN = np.float32(np.inf)


class Solved(NamedTuple):
    """Solutions, and what they cost.

    Attributes
    ----------
    v : ndarray, shape (T, D + 1)
        Coefficients, the intercept last.
    steps : int
        Newton steps of the slowest problem.
    passes : float
        Products of the used samples with one vector, mean over the problems.
    flops : float
        Floating-point operations of all these products.
    """

    v: Floats
    steps: int
    passes: float
    flops: float


def interval(labels: NDArray[np.int8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Bounds of the margins that cost nothing under the hinge: from 1 for +1, up to -1 for -1."""
    top = np.asarray(labels) > 0
    return np.where(top, np.float32(1), -OPEN), np.where(top, OPEN, np.float32(-1))


def tube(targets: Floats, epsilon: float) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Bounds of the margins that cost nothing in a regression; undefined targets give 0."""
    known = np.nan_to_num(np.asarray(targets, np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    return known - np.float32(epsilon), known + np.float32(epsilon)


def check(problems: Problems, dims: int) -> None:
    """Refuse problems from which nothing can be learned, with a `DataError`.

    One class, one target value, or fewer samples (drawn ones, with their weight)
    than dimensions: then anything can be fitted, and the direction means nothing.
    """
    for target, weights in zip(problems.of, problems.weights, strict=True):
        used = weights != 0
        low, high = problems.low[target, used], problems.high[target, used]
        if not used.any() or (low[0] == low.min() == low.max() and high.min() == high.max()):
            what = "one class" if used.any() and np.isinf(high[0] - low[0]) else "one value"
            raise DataError(f"nothing to learn: {what} only among {np.count_nonzero(used)} samples")
        draws = int(weights.sum(dtype=np.float64))
        if draws < dims:
            raise DataError(
                f"only {draws} samples to learn {dims} dimensions from; raise sample.count"
            )


def _batches(problems: Problems, memory: int) -> list[NDArray[np.int64]]:
    """Which problems are solved together.

    All at once as far as memory goes; or those that share a target, where they
    leave out so many samples that fewer rows pay for narrower products.
    """
    groups = [np.flatnonzero(problems.of == target) for target in np.unique(problems.of)]
    used = [int((problems.weights[group] != 0).any(axis=0).sum()) for group in groups]
    total, count = problems.weights.shape[1], len(problems.of)
    apart = sum(rows * (len(group) + NARROW) for rows, group in zip(used, groups, strict=True))
    together = (problems.weights != 0).any(axis=0).sum() * (count + NARROW)
    wanted = groups if apart < together else [np.arange(count)]
    width = max(int(memory // (8 * total)), 1)
    return [part for group in wanted
            for part in np.array_split(group, -(-len(group) // width))]  # fmt: skip


class Design:
    """Standardised samples on a device, and the Gram matrix that preconditions their problems.

    Parameters
    ----------
    x : ndarray, shape (N, D)
        Finite; columns of about unit scale. The work is done in float32, and for
        problems that its rounding keeps from their solution in float64.
    device : optional
        The GPU when there is one.

    Raises
    ------
    DataError
        When a value is not finite.
    """

    def __init__(self, x: Floats, device: str | torch.device | None = None) -> None:
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self.a = torch.ones(len(x), x.shape[1] + 1, device=device)
        self.a[:, :-1] = torch.as_tensor(np.asarray(x, np.float32), device=device)
        bad = int((~torch.isfinite(self.a.sum(dim=1))).sum())
        if bad:
            raise DataError(f"{bad} of {len(x)} latents are not finite (NaN or infinite)")
        gram = (self.a.T @ self.a).double() / max(len(x), 1)
        values, q = torch.linalg.eigh(gram)
        self.values, self.q = values.clamp(min=0), q

    def solve(
        self,
        problems: Problems,
        start: Floats | None = None,
        tolerance: float = TOLERANCE,
        memory: int = MEMORY,
    ) -> Solved:
        """Solve all the problems, see `sunpipe.latent.newton`.

        Parameters
        ----------
        problems : Problems
        start : ndarray, shape (T, D + 1), optional
            Where the descent begins, such as the solution that replicates are near.
            Without one it begins at the solutions on an eighth of the samples.
        tolerance : float
            Bound of ``|v - v*| / |v|`` where the descent ends.
        memory : int
            Bytes that the weights of one batch may take.

        Returns
        -------
        Solved

        Raises
        ------
        SunpipeError
            When a problem does not converge.
        """
        found = np.zeros((len(problems.of), self.a.shape[1]))
        steps, products, rows_used = 0, 0, 0
        for which in _batches(problems, memory):
            part = problems.take(which)
            rows = np.flatnonzero((part.weights != 0).any(axis=0))
            begin = np.zeros_like(found[which]) if start is None else start[which]
            if start is None and len(rows) >= SHARE * ENOUGH * self.a.shape[1]:
                few = part._replace(c=part.c * SHARE)
                begin, _, spent = self._batch(few, rows[::SHARE], begin, ROUGH)
                products += spent
            found[which], taken, spent = self._batch(part, rows, begin, tolerance)
            steps, products = max(steps, taken), products + spent
            rows_used += len(rows) * len(which)
        passes = products / max(rows_used, 1)
        return Solved(found, steps, passes, 2.0 * products * self.a.shape[1])

    def _batch(
        self, problems: Problems, rows: NDArray[np.int64], begin: Floats, tolerance: float
    ) -> tuple[Floats, int, int]:
        """Solutions of one batch over some rows, its steps, and its products with one sample."""
        a = self.a
        if len(rows) < len(a):
            a = a[torch.as_tensor(rows, device=a.device)]
        batch = Batch(a, rows, problems, self.values, self.q, tolerance)
        start = torch.as_tensor(begin, dtype=a.dtype, device=a.device)
        v, lost = batch.solve(start)
        found, again = v.double().cpu().numpy(), torch.nonzero(lost)[:, 0].cpu().numpy()
        if not len(again):
            return found, batch.steps, batch.products
        # Badly conditioned: what is left is below the rounding of float32.
        part = problems.take(again)
        exact = Batch(a.double(), rows, part, self.values, self.q, tolerance)
        v, lost = exact.solve(torch.as_tensor(found[again], device=a.device))
        if bool(lost.any()):
            raise SunpipeError("the solver did not converge; try directions.solver = 'sklearn'")
        found[again] = v.cpu().numpy()
        return found, batch.steps + exact.steps, batch.products + exact.products
