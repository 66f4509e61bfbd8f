"""Before a job is queued: what would make it fail, and what its owner should know.

Only what is certain is refused: a job may wait for days, and one that was refused wrongly
would not have run at all. A training costs one ledger and one pace of its discriminator, some
seconds of one core; what would make it fit is searched by ``sunpipe plan``, not here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from hpc.plan.subject import Subject, subject, to_be_made
from hpc.profile import Profile, Resources, minutes
from sunpipe.errors import DataError, UsageError
from sunpipe.paths import Layout
from sunpipe.settings import Config

if TYPE_CHECKING:
    from hpc.plan.target import Target

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
    ranks on one GPU, what the training itself refuses (`sunpipe.train.refuse`; of images
    yet to be made that is a warning), and a training whose states and activations do not
    fit the GPU that the profile names. Warned of are: idle GPUs, a GPU whose figures are
    not known, a training that nearly fills its GPU, one that cannot be checked, ``mem``
    or a disk that is too small, and a training of very many jobs.

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
    from hpc.plan.target import of_profile
    from sunpipe.train.refuse import check_images, check_layout

    wanted = profile.stages.train
    expected = images or to_be_made(cfg)
    try:
        check_layout(cfg.train, wanted.nodes * wanted.tasks_per_node)
    except UsageError as error:
        yield Finding("refuse", "train", str(error))
        return
    try:
        check_images(cfg, expected.resolution, expected.names, expected.units, expected.trained)
    except (UsageError, DataError) as error:
        yield Finding("refuse" if images else "warn", "train", str(error))
        return
    yield from _disk(cfg, expected)
    try:
        place = of_profile(profile)
    except UsageError as error:
        yield Finding("warn", "train", f"memory and time are not checked: {error}")
        return
    if place is not None:
        yield from _memory(cfg, place, expected, certain=images is not None)


def _memory(cfg: Config, place: Target, images: Subject, certain: bool) -> Iterator[Finding]:
    """Of the GPU and of the host, and the time, where they are known."""
    from hpc.plan.target import CONTEXT_GIB
    from hpc.plan.verdict import host_verdict
    from sunpipe.train.ledger import gib, ledger

    if place.gpu is None and place.host_bytes is None:
        return
    found = ledger(images.resolution, images.channels, cfg.train, place.ranks, place.device)
    host = host_verdict(found, place)
    if host.word == "does not fit":
        yield Finding("warn", "train", f"{host.text}; {', '.join(host.change)}")
    if place.gpu is None or place.memory_bytes is None:
        return
    if found.peak_bytes > place.memory_bytes:
        whole = (place.gpu.memory_gib - CONTEXT_GIB) * 2**30
        sure = certain and found.peak_bytes > whole
        yield Finding("refuse" if sure else "warn", "train", f"needs {gib(found.peak_bytes)} a GPU"
                      f" at the peak ({found.peak_phase}), a {place.gpu.name} has"
                      f" {place.gpu.memory_gib:g} GiB; sunpipe plan looks for settings that"
                      " fit")  # fmt: skip
        return
    yield from _duration(cfg, place, images)


def _duration(cfg: Config, place: Target, images: Subject) -> Iterator[Finding]:
    """Kernels of D's main phase alone: a training takes longer than they do."""
    from hpc.plan.trained import trained
    from hpc.plan.verdict import duration, too_long
    from sunpipe.train.pace import least_seconds_per_kimg

    assert place.gpu is not None
    assert place.limit_s is not None
    left = max(cfg.train.kimg - trained(cfg).kimg, 0.0)
    seconds = left * least_seconds_per_kimg(
        images.resolution, images.channels, cfg.train, place.gpu, place.ranks
    )
    if place.limit_s > 0 and too_long(seconds, place.limit_s):
        yield Finding("warn", "train", f"takes more than {duration(seconds)}, in jobs of"
                      f" {duration(place.limit_s)}")  # fmt: skip


def _disk(cfg: Config, images: Subject) -> Iterator[Finding]:
    """What is known to be written, against what is free."""
    from hpc.plan.storage import experiment, free_bytes
    from hpc.plan.trained import trained
    from hpc.plan.verdict import disk_verdict

    root = Layout.current().root
    stands = trained(cfg)
    kept = experiment(cfg, images, None if stands.refused else stands.run)
    verdict = disk_verdict(kept, free_bytes(root), str(root))
    if verdict.word == "does not fit":
        yield Finding("warn", "train", verdict.text)


def _encoder(cfg: Config, profile: Profile) -> Iterator[Finding]:
    wanted = profile.stages.ssl
    ranks = wanted.nodes * wanted.tasks_per_node
    if cfg.ssl.batch % ranks or cfg.ssl.batch // ranks < 2:
        yield Finding("refuse", "ssl", f"ssl.batch = {cfg.ssl.batch} does not divide over {ranks}"
                      " ranks with two patches or more each")  # fmt: skip
