"""What would make a training fit: each lever's saving, computed for this training.

ZeRO-Offload (arXiv:2101.06840) is for networks of many parameters. StyleGAN2 has
few and large feature maps: the sentences here show how much each lever saves.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sunpipe.models.stripes import check as check_stripes
from sunpipe.train.ledger import Device, Ledger, gib, ledger, local_samples
from sunpipe.train_settings import TrainSettings

CHECKPOINTS = ("none", "block", "conv")


@dataclass(frozen=True)
class Suggestion:
    """Settings that fit, what was changed for it, and their ledger."""

    settings: TrainSettings
    changes: tuple[str, ...]
    ledger: Ledger


def changed(settings: TrainSettings, **compute: Any) -> TrainSettings:
    """Return the settings with some of ``[train.compute]`` replaced."""
    return dataclasses.replace(settings, compute=dataclasses.replace(settings.compute, **compute))


def explain(
    resolution: int, channels: int, settings: TrainSettings, ranks: int = 1,
    device: Device = "cuda",
) -> list[str]:  # fmt: skip
    """One sentence per lever: what it saves of the peak of this training.

    A lever that is on is compared with it off, one that is off with it on; all
    the others stay as they are.
    """

    def peak(other: TrainSettings) -> int:
        return ledger(resolution, channels, other, ranks, device).peak_bytes

    here = ledger(resolution, channels, settings, ranks, device)
    zero, compute = settings.zero, settings.compute
    stage: Any = max(zero.stage, 1)
    plain = dataclasses.replace(zero, stage=stage, offload=False)
    moved = dataclasses.replace(zero, stage=stage, offload=True)
    without, offloaded = (
        ledger(resolution, channels, dataclasses.replace(settings, zero=one), ranks, device)
        for one in (plain, moved)
    )
    if device == "cpu":
        sentences = ["offload of the optimiser saves nothing on a CPU: host and device are one"]
    else:
        sentences = [
            f"offload of the optimiser{_state(zero.offload and zero.stage > 0)}:"
            f" {_saving(without.peak_bytes, offloaded.peak_bytes)};"
            f" {gib(offloaded.host)} in the host"
        ]
    local, _ = local_samples(settings, ranks)
    levers: list[tuple[str, bool, dict[str, Any], dict[str, Any]]] = [
        ("precision = bf16", compute.precision == "bf16",
         {"precision": "fp32"}, {"precision": "bf16"}),
        *((f"checkpoint = {kind}", compute.checkpoint == kind,
           {"checkpoint": "none"}, {"checkpoint": kind}) for kind in CHECKPOINTS[1:]),
        (f"accumulate = {local} (one image in a pass)", compute.accumulate == local,
         {"accumulate": 1}, {"accumulate": local}),
    ]  # fmt: skip
    for name, on, off_settings, on_settings in levers:
        base = peak(changed(settings, **off_settings)) if on else here.peak_bytes
        if name.startswith("accumulate") and local == 1:
            continue
        sentences.append(
            f"{name}{_state(on)}: {_saving(base, peak(changed(settings, **on_settings)))}"
        )
    return sentences


def _state(on: bool) -> str:
    return " (on)" if on else ""


def _saving(before: int, after: int) -> str:
    if after >= before:
        return f"saves nothing of {gib(before)}"
    return f"saves {gib(before - after)} of {gib(before)} ({1 - after / before:.0%})"


def _combinations(
    settings: TrainSettings, resolution: int, ranks: int, half: bool
) -> Iterator[dict[str, Any]]:
    """Cheapest first; precision and stripes never weaker than what was asked for."""
    compute = settings.compute
    local, _ = local_samples(settings, ranks)
    group = settings.model.mbstd_group
    counts = [n for n in range(compute.accumulate, local + 1) if local % n == 0]
    # passes of fewer images than a group of the minibatch statistics change the model: last
    whole = [n for n in counts if (local // n) % group == 0] or counts[:1]
    precisions = dict.fromkeys((compute.precision, "bf16" if half else compute.precision))
    kinds = CHECKPOINTS[CHECKPOINTS.index(compute.checkpoint) :]
    stripes = [n for n in (1, 2, 4, 8, 16) if n >= compute.stripes and ranks % n == 0
               and _may_share(n, compute.stripes_from, resolution)]  # fmt: skip
    for some in (whole, counts):
        for stripe in stripes:
            for checkpoint in kinds:
                for accumulate in some:
                    for precision in precisions:
                        yield {"precision": precision, "accumulate": accumulate,
                               "checkpoint": checkpoint, "stripes": stripe}  # fmt: skip


def _may_share(stripes: int, stripes_from: int, resolution: int) -> bool:
    try:
        check_stripes(stripes, stripes_from, resolution)
    except ValueError:
        return False
    return True


def suggest(
    resolution: int, channels: int, settings: TrainSettings, ranks: int, memory_bytes: float,
    device: Device = "cuda", *, half: bool,
) -> Suggestion | None:  # fmt: skip
    """Cheapest settings of ``[train.compute]`` that fit `memory_bytes`; None when none does.

    Tried in this order: bf16, more passes, checkpoints per block and per
    convolution, stripes over ranks, and last passes of fewer images than
    ``mbstd_group``, which change the minibatch statistics. Without `half` (a device
    that has no units for bfloat16) bf16 is not.
    """
    for levers in _combinations(settings, resolution, ranks, half):
        other = changed(settings, **levers)
        found = ledger(resolution, channels, other, ranks, device)
        if found.states > memory_bytes:
            return None  # no lever here makes the states smaller
        if found.peak_bytes <= memory_bytes:
            changes = tuple(
                f"train.compute.{name} = {value}"
                for name, value in levers.items()
                if value != getattr(settings.compute, name)
            )
            return Suggestion(other, changes, found)
    return None
