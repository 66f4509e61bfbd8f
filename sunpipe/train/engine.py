"""DeepSpeed around one network of a GAN.

Each network gets its own engine. The engine wraps a *phases* module whose
forward returns a whole loss, penalties included: gradients of gradients never
touch the engine's hooks, and the update equals plain PyTorch. What is saved of
the optimiser is named per parameter, so that it fits any number of ranks.
"""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as torch_dist
from torch import nn

from sunpipe.dist import Ranks
from sunpipe.errors import SunpipeError
from sunpipe.train_settings import ZeroSettings

MOMENTS = ("exp_avg", "exp_avg_sq")


def pick_device(ranks: Ranks) -> torch.device:
    """GPU of this rank, or the CPU."""
    if torch.cuda.is_available():
        torch.cuda.set_device(ranks.local_rank % torch.cuda.device_count())
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")


def initialize(ranks: Ranks, minutes: float = 10) -> torch.device:
    """Set up DeepSpeed's process group for these ranks and return the device.

    All five rendezvous variables are set, otherwise DeepSpeed falls into MPI
    discovery. On the CPU its shared-memory operation is switched off: it would
    compile C++ at the first run, and Gloo does the same work. DeepSpeed takes
    LOCAL_RANK for the number of the GPU, so it is told the one that was picked:
    a launcher may show each rank only its own.
    """
    os.environ.setdefault("DS_ACCELERATOR", "cuda" if torch.cuda.is_available() else "cpu")
    import deepspeed
    from deepspeed.utils import logger

    logger.setLevel("WARNING")
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    if torch_dist.is_initialized():
        return pick_device(ranks)
    device = pick_device(ranks)
    port = ranks.master_port or _free_port()
    os.environ.update(
        RANK=str(ranks.rank), WORLD_SIZE=str(ranks.world),
        LOCAL_RANK=str(ranks.local_rank if device.index is None else device.index),
        MASTER_ADDR=ranks.master_addr, MASTER_PORT=str(port),
    )  # fmt: skip
    try:
        deepspeed.init_distributed(
            dist_backend="nccl" if device.type == "cuda" else "gloo",
            auto_mpi_discovery=False,
            verbose=False,
            timeout=timedelta(minutes=minutes),
        )
    except (RuntimeError, TimeoutError) as error:
        raise SunpipeError(
            f"rank {ranks.rank} of {ranks.world} could not join rank 0 at"
            f" {ranks.master_addr}:{port} ({str(error).splitlines()[0]})"
        ) from None
    return device


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def deepspeed_config(zero: ZeroSettings, micro_batch: int, world: int) -> dict[str, Any]:
    """Return the DeepSpeed JSON for one engine.

    Gradient clipping is written as 0.0 because DeepSpeed's default clips at
    norm 1. The torch optimiser is kept under offload, so nothing is compiled.
    """
    section: dict[str, Any] = {"stage": zero.stage}
    if zero.offload and zero.stage > 0:
        section["offload_optimizer"] = {"device": "cpu", "pin_memory": torch.cuda.is_available()}
    return {
        "train_micro_batch_size_per_gpu": micro_batch,
        "train_batch_size": micro_batch * world,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": 0.0,
        "zero_optimization": section,
        "zero_force_ds_cpu_optimizer": False,
        "zero_allow_untested_optimizer": True,
        "steps_per_print": 2**31,
    }


class Engine:
    """One network's phases, its Adam, and the ranks that share them.

    Parameters
    ----------
    phases : nn.Module
        ``phases(name, *args)`` returns ``(loss, observed)``; `observed` is a
        dictionary of detached tensors.
    lr : float
    beta2 : float
        beta1 is 0, as in StyleGAN2.
    """

    def __init__(
        self, phases: nn.Module, *, lr: float, beta2: float, zero: ZeroSettings,
        micro_batch: int, ranks: Ranks,
    ) -> None:  # fmt: skip
        import deepspeed

        self.phases = phases
        self.ranks = ranks
        self.names = [name for name, _ in phases.named_parameters()]
        parameters = list(phases.parameters())
        optimizer = torch.optim.Adam(parameters, lr=lr, betas=(0.0, beta2), eps=1e-8)
        self.config = deepspeed_config(zero, micro_batch, ranks.world)
        self.engine, *_ = deepspeed.initialize(
            model=phases, optimizer=optimizer, model_parameters=parameters, config=self.config
        )
        self.stage = zero.stage

    def step(self, phase: str, *args: Any) -> dict[str, torch.Tensor]:
        """One forward, backward and update of a phase; returns the phase's observations."""
        loss, observed = self.engine(phase, *args)
        self.engine.backward(loss)
        self.engine.step()
        return observed

    def _adam(self) -> torch.optim.Optimizer:
        optimizer = self.engine.optimizer
        return optimizer if self.stage == 0 else optimizer.optimizer

    def _gather(self, part: torch.Tensor) -> torch.Tensor:
        if self.ranks.world == 1:
            return part
        # under offload the moments are on the CPU, and NCCL takes only tensors of the GPU
        here = part.to(self.engine.device).contiguous()
        parts = [torch.empty_like(here) for _ in range(self.ranks.world)]
        torch_dist.all_gather(parts, here)
        return torch.cat(parts)

    def optimizer_state(self) -> dict[str, torch.Tensor]:
        """Adam's moments by parameter name and its step count; all ranks must call it.

        Returns
        -------
        dict
            ``exp_avg/<name>``, ``exp_avg_sq/<name>`` with the parameter's shape,
            and ``step``. Empty before the first update.
        """
        adam = self._adam()
        if not adam.state:
            return {}
        shapes = [parameter.shape for parameter in self.phases.parameters()]
        state: dict[str, torch.Tensor] = {}
        if self.stage == 0:
            for name, parameter in zip(self.names, self.phases.parameters(), strict=True):
                for key in MOMENTS:
                    value = adam.state[parameter].get(key) if parameter in adam.state else None
                    filled = torch.zeros_like(parameter) if value is None else value
                    state[f"{key}/{name}"] = filled.detach().cpu().clone()
            steps = [entry["step"] for entry in adam.state.values()]
            state["step"] = torch.as_tensor(max(float(step) for step in steps))
            return state
        flat = self.engine.optimizer.single_partition_of_fp32_groups[0]
        entry = adam.state[flat]
        for key in MOMENTS:
            whole = self._gather(entry[key]).cpu()
            place = 0
            for name, shape in zip(self.names, shapes, strict=True):
                state[f"{key}/{name}"] = whole[place : place + shape.numel()].reshape(shape).clone()
                place += shape.numel()
        state["step"] = torch.as_tensor(float(entry["step"]))
        return state

    def load_optimizer_state(self, state: dict[str, torch.Tensor]) -> None:
        """Restore `optimizer_state`, at any number of ranks and any stage."""
        if not state:
            return
        adam = self._adam()
        step = state["step"].reshape([])
        if self.stage == 0:
            for name, parameter in zip(self.names, self.phases.parameters(), strict=True):
                adam.state[parameter] = {
                    "step": step.clone(),
                    **{key: state[f"{key}/{name}"].to(parameter.device) for key in MOMENTS},
                }
            return
        flat = self.engine.optimizer.single_partition_of_fp32_groups[0]
        entry: dict[str, torch.Tensor] = {"step": step.clone()}
        for key in MOMENTS:
            whole = torch.cat([state[f"{key}/{name}"].flatten() for name in self.names])
            padded = torch.zeros(flat.numel() * self.ranks.world, dtype=flat.dtype)
            padded[: whole.numel()] = whole
            start = self.ranks.rank * flat.numel()
            entry[key] = padded[start : start + flat.numel()].to(flat.device).clone()
        adam.state[flat] = entry


def average_over_ranks(values: torch.Tensor, ranks: Ranks) -> torch.Tensor:
    """Mean over all ranks of a tensor on the ranks' device, in place."""
    if ranks.world > 1:
        torch_dist.all_reduce(values)
        values /= ranks.world
    return values


def any_rank(flag: bool, ranks: Ranks, device: torch.device) -> bool:
    """Whether any rank raised `flag`: the same answer everywhere."""
    if ranks.world == 1:
        return flag
    word = torch.tensor([int(flag)], device=device)
    torch_dist.all_reduce(word, op=torch_dist.ReduceOp.MAX)
    return bool(word.item())


def from_main(value: Any, ranks: Ranks) -> Any:
    """Rank 0's value of a small JSON-able object, on every rank."""
    if ranks.world == 1:
        return value
    box = [value]
    torch_dist.broadcast_object_list(box, src=0)
    return box[0]
