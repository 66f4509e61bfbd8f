"""Each setting that trades memory for time: what it would save here, and what it costs."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hpc.plan.target import Target
from sunpipe.settings import Config
from sunpipe.train_settings import TrainSettings

if TYPE_CHECKING:
    from sunpipe.train.ledger import Ledger
    from sunpipe.train.pace import Pace


@dataclass(frozen=True)
class Lever:
    """One alternative to the settings, all others as they are.

    Attributes
    ----------
    on : bool
        It is what the configuration says.
    peak_bytes, host_bytes : int
        Of one rank, on the GPU and in the memory of the host.
    seconds_per_kimg : float or None
    """

    setting: str
    on: bool
    peak_bytes: int
    peak_phase: str
    host_bytes: int
    seconds_per_kimg: float | None

    def as_json(self) -> dict[str, Any]:
        """As a dictionary."""
        return vars(self)


class Predictor:
    """Memory and pace of settings, on one machine and for one shape of images."""

    def __init__(self, resolution: int, channels: int, place: Target, with_pace: bool = True):
        self.shape, self.place = (resolution, channels), place
        self.reached: Any = None
        self.gpu: Any = place.gpu
        if place.gpu is None and with_pace:
            from sunpipe.train.calibrate import measure_cpu

            self.gpu, self.reached = measure_cpu()

    def memory(self, t: TrainSettings) -> Ledger:
        """The ledger of one rank."""
        from sunpipe.train.ledger import ledger

        device: Any = "cpu" if self.place.gpu is None else "cuda"
        return ledger(*self.shape, t, self.place.ranks, device)

    def pace(self, t: TrainSettings) -> Pace:
        """Seconds per kimg and of what they are made."""
        from sunpipe.train.pace import pace

        more = {} if self.reached is None else {"reached": self.reached}
        return pace(*self.shape, t, self.gpu, self.place.ranks, self.place.per_node, **more)


def alternatives(
    t: TrainSettings, ranks: int, half: bool = True
) -> Iterator[tuple[str, TrainSettings]]:
    """Settings to compare, with their names; those of the configuration are among them.

    Parameters
    ----------
    half : bool
        The device has units for bfloat16.
    """
    from sunpipe.train.ledger import local_samples

    def zero(stage: Any, offload: bool) -> TrainSettings:
        moved = dataclasses.replace(t.zero, stage=stage, offload=offload and stage > 0)
        return dataclasses.replace(t, zero=moved)

    def compute(**changes: Any) -> TrainSettings:
        return dataclasses.replace(t, compute=dataclasses.replace(t.compute, **changes))

    yield "zero.stage = 0", zero(0, False)
    for stage in (1, 2):
        for offload in (False, True):
            yield (f"zero.stage = {stage}, zero.offload = {str(offload).lower()}",
                   zero(stage, offload))  # fmt: skip
    for kind in ("none", "block", "conv"):
        yield f"compute.checkpoint = {kind}", compute(checkpoint=kind)
    local, _ = local_samples(t, ranks)
    if local > 1:
        yield f"compute.accumulate = {local}", compute(accumulate=local)
    if half and t.compute.precision != "bf16":
        yield "compute.precision = bf16", compute(precision="bf16")


def same(one: TrainSettings, other: TrainSettings) -> bool:
    """Whether two settings are the same training; offload is nothing without a stage."""

    def plain(t: TrainSettings) -> TrainSettings:
        zero = t.zero if t.zero.stage else dataclasses.replace(t.zero, offload=False)
        return dataclasses.replace(t, zero=zero)

    return plain(one) == plain(other)


def levers(cfg: Config, predictor: Predictor) -> list[Lever]:
    """The table: each alternative's peak and pace."""
    rows = []
    gpu = predictor.place.gpu
    half = gpu is None or bool(gpu.bf16)
    for name, t in alternatives(cfg.train, predictor.place.ranks, half):
        found = predictor.memory(t)
        rows.append(Lever(name, same(t, cfg.train), found.peak_bytes, found.peak_phase, found.host,
                          predictor.pace(t).seconds_per_kimg))  # fmt: skip
    return rows
