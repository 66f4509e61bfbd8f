"""DeepSpeed around one network: of a GAN, or a self-supervised encoder with its heads.

Each network gets its own engine. The engine wraps a *phases* module whose
forward returns a whole loss, penalties included: gradients of gradients never
touch the engine's hooks, and the update equals plain PyTorch. What is saved of
the optimiser is named per parameter, so that it fits any number of ranks.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.distributed as torch_dist
from torch import nn

from sunpipe.dist import Ranks
from sunpipe.errors import UsageError
from sunpipe.train.optimizer_state import (
    flat_moments,
    named_moments,
    put_flat_moments,
    put_named_moments,
)
from sunpipe.train.process_group import (
    any_rank,
    average_over_ranks,
    finish,
    from_main,
    initialize,
    pick_device,
)
from sunpipe.train_settings import ZeroSettings

__all__ = [
    "Engine",
    "any_rank",
    "average_over_ranks",
    "deepspeed_config",
    "from_main",
    "initialize",
    "leave",
    "pick_device",
]

Observed = dict[str, torch.Tensor]
BUCKET = 8 * 2**20  # gradients per all-reduce, 32 MiB of float32
# Tried with DeepSpeed 0.19.8, two ranks, with and without offload: exact without penalties; R1,
# and path length, raise "weight should have at least three dimensions", because the parameters
# have been taken apart again when the second derivative needs them.
STAGE_3 = (
    "train.zero.stage = 3 is not offered: gradients of gradients (R1, R2, path length) fail where"
    " DeepSpeed takes the parameters apart, and those of StyleGAN2 are small (0.24 GB at 1024 x"
    " 1024, G and D); set train.zero.stage to 0, 1 or 2"
)
NOTHING = "nothing"  # the phase whose loss is zero


def deepspeed_config(
    zero: ZeroSettings, micro_batch: int, world: int, accumulate: int = 1, norm: bool = False
) -> dict[str, Any]:
    """Return the DeepSpeed JSON for one engine.

    Gradient clipping is written as 0.0 because DeepSpeed's default clips at
    norm 1. The torch optimiser is kept under offload, so nothing is compiled.

    The gradients of several GPUs are summed while the backward pass runs
    (``overlap_comm``), in buckets of 32 MiB: the 30 million gradients of
    StyleGAN2 make four of them, so that three can travel before the pass ends.
    DeepSpeed's own bucket of 500 million would hold all of them until the end, and
    takes 2 GB of the GPU at every backward pass (twice that with overlap). At the
    end of an overlapped pass DeepSpeed waits for the device; one rank has nothing
    to overlap and does not wait. On the CPU Gloo blocks, overlapped or not.

    The norm of the gradients, which DeepSpeed would fetch from the device at every
    step, is computed only where it decides (`norm`) or cannot be left out (offload).

    Parameters
    ----------
    micro_batch : int
        Images of one rank in one backward pass.
    accumulate : int
        Backward passes per update.
    norm : bool
        A step whose gradients are not finite is left out (stages 1 and 2).
    """
    section: dict[str, Any] = {"stage": zero.stage}
    if zero.stage > 0:
        several_gpus = world > 1 and torch.cuda.is_available()
        section |= {"overlap_comm": several_gpus, "reduce_bucket_size": BUCKET,
                    "allgather_bucket_size": BUCKET,
                    "compute_grad_norm": norm or zero.offload}  # fmt: skip
    if zero.offload and zero.stage > 0:
        section["offload_optimizer"] = {"device": "cpu", "pin_memory": torch.cuda.is_available()}
    return {
        "train_micro_batch_size_per_gpu": micro_batch,
        "train_batch_size": micro_batch * accumulate * world,
        "gradient_accumulation_steps": accumulate,
        "gradient_clipping": 0.0,
        "zero_optimization": section,
        "zero_force_ds_cpu_optimizer": False,
        "zero_allow_untested_optimizer": True,
        "steps_per_print": 2**31,
    }


class _Whole(nn.Module):
    """The phases, and one more whose loss is a zero that depends on every parameter."""

    def __init__(self, phases: nn.Module, trained: Mapping[str, nn.Parameter]) -> None:
        super().__init__()
        self.phases = phases
        self._trained = tuple(trained.values())

    def forward(self, phase: str, *args: Any) -> tuple[torch.Tensor, Observed]:
        if phase == NOTHING:
            # selects zero elements: a weight that is not finite would survive a product with 0
            return torch.stack([p.flatten()[:0].sum() for p in self._trained]).sum(), {}
        return self.phases(phase, *args)


class Engine:
    """One network's phases, its Adam, and the ranks that share them.

    Parameters
    ----------
    phases : nn.Module
        ``phases(name, *args)`` returns ``(loss, observed)``; `observed` is a
        dictionary of detached tensors. Its loss is a mean over the samples of the
        call and depends on every parameter. Parameters that do not require
        gradients now are left alone for good (Freeze-D).
    lr : float
    beta1, beta2, eps : float
        Adam (arXiv:1412.6980); beta1 is 0 in StyleGAN2.
    weight_decay : float
        Share of a weight that a step takes away, times the rate (arXiv:1711.05101, algorithm 2).
    micro_batch : int
        Samples of this rank in one part of a step.
    accumulate : int
        Parts of a step.
    skip_nonfinite : bool
        Leave out what is not finite instead of letting it into the weights. It
        costs one exchange and one wait for the device per part.
    """

    def __init__(
        self, phases: nn.Module, *, lr: float, beta2: float, zero: ZeroSettings,
        micro_batch: int, ranks: Ranks, accumulate: int = 1, skip_nonfinite: bool = False,
        eps: float = 1e-8, beta1: float = 0.0, weight_decay: float = 0.0,
    ) -> None:  # fmt: skip
        import deepspeed

        if zero.stage == 3:
            raise UsageError(STAGE_3)
        self.phases, self.ranks, self.stage = phases, ranks, zero.stage
        self.accumulate, self.skip_nonfinite = accumulate, skip_nonfinite
        self.trained = {name: p for name, p in phases.named_parameters() if p.requires_grad}
        parameters = list(self.trained.values())
        optimizer = torch.optim.Adam(
            parameters, lr=lr, betas=(beta1, beta2), eps=eps, weight_decay=weight_decay,
            decoupled_weight_decay=True,
        )  # fmt: skip
        self.config = deepspeed_config(zero, micro_batch, ranks.world, accumulate, skip_nonfinite)
        self.engine, *_ = deepspeed.initialize(
            model=_Whole(phases, self.trained), optimizer=optimizer, model_parameters=parameters,
            config=self.config,
        )  # fmt: skip

    def requires_grad(self, needed: bool) -> None:
        """Let gradients reach the trained parameters or not: a borrowed network is left alone."""
        for parameter in self.trained.values():
            parameter.requires_grad_(needed)

    def set_lr(self, lr: float) -> None:
        """Learning rate of the steps from here on."""
        for group in self._adam().param_groups:
            group["lr"] = lr

    def step(self, phase: str, parts: Sequence[tuple[Any, ...]]) -> Observed:
        """One update of a phase from `accumulate` forward and backward passes.

        Parameters
        ----------
        parts : sequence of tuple
            Arguments of the phase for each pass; equally many samples in each.

        Returns
        -------
        dict
            Mean over the parts of what the phase observed. With `skip_nonfinite`,
            ``skipped`` counts the parts that were left out on all ranks, because
            the loss, or the gradients of the whole step, of any rank were not
            finite; the means are over the others, and missing if there are none.
        """
        if len(parts) != self.accumulate:
            raise ValueError(f"{len(parts)} parts for a step of {self.accumulate}")
        kept: list[Observed] = []
        for number, part in enumerate(parts, 1):
            loss, observed = self.engine(phase, *part)
            if self.skip_nonfinite and self._anywhere_nonfinite(loss):
                loss, _ = self.engine(NOTHING)
            else:
                kept.append(observed)
            self.engine.backward(loss)
            last = number == len(parts)
            if last and self.skip_nonfinite and not self._finite_gradients():
                kept = []
            self.engine.step()
        if self.skip_nonfinite and not self.engine.was_step_applied():
            kept = []
        means = _mean(kept)
        if self.skip_nonfinite:
            means["skipped"] = torch.tensor(float(len(parts) - len(kept)))
        return means

    def _anywhere_nonfinite(self, loss: torch.Tensor) -> bool:
        word = (~torch.isfinite(loss.detach())).int()
        if self.ranks.world > 1:
            torch_dist.all_reduce(word, op=torch_dist.ReduceOp.MAX)
        return bool(word.item())

    def _finite_gradients(self) -> bool:
        """Whether the summed gradients are finite; if not, Adam finds none.

        Stages 1 and 2 leave such a step out by themselves, by the norm.
        """
        if self.stage > 0:
            return True
        found = [p.grad for p in self.trained.values() if p.grad is not None]
        if bool(torch.isfinite(torch.stack(torch._foreach_norm(found))).all()):
            return True
        self.engine.zero_grad()
        return False

    def optimizer_state(self) -> dict[str, torch.Tensor]:
        """Adam's moments by parameter name and its step count; all ranks must call it.

        Returns
        -------
        dict
            ``exp_avg/<name>``, ``exp_avg_sq/<name>`` with the parameter's shape,
            and ``step``, on the CPU. Empty before the first update.
        """
        adam = self._adam()
        if not adam.state:
            return {}
        if self.stage == 0:
            return named_moments(adam, self.trained)
        return flat_moments(adam, self._flat(), self.trained, self.ranks, self.engine.device)

    def load_optimizer_state(self, state: dict[str, torch.Tensor]) -> None:
        """Restore `optimizer_state`, at any number of ranks and any stage.

        Raises
        ------
        DataError
            The state is of other parameters than those that are trained here.
        """
        if not state:
            return
        if self.stage == 0:
            put_named_moments(self._adam(), self.trained, state)
        else:
            put_flat_moments(self._adam(), self._flat(), self.trained, self.ranks, state)

    def _adam(self) -> torch.optim.Optimizer:
        optimizer = self.engine.optimizer
        return optimizer if self.stage == 0 else optimizer.optimizer

    def _flat(self) -> torch.Tensor:
        return self.engine.optimizer.single_partition_of_fp32_groups[0]


def leave() -> None:
    """Leave the process group; DeepSpeed forgets its groups too, so that a new one may be made."""
    if torch_dist.is_initialized():
        import deepspeed
        from deepspeed.utils import logger

        deepspeed.comm.destroy_process_group()
        for handler in logger.handlers:  # today's sys.stderr may be closed when it logs again
            if type(handler) is logging.StreamHandler:
                handler.setStream(sys.__stderr__)
    finish()


def _mean(kept: Sequence[Observed]) -> Observed:
    if len(kept) < 2:
        return dict(kept[0]) if kept else {}
    return {key: torch.stack([seen[key] for seen in kept]).mean(dim=0) for key in kept[0]}
