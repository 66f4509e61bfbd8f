"""Memory of a phase of training, found by running it on the meta device.

Nothing is computed there and nothing allocated: tensors have shapes and types
only. Every operation passes a dispatch mode that adds the storage of what the
operation made and takes it off again when the last tensor, saved for the
backward pass or not, lets go of it. So the graph of a gradient of a gradient,
activation checkpointing and fused functions are counted as they are.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakIdKeyDictionary

from sunpipe.models.stylegan2 import Discriminator, Generator
from sunpipe.train.augment import augment
from sunpipe.train.chance import Chance
from sunpipe.train.losses import path_lengths, r1_penalty
from sunpipe.train.phases import lazy_penalty
from sunpipe.train_settings import ComputeSettings, ModelSettings, TrainSettings

CONVOLUTIONS = (torch.ops.aten.convolution.default, torch.ops.aten.convolution_backward.default)
PHASES = ("G main", "path length", "D main", "R1")


@dataclass(frozen=True)
class Usage:
    """Bytes at the moment of a phase's peak; parameters and inputs are not in it."""

    activations: int
    gradients: int

    @property
    def total(self) -> int:
        """Activations and gradients together."""
        return self.activations + self.gradients


def tensors_in(tree: Any) -> Iterator[torch.Tensor]:
    """Tensors in what an operation is given or returns: much faster than torch's pytrees."""
    if isinstance(tree, torch.Tensor):
        yield tree
    elif isinstance(tree, list | tuple):
        for one in tree:
            yield from tensors_in(one)
    elif isinstance(tree, dict):
        for one in tree.values():
            yield from tensors_in(one)


class Meter(TorchDispatchMode):
    """Counts live bytes of what is allocated inside, each storage once.

    Parameters
    ----------
    share : callable
        Part of a new tensor's storage that this rank holds, 0 to 1.

    Attributes
    ----------
    live, gradients : float
        Bytes now: all of them, and those given to `gradient`.
    peak : Usage
        The same at the highest point so far.
    """

    def __init__(self, share: Callable[[torch.Tensor], float] = lambda tensor: 1.0) -> None:
        super().__init__()
        self.share = share
        self.live = self.gradients = 0.0
        self.peak = Usage(0, 0)
        self._held: Any = WeakIdKeyDictionary()  # storage -> [bytes, gradient?, watcher]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for tensor in tensors_in((args, kwargs)):  # an unknown one was there before: not ours
            self._held.setdefault(tensor.untyped_storage(), None)
        out = func(*args, **(kwargs or {}))
        for tensor in tensors_in(out):
            self._hold(tensor)
        now = self.live + (self._workspace(args, out) if func in CONVOLUTIONS else 0.0)
        if now > self.peak.total:
            self.peak = Usage(round(now - self.gradients), round(self.gradients))
        return out

    def _workspace(self, args: Any, out: Any) -> float:
        """Largest feature map of a convolution: libraries convert the layout of one or two."""
        return max(one.nbytes * self.share(one) for one in tensors_in((args, out)))

    def _hold(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage in self._held:
            return
        entry: list[Any] = [storage.nbytes() * self.share(tensor), False, None]

        def gone(_: Any) -> None:
            self.live -= entry[0]
            self.gradients -= entry[0] if entry[1] else 0

        entry[2] = weakref.ref(storage, gone)
        self._held[storage] = entry
        self.live += entry[0]

    def gradient(self, tensor: torch.Tensor | None, share: float) -> None:
        """Count this tensor as a gradient of which the rank keeps only a share."""
        entry = None if tensor is None else self._held.get(tensor.untyped_storage())
        if entry is None or entry[1]:
            return
        self.live += entry[0] * (share - 1)
        entry[0] *= share
        entry[1] = True
        self.gradients += entry[0]


@dataclass(frozen=True)
class Pass:
    """What runs in one forward and backward pass besides the networks.

    Attributes
    ----------
    phase : str
        One of `PHASES`.
    samples : int
        Images (the micro-batch).
    policy : tuple of str
        DiffAugment on what D sees; `adaptive` if with a probability (ADA).
    penalties : int
        2 where R2 is taken with R1.
    joint : int
        Images of the penalty that a main phase takes with its loss, in one graph:
        path length with ``G main``, R1 and R2 with ``D main``.
    """

    phase: str
    samples: int
    policy: tuple[str, ...] = ()
    adaptive: bool = False
    penalties: int = 1
    joint: int = 0


def phase_passes(t: TrainSettings, samples: int) -> dict[str, Pass]:
    """The phases that a training has, with the penalties where `phases` computes them.

    Parameters
    ----------
    samples : int
        Images of one pass (the micro-batch).
    """
    path, r1 = (
        max(samples // shrink, 1) if weight > 0 else 0
        for weight, shrink in ((t.pl_weight, t.pl_batch_shrink),
                               (t.r1_gamma + t.r2_gamma, t.r1_batch_shrink))
    )  # fmt: skip
    lazy_path, lazy_r1 = (
        lazy_penalty(t.pl_weight, t.pl_interval),
        lazy_penalty(t.r1_gamma + t.r2_gamma, t.r1_interval),
    )
    common: dict[str, Any] = {"policy": t.diffaugment, "adaptive": t.ada.target > 0,
              "penalties": (t.r1_gamma > 0) + (t.r2_gamma > 0)}  # fmt: skip
    found = {
        "G main": Pass("G main", samples, **common, joint=0 if lazy_path else path),
        "path length": Pass("path length", path, **common),
        "D main": Pass("D main", samples, **common, joint=0 if lazy_r1 else r1),
        "R1": Pass("R1", r1, **common),
    }
    own = {"G main", "D main"} | ({"path length"} if lazy_path else set())
    own |= {"R1"} if lazy_r1 else set()
    return {phase: found[phase] for phase in PHASES if phase in own}


def loss(
    what: Pass, g: Generator, d: Discriminator, z: torch.Tensor, images: torch.Tensor
) -> torch.Tensor:
    """Loss of a phase, with the graph that training builds and chance of no meaning.

    Parameters
    ----------
    z : Tensor, shape (B, z_dim)
    images : Tensor, shape (B, C, H, W)
        Real images; they stand in for the generated ones that D is trained on.
    """

    def logits(image: torch.Tensor) -> torch.Tensor:
        chance = Chance(tuple(range(len(image))), image.device)
        strength = image.new_zeros(()) if what.adaptive else None
        return d(augment(image, what.policy, 0.0, chance, strength))

    def w_plus(z: torch.Tensor) -> torch.Tensor:
        both = g.broadcast(g.mapping(z)), g.broadcast(g.mapping(z))  # style mixing
        layers = torch.ones(len(z), g.num_ws, 1, dtype=torch.bool, device=z.device)
        return torch.where(layers, *both)

    def path(count: int) -> torch.Tensor:
        noise = torch.randn_like(images[:count])
        lengths = path_lengths(lambda w: g.synthesis(w, "random"), w_plus(z[:count]), noise)
        return lengths.square().mean()

    def r1(count: int) -> torch.Tensor:
        few = images[:count]
        return torch.stack([r1_penalty(logits, few) for _ in range(what.penalties)]).sum()

    if what.phase == "G main":
        main = F.softplus(-logits(g.synthesis(w_plus(z), "random"))).mean()
        return main + path(what.joint) if what.joint else main
    if what.phase == "path length":
        return path(len(z))
    if what.phase == "D main":
        main = F.softplus(logits(images)).mean() + F.softplus(-logits(images)).mean()
        return main + r1(what.joint) if what.joint else main
    return r1(len(images))


@lru_cache(maxsize=256)
def networks(
    resolution: int, channels: int, model: ModelSettings, compute: ComputeSettings
) -> tuple[Generator, Discriminator]:
    """G and D with shapes and no numbers, on the meta device."""
    with torch.device("meta"):
        return (
            Generator(resolution, channels, model, compute),
            Discriminator(resolution, channels, model, compute),
        )


@lru_cache(maxsize=1024)
def pass_usage(
    what: Pass, resolution: int, channels: int, model: ModelSettings, compute: ComputeSettings,
    passes: int = 1, gradient_share: float = 1.0,
) -> Usage:  # fmt: skip
    """Memory that a phase needs at its peak, beyond parameters and images.

    Parameters
    ----------
    passes : int
        Passes whose gradients are summed; from the second on, gradients are held
        while activations are.
    gradient_share : float
        Part of the gradients that this rank keeps (ZeRO).
    """
    g, d = networks(resolution, channels, model, compute)
    trained: nn.Module = g if what.phase in PHASES[:2] else d
    g.requires_grad_(trained is g)
    d.requires_grad_(trained is d)

    def share(tensor: torch.Tensor) -> float:
        """Feature maps are striped over ranks; images, of few channels, are not."""
        striped = tensor.dim() == 4 and tensor.shape[-2] >= compute.stripes_from
        features = striped and tensor.shape[1] not in (1, channels)
        return 1 / compute.stripes if features else 1.0

    meter = Meter(share)
    hooks = [
        parameter.register_post_accumulate_grad_hook(
            lambda p: meter.gradient(p.grad, gradient_share)
        )
        for parameter in trained.parameters()
    ]
    z = torch.empty(what.samples, model.z_dim, device="meta")
    images = torch.empty(what.samples, channels, resolution, resolution, device="meta")
    try:
        with meter:
            for _ in range(min(passes, 2)):
                loss(what, g, d, z, images).backward()
    finally:
        for hook in hooks:
            hook.remove()
        for parameter in trained.parameters():
            parameter.grad = None
    return meter.peak
