"""What happens between two status lines of a training."""

from __future__ import annotations

import torch
import torch.distributed as torch_dist

from sunpipe.dist import Ranks
from sunpipe.train.engine import average_over_ranks

# A run whose losses are not finite has diverged; other observations may be undefined.
LOSSES = ("loss_G", "loss_D", "r1_penalty", "r2_penalty", "pl_penalty")
STREAKS = ("nonfinite_in_a_row", "nonfinite_now")


def most_over_ranks(values: torch.Tensor, ranks: Ranks) -> torch.Tensor:
    """Largest of each value over all ranks, in place."""
    if ranks.world > 1:
        torch_dist.all_reduce(values, op=torch_dist.ReduceOp.MAX)
    return values


class Tick:
    """Observations since the last status line; sums stay on the device.

    Attributes
    ----------
    nimg : int
        Images shown when it began.
    data_wait : float
        Seconds this rank waited for data.
    """

    def __init__(self, nimg: int, device: torch.device) -> None:
        self.nimg, self.device = nimg, device
        self.data_wait = 0.0
        self._sums: dict[str, torch.Tensor] = {}
        self._counts: dict[str, torch.Tensor] = {}
        self._none = torch.zeros((), dtype=torch.double, device=device)
        self._skipped = self._streak = self._longest = self._none

    def next(self, nimg: int) -> Tick:
        """The tick after this one; a streak of bad iterations goes on."""
        tick = Tick(nimg, self.device)
        tick._streak = self._streak
        return tick

    def add(self, seen: dict[str, torch.Tensor]) -> None:
        """Accumulate observations of one iteration; what is not finite is counted, not summed."""
        none = self._none
        bad = none > 0
        for key, value in seen.items():
            one = value.detach().to(self.device).reshape([]).double()
            finite = torch.isfinite(one)
            if key in LOSSES:
                bad = bad | ~finite
            elif key == "skipped":
                bad = bad | (one > 0)
                self._skipped = self._skipped + one
                continue
            self._sums[key] = self._sums.get(key, none) + torch.where(finite, one, none)
            self._counts[key] = self._counts.get(key, none) + finite
        self._streak = torch.where(bad, self._streak + 1, none)
        self._longest = torch.maximum(self._longest, self._streak)

    def means(self, ranks: Ranks) -> dict[str, float]:
        """Mean of each observation over iterations and ranks; all ranks must call it.

        The only place where the host waits for the device.

        Returns
        -------
        dict
            Besides the observations: ``data_wait_s``, ``skipped`` (parts of steps left
            out), ``nonfinite_in_a_row`` and ``nonfinite_now`` (iterations, the most and
            those at the end). An observation that was never finite is NaN.
        """
        names = sorted(self._sums)
        values = [self._sums[key] / self._counts[key] for key in names]
        wait = torch.as_tensor(self.data_wait, dtype=torch.double, device=self.device)
        stacked = torch.stack([*values, wait, self._skipped])
        worst = most_over_ranks(torch.stack([self._longest, self._streak]), ranks)
        keys = [*names, "data_wait_s", "skipped"]
        means = dict(zip(keys, average_over_ranks(stacked, ranks).tolist(), strict=True))
        return means | dict(zip(STREAKS, worst.tolist(), strict=True))
