"""The work of a training on one rank: every kernel of an iteration, counted on the meta device.

As for memory (`sunpipe.train.meter`) the phases are run on shapes alone; each
operation that would start a kernel leaves its floating point operations (torch's
formulas for convolutions and matrix products) and the bytes that it reads and
writes. Second derivatives and what checkpoints compute again are counted as
they are. `sunpipe.train.roofline` makes seconds of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from sunpipe.train.ledger import local_samples
from sunpipe.train.meter import PHASES, Pass, loss, networks, phase_passes, tensors_in
from sunpipe.train_settings import ComputeSettings, ModelSettings, TrainSettings

HALF = (torch.bfloat16, torch.float16)
aten = torch.ops.aten
# They start no kernel, or one that writes only.
NO_KERNEL = {aten.empty, aten.empty_like, aten.empty_strided, aten.new_empty,
             aten.new_empty_strided, aten.lift_fresh, aten._local_scalar_dense}  # fmt: skip
WRITES_ONLY = {aten.copy_, aten.fill_, aten.zero_, aten.normal_, aten.uniform_, aten.random_}


@dataclass(frozen=True)
class Work:
    """Kernels in the order in which they run.

    Attributes
    ----------
    half : ndarray of bool, shape (N,)
        Whether the product is one of 16-bit numbers.
    flops, moved : ndarray of float64, shape (N,)
        Floating point operations of products (a multiply and an add are two), and bytes
        read and written.
    """

    half: NDArray[np.bool_]
    flops: NDArray[np.float64]
    moved: NDArray[np.float64]

    @classmethod
    def of(cls, kernels: list[tuple[bool, float, float]]) -> Work:
        """From ``(half, flops, moved)`` of each kernel."""
        half, flops, moved = zip(*kernels, strict=True) if kernels else ((), (), ())
        return cls(np.array(half, bool), np.array(flops, float), np.array(moved, float))


class Kernels(TorchDispatchMode):
    """Notes what each operation inside computes and moves.

    Parameters
    ----------
    stripes, stripes_from, images : int
        Ranks that share one image, from so many rows on, but not maps of 1 or
        `images` channels.
    """

    def __init__(self, stripes: int = 1, stripes_from: int = 0, images: int = 1) -> None:
        super().__init__()
        self.stripes, self.stripes_from, self.images = stripes, stripes_from, images
        self.found: list[tuple[bool, float, float]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        packet = func.overloadpacket
        if packet in NO_KERNEL:
            return out
        given, made = list(tensors_in((args, kwargs))), list(tensors_in(out))
        if not made or (not func._schema.is_mutable and _views(given, made)):
            return out
        formula = flop_registry.get(packet)
        flops = float(formula(*args, **kwargs, out_val=out)) if formula else 0.0
        if packet in WRITES_ONLY:
            given = given[1:]
        moved = sum(map(_extent, given)) + sum(map(_extent, made))
        share = self._share(given + made)
        half = made[0].dtype in HALF
        if packet is aten.convolution_backward:  # two kernels; each reads the gradient
            moved += _extent(given[0])
            self.found += 2 * [(half, share * flops / 2, share * moved / 2)]
        else:
            self.found.append((half, share * flops, share * moved))
        return out

    def _share(self, tensors: list[torch.Tensor]) -> float:
        """Part of the operation that this rank does: that of the largest map."""
        if self.stripes == 1:
            return 1.0
        largest = max(tensors, key=torch.Tensor.numel)
        striped = largest.dim() == 4 and largest.shape[-2] >= self.stripes_from
        return 1 / self.stripes if striped and largest.shape[1] not in (1, self.images) else 1.0


def _views(given: list[torch.Tensor], made: list[torch.Tensor]) -> bool:
    """Whether all that was made lies in what was given."""
    keys = {one.untyped_storage()._cdata for one in given}
    return all(one.untyped_storage()._cdata in keys for one in made)


def _extent(tensor: torch.Tensor) -> int:
    """Bytes that a tensor really has: dimensions of stride 0 repeat the same ones."""
    count = 1
    for size, stride in zip(tensor.shape, tensor.stride(), strict=True):
        count *= size if stride or size == 0 else 1
    return count * tensor.element_size()


@lru_cache(maxsize=256)
def pass_work(
    what: Pass | int, resolution: int, channels: int, model: ModelSettings,
    compute: ComputeSettings,
) -> Work:  # fmt: skip
    """Kernels of one forward and backward pass; of generating so many images for an int."""
    g, d = networks(resolution, channels, model, compute)
    count = what if isinstance(what, int) else what.samples
    z = torch.empty(count, model.z_dim, device="meta")
    counter = Kernels(compute.stripes, compute.stripes_from, channels)
    if isinstance(what, int):
        with counter, torch.no_grad():
            g(z)
        return Work.of(counter.found)
    trained = g if what.phase in PHASES[:2] else d
    g.requires_grad_(trained is g)
    d.requires_grad_(trained is d)
    images = torch.empty(count, channels, resolution, resolution, device="meta")
    try:
        with counter:
            loss(what, g, d, z, images).backward()
    finally:
        for parameter in trained.parameters():
            parameter.grad = None
    return Work.of(counter.found)


def phase_works(
    resolution: int, channels: int, t: TrainSettings, ranks: int = 1
) -> dict[str, tuple[float, Work]]:
    """How often each pass runs in the mean iteration of one rank, and its kernels.

    The images that D is trained on are ``generated`` without a graph.
    """
    _, samples = local_samples(t, ranks)
    often = {"G main": 1.0, "path length": 1 / t.pl_interval, "D main": 1.0,
             "R1": 1 / t.r1_interval}  # fmt: skip
    shape = (resolution, channels, t.model, t.compute)
    passes = t.compute.accumulate
    found = {
        phase: (passes * often[phase], pass_work(what, *shape))
        for phase, what in phase_passes(t, samples).items()
    }
    return {**found, "generated": (float(passes), pass_work(samples, *shape))}
