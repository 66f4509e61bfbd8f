"""Many linear SVMs in one batched Newton solve of the primal squared hinge.

Every pass over the samples is one matrix product for all problems. Newton's
system is solved by conjugate gradients (Keerthi & DeCoste 2005, JMLR 6, 341),
preconditioned by the eigenvectors of the Gram matrix, which all problems share,
with the eigenvalues scaled by each problem's share of active samples.
"""

from __future__ import annotations

import numpy as np
import torch

from sunpipe.latent.direction import Floats

Tensor = torch.Tensor

TOLERANCE = 1e-5  # of the gradient at zero
ACCEPTED = 1e-3  # where float32 rounding may stop the descent
NEWTON_STEPS = 60
CG_STEPS = 80
HALVINGS = 20


class _Problem:
    """Samples with a column of ones, and T weighted labelings of them."""

    def __init__(self, x: Tensor, weights: Tensor, c: float) -> None:
        self.a = torch.cat([x, torch.ones_like(x[:, :1])], dim=1)
        self.sign, self.size, self.c = weights.sign(), weights.abs(), c
        values, self.q = torch.linalg.eigh((self.a.T @ self.a).double())
        self.values = values.clamp(min=0).to(x.dtype)
        self.q = self.q.to(x.dtype)

    def columns(self, keep: Tensor) -> None:
        self.sign, self.size = self.sign[:, keep], self.size[:, keep]

    def slack(self, margins: Tensor) -> Tensor:
        return (1 - self.sign * margins).clamp(min=0)

    def objective(self, v: Tensor, margins: Tensor) -> Tensor:
        loss = (self.size * self.slack(margins).square()).sum(dim=0)
        return v.square().sum(dim=0) / 2 + self.c * loss

    def gradient(self, v: Tensor, margins: Tensor) -> Tensor:
        return v - 2 * self.c * (self.a.T @ (self.size * self.sign * self.slack(margins)))

    def newton_direction(self, gradient: Tensor, margins: Tensor, accuracy: Tensor) -> Tensor:
        """Solve ``(I + 2 c A^T S A) p = -gradient`` with S the active weights."""
        active = self.size * (self.slack(margins) > 0)
        diagonal = 1 + 2 * self.c * self.values[:, None] * active.mean(dim=0)

        def precondition(r: Tensor) -> Tensor:
            return self.q @ ((self.q.T @ r) / diagonal)

        p, r = torch.zeros_like(gradient), -gradient
        z = precondition(r)
        d, rz = z.clone(), (r * z).sum(dim=0)
        goal = accuracy * gradient.norm(dim=0)
        for _ in range(CG_STEPS):
            hd = d + 2 * self.c * (self.a.T @ (active * (self.a @ d)))
            running = r.norm(dim=0) > goal
            alpha = torch.where(running, rz / (d * hd).sum(dim=0).clamp(min=1e-30), 0.0)
            p, r = p + alpha * d, r - alpha * hd
            if not bool((r.norm(dim=0) > goal).any()):
                break
            z = precondition(r)
            new = (r * z).sum(dim=0)
            d, rz = z + (new / rz.clamp(min=1e-30)) * d, new
        return p

    def step_length(
        self, v: Tensor, margins: Tensor, p: Tensor, ap: Tensor, slope: Tensor
    ) -> Tensor:
        """Largest of 1, 1/2, 1/4 ... that lowers the objective enough; 0 when none does."""
        start = self.objective(v, margins)
        length, chosen = torch.ones_like(start), torch.zeros_like(start)
        for _ in range(HALVINGS):
            lower = self.objective(v + length * p, margins + length * ap)
            good = (chosen == 0) & (lower <= start + 1e-4 * length * slope)
            chosen = torch.where(good, length, chosen)
            if bool((chosen > 0).all()):
                break
            length = length / 2
        return chosen


def newton_svc(
    x: Floats, weights: Floats, c: float, device: str | torch.device | None = None
) -> tuple[Floats, Floats]:
    """Solve T linear SVMs at once; the objective is that of `sunpipe.latent.svm.fit_svm`.

    Parameters
    ----------
    x : ndarray, shape (N, D)
        Standardised samples; the work is done in float32.
    weights : ndarray, shape (T, N)
        Sign is the class, magnitude the weight of the sample, 0 leaves it out.
    c : float
    device : optional
        The GPU when there is one.

    Returns
    -------
    coefficients (T, D), intercepts (T,)
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    a = torch.as_tensor(np.asarray(x, np.float32), device=device)
    s = torch.as_tensor(np.asarray(weights, np.float32).T.copy(), device=device)
    used = s.ne(0).any(dim=1)
    problem = _Problem(a[used], s[used], c)
    solution = torch.zeros(x.shape[1] + 1, len(weights), device=device)
    v = solution.clone()
    place = torch.arange(len(weights), device=device)
    margins = problem.a @ v
    first = None
    for _ in range(NEWTON_STEPS):
        gradient = problem.gradient(v, margins)
        norm = gradient.norm(dim=0)
        first = norm.clamp(min=1e-30) if first is None else first
        share = norm / first
        p = problem.newton_direction(gradient, margins, (share.sqrt() / 10).clamp(max=0.1))
        ap = problem.a @ p
        length = problem.step_length(v, margins, p, ap, (gradient * p).sum(dim=0))
        v, margins = v + length * p, margins + length * ap
        stuck = length == 0
        if bool((stuck & (share > ACCEPTED)).any()):
            raise RuntimeError("the SVM solver did not converge; use directions.solver = 'sklearn'")
        solution[:, place] = v
        running = (share > TOLERANCE) & ~stuck
        if not bool(running.any()):
            break
        if not bool(running.all()):
            v, margins, first = v[:, running], margins[:, running], first[running]
            place = place[running]
            problem.columns(running)
    found = solution.double().cpu().numpy()
    return found[:-1].T.copy(), found[-1].copy()
