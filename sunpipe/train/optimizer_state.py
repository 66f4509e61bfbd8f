"""Adam's moments by the name of the parameter: the same at any number of ranks and any stage.

ZeRO stages 1 and 2 keep the moments of all parameters, in their order, in one
flat tensor, padded at its end and cut into equal partitions, one per rank
(arXiv:1910.02054, section 5). Here they are put together and cut again.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.distributed as torch_dist

from sunpipe.dist import Ranks
from sunpipe.errors import DataError

MOMENTS = ("exp_avg", "exp_avg_sq")
Named = Mapping[str, torch.nn.Parameter]
State = dict[str, torch.Tensor]


def named_moments(adam: torch.optim.Optimizer, named: Named) -> State:
    """Moments of an Adam that holds the parameters themselves (stage 0), and ``step``."""
    state: State = {}
    for name, parameter in named.items():
        for key in MOMENTS:
            value = adam.state[parameter].get(key) if parameter in adam.state else None
            filled = torch.zeros_like(parameter) if value is None else value
            state[f"{key}/{name}"] = filled.detach().cpu().clone()
    steps = [float(entry["step"]) for entry in adam.state.values()]
    state["step"] = torch.as_tensor(max(steps))
    return state


def put_named_moments(adam: torch.optim.Optimizer, named: Named, state: State) -> None:
    """Restore what `named_moments` or `flat_moments` gave into a stage 0 Adam."""
    check_names(named, state)
    for name, parameter in named.items():
        adam.state[parameter] = {
            "step": state["step"].reshape([]).clone(),
            **{key: state[f"{key}/{name}"].to(parameter.device) for key in MOMENTS},
        }


def flat_moments(
    adam: torch.optim.Optimizer,
    partition: torch.Tensor,
    named: Named,
    ranks: Ranks,
    device: torch.device,
) -> State:
    """Moments of an Adam that holds this rank's flat partition, put together from all ranks.

    Parameters
    ----------
    partition : Tensor
        The flat parameter that `adam` updates.
    device : torch.device
        Where the ranks exchange tensors: under offload the moments are on the
        host, and NCCL takes only tensors of the GPU.
    """
    state: State = {}
    entry = adam.state[partition]
    for key in MOMENTS:
        here = entry[key].to(device).contiguous()
        parts = [torch.empty_like(here) for _ in range(ranks.world)]
        if ranks.world == 1:
            parts = [here]
        else:
            torch_dist.all_gather(parts, here)
        whole, place = torch.cat([part.cpu() for part in parts]), 0
        for name, parameter in named.items():
            count = parameter.numel()
            state[f"{key}/{name}"] = whole[place : place + count].reshape(parameter.shape).clone()
            place += count
    state["step"] = torch.as_tensor(float(entry["step"]))
    return state


def put_flat_moments(
    adam: torch.optim.Optimizer,
    partition: torch.Tensor,
    named: Named,
    ranks: Ranks,
    state: State,
) -> None:
    """Restore named moments into the flat partition of this rank."""
    check_names(named, state)
    entry: State = {"step": state["step"].reshape([]).clone()}
    for key in MOMENTS:
        whole = torch.cat([state[f"{key}/{name}"].flatten() for name in named])
        padded = torch.zeros(partition.numel() * ranks.world, dtype=partition.dtype)
        padded[: whole.numel()] = whole
        start = ranks.rank * partition.numel()
        entry[key] = padded[start : start + partition.numel()].to(partition.device).clone()
    adam.state[partition] = entry


def check_names(named: Named, state: State) -> None:
    """Refuse a state of other parameters, by name.

    Raises
    ------
    DataError
        A parameter that is trained has no moments in `state`, moments of another
        shape, or `state` has moments of a parameter that is not trained.
    """
    wanted = {f"{key}/{name}" for key in MOMENTS for name in named} | {"step"}
    odd = sorted(wanted ^ set(state))
    odd += sorted(
        f"{key}/{name}"
        for key in MOMENTS
        for name, parameter in named.items()
        if f"{key}/{name}" in state and state[f"{key}/{name}"].shape != parameter.shape
    )
    if odd:
        more = f" and {len(odd) - 1} more" if len(odd) > 1 else ""
        raise DataError(f"the optimiser's state is of another network: {odd[0]}{more} do not fit")
