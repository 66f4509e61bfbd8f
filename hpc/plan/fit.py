"""Before a job is queued: what would make it fail, and what its owner should know.

Quick (seconds), and only what is certain is refused: a job may wait for days, and one
that was refused wrongly would not have run at all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from hpc.plan.subject import Subject, subject, to_be_made
from hpc.profile import Profile, Resources, minutes
from sunpipe.errors import UsageError
from sunpipe.settings import Config

GPU_STAGES = ("train", "ssl")  # one rank per GPU


@dataclass(frozen=True)
class Finding:
    """What `queue_check` found: ``refuse`` would fail for certain, ``warn`` is worth knowing."""

    level: Literal["refuse", "warn"]
    stage: str
    text: str

    def as_json(self) -> dict[str, Any]:
        """As a dictionary."""
        return vars(self)


def queue_check(cfg: Config, profile: Profile, stages: Sequence[str]) -> list[Finding]:
    """Look at stages that are about to be queued.

    Refused are: a time limit that is not longer than the warning before it, several
    ranks on one GPU, a batch, resolution or layout that the training itself refuses,
    and a training whose states and activations do not fit the GPU that the profile
    names. Warned of are: idle GPUs, a GPU whose figures are not known, a training
    that nearly fills its GPU, and one that cannot be checked.

    Parameters
    ----------
    stages : sequence of str
        Names of the stages, as in `hpc.stages.STAGES`.

    Raises
    ------
    DataError
        A dataset that is there and cannot be read.
    """
    found: list[Finding] = []
    for stage in stages:
        wanted: Resources = getattr(profile.stages, stage)
        found += _time(stage, wanted, profile)
        if stage in GPU_STAGES:
            found += _gpus(stage, wanted)
    if "train" in stages:
        images = None if "shard" in stages else subject(cfg)
        found += _training(cfg, profile, images if images and images.images else None)
    if "ssl" in stages:
        found += _encoder(cfg, profile)
    return found


def _time(stage: str, wanted: Resources, profile: Profile) -> Iterator[Finding]:
    if 60 * minutes(wanted.time) <= profile.signal_s:
        yield Finding("refuse", stage, f"time = {wanted.time} is not longer than signal_s ="
                      f" {profile.signal_s}: it would be asked to stop as it starts")  # fmt: skip


def _gpus(stage: str, wanted: Resources) -> Iterator[Finding]:
    gpus, tasks = wanted.gpus_per_node, wanted.tasks_per_node
    if gpus and tasks > gpus:
        yield Finding("refuse", stage, f"{tasks} tasks a node share {gpus} GPUs: NCCL needs one"
                      f" for each; set tasks_per_node = {gpus}")  # fmt: skip
    elif gpus > tasks:
        yield Finding("warn", stage, f"{gpus - tasks} of {gpus} GPUs a node would be idle: one task"
                      f" uses one; set tasks_per_node = {gpus}")  # fmt: skip


def _training(cfg: Config, profile: Profile, images: Subject | None) -> Iterator[Finding]:
    """`images` None: they are not made yet, and may differ from what ``[shard]`` says now."""
    wanted = profile.stages.train
    ranks = wanted.nodes * wanted.tasks_per_node
    refused = layout_fault(cfg, ranks)
    if refused is not None:
        yield Finding("refuse", "train", refused)
        return
    expected = images or to_be_made(cfg)
    side = expected.resolution
    if side < 8 or side & (side - 1):
        yield Finding("refuse" if images else "warn", "train", f"images of {side} x {side} pixels:"
                      " StyleGAN2 needs a power of two of at least 8")  # fmt: skip
        return
    if not profile.gpu or not wanted.gpus_per_node:
        return
    try:
        yield from _memory(cfg, profile, expected, certain=images is not None)
    except UsageError as error:
        yield Finding("warn", "train", f"memory and time are not checked: {error}")


def _memory(cfg: Config, profile: Profile, images: Subject, certain: bool) -> Iterator[Finding]:
    from hpc.plan.target import CONTEXT_GIB, Target
    from hpc.plan.verdict import memory_change
    from sunpipe.train.gpus import find_gpu
    from sunpipe.train.ledger import gib, ledger

    wanted = profile.stages.train
    place = Target(find_gpu(profile.gpu), wanted.nodes, wanted.tasks_per_node, None, "profile")
    assert place.gpu is not None
    assert place.memory_bytes is not None
    shape = (images.resolution, images.channels)
    found = ledger(*shape, cfg.train, place.ranks, "cuda")
    if found.peak_bytes <= place.memory_bytes:
        return
    whole = (place.gpu.memory_gib - CONTEXT_GIB) * 2**30
    change = memory_change(cfg, *shape, place)
    way = f"set {', '.join(change)}" if change else "no setting of [train.compute] makes it fit"
    sure = certain and found.peak_bytes > whole
    yield Finding("refuse" if sure else "warn", "train", f"needs {gib(found.peak_bytes)} a GPU at"
                  f" the peak ({found.peak_phase}), a {place.gpu.name} has"
                  f" {place.gpu.memory_gib:g} GiB; {way}")  # fmt: skip


def layout_fault(cfg: Config, ranks: int) -> str | None:
    """Why a batch does not divide over ranks, groups of stripes and passes; None if it does."""
    t, compute = cfg.train, cfg.train.compute
    if t.zero.stage == 3:
        return "train.zero.stage = 3 is not offered; set 0, 1 or 2"
    if ranks % compute.stripes:
        return (f"{ranks} ranks do not divide into groups of train.compute.stripes ="
                f" {compute.stripes}")  # fmt: skip
    parts = ranks // compute.stripes * compute.accumulate
    if t.batch % parts:
        passes = f" x {compute.accumulate} passes" if compute.accumulate > 1 else ""
        return (f"train.batch = {t.batch} does not divide over {ranks // compute.stripes}"
                f" ranks{passes}; use a multiple of {parts}")  # fmt: skip
    return None


def _encoder(cfg: Config, profile: Profile) -> Iterator[Finding]:
    wanted = profile.stages.ssl
    ranks = wanted.nodes * wanted.tasks_per_node
    if cfg.ssl.batch % ranks or cfg.ssl.batch // ranks < 2:
        yield Finding("refuse", "ssl", f"ssl.batch = {cfg.ssl.batch} does not divide over {ranks}"
                      " ranks with two patches or more each")  # fmt: skip
