"""The memory of a training, known before it starts.

States (parameters, Adam, EMA) are counted from the networks; what a phase needs
on top is found by running it on the meta device (`sunpipe.train.meter`); what
DeepSpeed allocates is read from its code (0.19.8, ``zero/stage_1_and_2.py``).
For StyleGAN2 feature maps are the memory and optimiser states are not:
`sunpipe.train.advice` says so with the numbers of a run.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from sunpipe.errors import UsageError
from sunpipe.train.engine import STAGE_3, deepspeed_config
from sunpipe.train.meter import Usage, networks, pass_usage, phase_passes
from sunpipe.train_settings import TrainSettings

FLOAT = 4  # bytes; weights, gradients, moments and images are float32
GIB = 2**30
Device = Literal["cuda", "cpu"]


@dataclass(frozen=True)
class Ledger:
    """Bytes of one rank.

    Attributes
    ----------
    parameters, buffers, optimizer, ema, images : int
        Held all the time. `optimizer` is Adam's two moments and, from ZeRO stage 1
        on, the float32 copy of the rank's part.
    communication : int
        DeepSpeed's buckets for gradients.
    phases : dict
        Activations and gradients at the peak of each phase; a penalty that is due in
        every iteration is part of its main phase.
    update : int
        Gradients and Adam's temporaries during the optimiser's step.
    host : int
        Offloaded to the memory of the host.
    samples, batch : int
        Images of one pass, and of this rank.
    """

    parameters: int
    buffers: int
    optimizer: int
    ema: int
    images: int
    communication: int
    phases: dict[str, Usage]
    update: int
    host: int
    samples: int
    batch: int

    @property
    def states(self) -> int:
        """What is held in every phase."""
        return self.parameters + self.buffers + self.optimizer + self.ema + self.images

    @property
    def highest(self) -> Usage:
        """Activations and gradients of the phase that needs most."""
        return max(self.phases.values(), key=lambda usage: usage.total)

    @property
    def peak_bytes(self) -> int:
        """Most that the device holds at any moment."""
        return self.states + max(self.highest.total + self.communication, self.update)

    @property
    def peak_phase(self) -> str:
        """Phase of the peak; ``update`` where it is the optimiser's step."""
        if self.update > self.highest.total + self.communication:
            return "update"
        return max(self.phases, key=lambda phase: self.phases[phase].total)

    @property
    def parts(self) -> dict[str, int]:
        """What `peak_bytes` is the sum of."""
        held = {"parameters": self.parameters, "buffers": self.buffers,
                "optimizer": self.optimizer, "ema": self.ema, "images": self.images}  # fmt: skip
        if self.peak_phase == "update":
            return {**held, "update": self.update}
        high = self.highest
        return {**held, "activations": high.activations, "gradients": high.gradients,
                "communication": self.communication}  # fmt: skip

    def rows(self) -> list[tuple[str, int]]:
        """Name and bytes, for a table; phases and update are alternatives, not a sum."""
        return [
            ("parameters", self.parameters),
            ("noise maps and averages", self.buffers),
            ("optimiser", self.optimizer),
            ("EMA", self.ema),
            ("images", self.images),
            ("communication buckets", self.communication),
            *((f"phase {name}", usage.total) for name, usage in self.phases.items()),
            ("update", self.update),
            ("peak", self.peak_bytes),
            ("host", self.host),
        ]

    def line(self) -> str:
        """One line for the log."""
        line = (
            f"memory per rank: {gib(self.peak_bytes)} at the peak ({self.peak_phase});"
            f" parameters {gib(self.parameters)}, optimiser {gib(self.optimizer)},"
            f" EMA {gib(self.ema)}, activations {gib(self.highest.activations)}"
            f" ({self.samples} images in a pass)"
        )
        return line + (f"; host {gib(self.host)}" if self.host else "")

    def as_json(self) -> dict[str, Any]:
        """Return what `sunpipe train --dry-run --json` prints."""
        names = ("parameters", "buffers", "optimizer", "ema", "images", "communication", "update",
                 "host", "samples", "peak_bytes", "peak_phase")  # fmt: skip
        phases = {name: usage.total for name, usage in self.phases.items()}
        return {**{name: getattr(self, name) for name in names}, "phases": phases}


def gib(count: float) -> str:
    """Bytes for people: ``1.25 GiB``, ``3.1 MiB``."""
    return f"{count / GIB:.2f} GiB" if count >= GIB / 10 else f"{count / 2**20:.1f} MiB"


def _bytes(network: nn.Module, buffers: bool = False) -> int:
    held = network.buffers() if buffers else network.parameters()
    return sum(tensor.numel() * tensor.element_size() for tensor in held)


def local_samples(settings: TrainSettings, ranks: int) -> tuple[int, int]:
    """Images of one rank, and of one of its passes (the micro-batch)."""
    local = max(settings.batch * settings.compute.stripes // ranks, 1)
    return local, max(local // settings.compute.accumulate, 1)


def ledger(
    resolution: int, channels: int, settings: TrainSettings, ranks: int = 1,
    device: Device = "cuda",
) -> Ledger:  # fmt: skip
    """Memory of one rank of a training.

    Parameters
    ----------
    resolution, channels : int
        Of the images.
    ranks : int
        Processes that share a batch and, with ZeRO, the optimiser.
    device : str
        On a CPU, offloaded states stay in the same memory: they are part of the
        peak there, and `host` is 0.

    Raises
    ------
    UsageError
        ``train.zero.stage = 3``, which is not offered.

    Notes
    -----
    Not in it: CUDA's context (about 0.5 GiB), workspaces of cuDNN, and what an
    allocator keeps in fragments.
    """
    stage = settings.zero.stage
    if stage == 3:
        raise UsageError(STAGE_3)
    g, d = networks(resolution, channels, settings.model, settings.compute)
    part = 1 / ranks if stage else 1.0
    offload = settings.zero.offload and stage > 0
    whole, larger = _bytes(g) + _bytes(d), max(_bytes(g), _bytes(d))
    largest = FLOAT * max(p.numel() for net in (g, d) for p in net.parameters())
    local, samples = local_samples(settings, ranks)
    overlap = device == "cuda" and ranks > 1
    bucket, communication = 0, 0
    if stage:
        section = deepspeed_config(settings.zero, samples, ranks)["zero_optimization"]
        bucket = FLOAT * min(section["reduce_bucket_size"], larger // FLOAT)
        # doubled by overlap, and flattened once more for the all-reduce
        communication = bucket * (1 + overlap + (ranks > 1)) + (largest if offload else 0)
    optimizer = round(whole * part * (3 if stage else 2))  # a partition is a copy of its own
    # gradients, a flattened copy of them, and two temporaries of Adam
    flat = stage > 0 or device == "cuda"
    update = round(larger * part * (1 + (stage > 0))) + 2 * round(
        larger * part if flat else largest
    )
    host = 0
    if offload:
        # beside the states: gradients of both networks, and the way back to the device
        host = optimizer + round(2 * whole * part) + 2 * round(larger * part)
        optimizer, update = 0, 0
    if host and device == "cpu":
        optimizer, host = host, 0
    streamed = stage >= 2 or (stage == 1 and overlap)  # reduced while the pass runs
    return Ledger(
        parameters=whole,
        buffers=_bytes(g, buffers=True) + _bytes(d, buffers=True),
        optimizer=optimizer,
        ema=_bytes(g) + _bytes(g, buffers=True),
        images=2 * local * channels * resolution**2 * FLOAT,  # real and generated
        communication=communication,
        phases=_phases(resolution, channels, settings, samples,
                       (0.0 if offload else part) if streamed else 1.0),
        update=update,
        host=host,
        samples=samples,
        batch=local,
    )  # fmt: skip


def _phases(
    resolution: int, channels: int, settings: TrainSettings, samples: int, gradient_share: float
) -> dict[str, Usage]:
    return {
        phase: pass_usage(
            what, resolution, channels, settings.model, settings.compute,
            passes=settings.compute.accumulate, gradient_share=gradient_share,
        )
        for phase, what in phase_passes(settings, samples).items()
    }  # fmt: skip
