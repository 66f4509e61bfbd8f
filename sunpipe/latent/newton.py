"""Many linear SVMs and support vector regressions in one batched Newton solve.

Every problem is the same: a sample i has an interval in which its margin
``m_i = v . x_i + b`` costs nothing, and beyond it the squared distance to the
interval counts,

    f(v, b) = (|v|^2 + b^2) / 2 + c sum_i s_i dist(m_i, [low_i, high_i])^2 .

``[1, inf)`` and ``(-inf, -1]`` make the squared hinge of two classes,
``[y - eps, y + eps]`` the squared eps-insensitive loss, ``[y, y]`` least squares
(Fan et al. 2008, JMLR 9, 1871, LIBLINEAR; Ho & Lin 2012, JMLR 13, 3323, eq. 5).
f is convex and piecewise quadratic, its Hessian ``I + 2 c A^T S A`` with A the
samples beside a column of ones and S the weights of the samples outside their
interval. Newton's system is solved by conjugate gradients (Keerthi & DeCoste
2005, JMLR 6, 341), preconditioned by the eigenvectors of the Gram matrix, which
all problems share, with its eigenvalues scaled by each problem's share of active
weight. Every pass over the samples is a matrix product for all problems
together, done in blocks of samples that stay in the cache: no margin is stored.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from sunpipe.latent.direction import Floats

Tensor = torch.Tensor
Rows = Tensor | slice

TOLERANCE = 1e-4  # bound of |v - v*| against |v|: a cosine of 1 - 5e-9
ACCEPTED = 5e-3  # where rounding may stop the descent in float64: a cosine of 0.99998
NEAR = 0.05  # distance from which a step of Newton's method halves it at least
NOTHING = 1e-3  # share of the longest v that the objective allows: shorter is none at all
NEWTON_STEPS = 60
CG_STEPS = 100
HALVINGS = 20
CACHE = 1 << 20  # bytes of a block of samples and its margins, for each thread
DEVICE_BLOCK = 1 << 28  # the same on a GPU


class Problems(NamedTuple):
    """T problems over the same N samples.

    Attributes
    ----------
    low, high : ndarray, shape (Q, N)
        Intervals in which a margin costs nothing; infinite where a side is open.
    of : ndarray of int, shape (T,)
        Which row of `low` and `high` each problem uses: replicates share one.
    weights : ndarray, shape (T, N)
        Not negative, of any number type; 0 leaves a sample out.
    c : ndarray, shape (T,)
        Weight of the loss against the length of (v, b).
    """

    low: NDArray[np.float32]
    high: NDArray[np.float32]
    of: NDArray[np.int64]
    weights: NDArray[np.generic]
    c: Floats

    def take(self, which: NDArray[np.int64]) -> Problems:
        """Some of the problems."""
        return self._replace(of=self.of[which], weights=self.weights[which], c=self.c[which])

    def rows(self, rows: NDArray[np.int64]) -> Problems:
        """The problems over some of the samples."""
        if len(rows) == self.weights.shape[1]:
            return self
        return self._replace(
            low=self.low[:, rows], high=self.high[:, rows], weights=self.weights[:, rows]
        )


class Batch:
    """Some problems on a device, over the samples that any of them uses.

    Parameters
    ----------
    a : Tensor, shape (n, D + 1)
        Samples beside a column of ones.
    rows : ndarray of int, shape (n,)
        Which samples of `problems` these are.
    values, q : Tensor
        Eigenvalues and eigenvectors of the mean of ``a_i a_i^T`` over all samples.
    tolerance : float
        Where the descent ends: bound of ``|v - v*| / |v|``.
    """

    def __init__(
        self,
        a: Tensor,
        rows: NDArray[np.int64],
        problems: Problems,
        values: Tensor,
        q: Tensor,
        tolerance: float = TOLERANCE,
    ) -> None:
        self.a, self.tolerance = a, tolerance
        self.values, self.q = values.to(a.dtype), q.to(a.dtype)
        used = np.unique(problems.of)

        def upload(x: NDArray[np.generic]) -> Tensor:
            part = x if len(rows) == x.shape[1] else x[:, rows]
            return torch.as_tensor(np.ascontiguousarray(part), dtype=a.dtype, device=a.device)

        self.low, self.high = upload(problems.low[used]), upload(problems.high[used])
        self.weights = upload(problems.weights)
        self.active = torch.empty_like(self.weights)
        self.mass = torch.zeros_like(self.weights[:, 0])
        self.of = torch.as_tensor(np.searchsorted(used, problems.of), device=a.device)
        self.c = torch.as_tensor(problems.c, dtype=a.dtype, device=a.device)
        self.count, self.steps, self.products = len(self.c), 0, 0
        threads = torch.get_num_threads()
        room = CACHE * threads if a.device.type == "cpu" else DEVICE_BLOCK
        size = max(room // (4 * (self.count + a.shape[1])), 64)
        self.blocks = [slice(at, min(at + size, len(a))) for at in range(0, len(a), size)]

    def _rows(self, which: Tensor) -> Rows:
        """Index of problems: nothing to gather when it is all of them."""
        return slice(None) if len(which) == self.count else which

    def look(self, v: Tensor, which: Tensor) -> tuple[Tensor, Tensor]:
        """Objectives (k,) and gradients (k, D + 1) at v (k, D + 1) of the problems `which` (k,).

        Keeps the active weights for `curve`.
        """
        rows, of, c = self._rows(which), self.of[which], self.c[which]
        loss, pulled = torch.zeros_like(c, dtype=torch.float64), torch.zeros_like(v)
        self.mass[which] = 0
        for block in self.blocks:
            a, weights = self.a[block], self.weights[rows, block]
            margins = v @ a.T
            excess = margins - margins.clamp(self.low[of, block], self.high[of, block])
            pull = torch.mul(weights, excess, out=margins)
            loss += (pull * excess).sum(dim=1)
            pulled.addmm_(pull, a)
            active = excess.ne_(0).mul_(weights)
            self.mass[rows] += active.sum(dim=1)
            self.active[rows, block] = active
        self.products += 2 * len(v) * len(self.a)
        objective = v.double().square().sum(dim=1) / 2 + c * loss
        return objective, v + 2 * c[:, None] * pulled

    def curve(self, d: Tensor, which: Tensor) -> Tensor:
        """Hessian times d (k, D + 1)."""
        rows, bent = self._rows(which), torch.zeros_like(d)
        for block in self.blocks:
            a = self.a[block]
            bent.addmm_((d @ a.T).mul_(self.active[rows, block]), a)
        self.products += 2 * len(d) * len(self.a)
        return d + 2 * self.c[which, None] * bent

    def precondition(self, r: Tensor, which: Tensor) -> Tensor:
        """Solve with the Hessian as it were if the active samples were like all samples."""
        eigenvalues = 1 + 2 * (self.c[which] * self.mass[which])[:, None] * self.values
        return ((r @ self.q) / eigenvalues) @ self.q.T

    def distance(self, v: Tensor, objective: Tensor, gradient: Tensor, which: Tensor) -> Tensor:
        """Bound of the distance from the solution, as a share of |v| (k,).

        The Hessian H is at least the identity, so ``|v - v*| <= sqrt(g . H^-1 g)``
        where f is quadratic; the preconditioner stands for H. Where nothing can be
        learned v* is 0, and the share is of the length that the objective allows.
        """
        decrement = (gradient * self.precondition(gradient, which)).sum(dim=1)
        size = torch.maximum(v.norm(dim=1), NOTHING * (2 * objective).sqrt().to(v.dtype))
        return decrement.clamp(min=0).sqrt() / size.clamp(min=1e-30)

    def newton(self, gradient: Tensor, which: Tensor, distance: Tensor) -> Tensor:
        """Newton's step (k, D + 1), as exact as the distance left makes worth while."""
        p, r = torch.zeros_like(gradient), -gradient
        d = self.precondition(r, which)
        rz = (r * d).sum(dim=1)
        goal = (
            rz * torch.maximum(distance, self.tolerance / distance).div(3).clamp(max=0.1).square()
        )
        left = torch.arange(len(which), device=p.device)
        for _ in range(CG_STEPS):
            hd = self.curve(d, which[left])
            alpha = (rz / (d * hd).sum(dim=1))[:, None]
            p[left] += alpha * d
            r = r - alpha * hd
            z = self.precondition(r, which[left])
            new = (r * z).sum(dim=1)
            d, keep = z + (new / rz)[:, None] * d, new > goal
            rz = new
            if not bool(keep.any()):
                break
            if not bool(keep.all()):
                left, r, d, rz, goal = (x[keep] for x in (left, r, d, rz, goal))
        return p

    def search(
        self, v: Tensor, p: Tensor, objective: Tensor, gradient: Tensor, which: Tensor
    ) -> Tensor:
        """Add the largest of p, p/2, p/4 ... that descends; v and what belongs to it in place.

        A step descends when it lowers the objective enough (Armijo) or halves the
        gradient, which rounding of the objective cannot hide near the solution.

        Returns
        -------
        Tensor of bool, shape (k,)
            True where no step does.
        """
        slope, norm = (gradient * p).sum(dim=1), gradient.norm(dim=1)
        left, length = torch.arange(len(which), device=v.device), 1.0
        for _ in range(HALVINGS):
            tried = v[left] + length * p[left]
            found, turned = self.look(tried, which[left])
            good = found <= objective[left] + 1e-4 * length * slope[left]
            good |= turned.norm(dim=1) <= norm[left] / 2
            v[left[good]], objective[left[good]] = tried[good], found[good]
            gradient[left[good]] = turned[good]
            left, length = left[~good], length / 2
            if not len(left):
                break
        stuck = torch.zeros_like(which, dtype=torch.bool)
        stuck[left] = True
        return stuck

    def solve(self, start: Tensor) -> tuple[Tensor, Tensor]:
        """Descend from `start` (T, D + 1) in all the problems.

        Returns
        -------
        Tensor, shape (T, D + 1)
            Where the descents ended.
        Tensor of bool, shape (T,)
            True where that is far from the solution: rounding let no step descend.
        """
        solution, v = start.clone(), start.clone()
        which = torch.arange(self.count, device=start.device)
        lost = torch.zeros_like(which, dtype=torch.bool)
        rough, previous = v.dtype == torch.float32, torch.full_like(v[:, 0], torch.inf)
        objective, gradient = self.look(v, which)
        for _ in range(NEWTON_STEPS):
            distance = self.distance(v, objective, gradient, which)
            far = distance > self.tolerance
            if not bool(far.any()):
                return solution, lost
            v, objective, gradient, which, distance = (
                x[far] for x in (v, objective, gradient, which, distance)
            )
            p = self.newton(gradient, which, distance)
            stuck = self.search(v, p, objective, gradient, which)
            solution[which] = v
            self.steps += 1
            if rough:  # near the solution each step gains much, or rounding rules it
                stuck |= (distance < NEAR) & (distance > previous[which] / 2)
                previous[which] = distance
            if bool(stuck.any()):
                lost[which] = stuck & (rough | ~(distance <= ACCEPTED))
                v, objective, gradient, which = (x[~stuck] for x in (v, objective, gradient, which))
        lost[which] = True
        return solution, lost
