"""The whole plan of an experiment's training, as one document."""

from __future__ import annotations

import os
from typing import Any

from hpc.plan.actual import compare
from hpc.plan.levers import Predictor, levers
from hpc.plan.storage import experiment, free_bytes
from hpc.plan.subject import Subject, subject
from hpc.plan.target import Target
from hpc.plan.trained import trained
from hpc.plan.verdict import disk_verdict, host_verdict, memory_verdict, time_verdict
from sunpipe.paths import Layout
from sunpipe.settings import Config

PREDICTED_BY = {
    "memory": "the ledger: networks counted, every phase run on shapes alone; within 15 % of what"
    " trainings of one rank on a CPU took beside their process, with an allocator that gives freed"
    " memory back (benchmarks/results/plan_memory.json); by itself glibc keeps some of it: a large"
    " network took 1.3 times the prediction (docs/plan.md)",
    "gpu_memory": "the ledger: networks counted, every phase run on shapes alone; not tried on a"
    " GPU with this code, published peaks are 1.1 to 2 times as high (docs/plan.md)",
    "gpu": "a roofline over every kernel of an iteration; fitted to published times of StyleGAN2"
    " on V100 and A100 with 7 % error (0.81 to 1.08 of each), not tried on a GPU with this code"
    " (benchmarks/results/plan_anchors.json)",
    "cpu": "a roofline over every kernel of an iteration with rates measured on this machine just"
    " now; within a factor of two where nothing else runs",
}


def make_plan(cfg: Config, place: Target, brief: bool = False) -> dict[str, Any]:
    """Everything that ``sunpipe plan`` says, with JSON's types.

    Parameters
    ----------
    brief : bool
        Without the alternatives, each of which is a ledger and a pace of its own.

    Raises
    ------
    UsageError, DataError
        What the training itself would refuse, see `sunpipe.train.refuse`.
    """
    images = subject(cfg)
    _refuse(cfg, images, place)
    from sunpipe.train.meter import networks

    shape = (images.resolution, images.channels)
    predictor = Predictor(*shape, place)
    found, speed = predictor.memory(cfg.train), predictor.pace(cfg.train)
    nets = networks(*shape, cfg.train.model, cfg.train.compute)
    stands = trained(cfg)
    kept = experiment(cfg, images, None if stands.refused else stands.run)
    root = Layout.current().root
    left = max(cfg.train.kimg - stands.kimg, 0.0)
    seconds = left * speed.seconds_per_kimg
    run, cpu_pace = stands.run, None if place.gpu or stands.refused else speed.seconds_per_kimg
    verdicts = [host_verdict(found, place)]
    if place.gpu is not None:
        gpu = memory_verdict(cfg, *shape, found.peak_bytes, place)
        # what nobody asked to be compared is no verdict
        verdicts = [gpu, *(one for one in verdicts if found.host and one.word != "unknown")]
    verdicts += [
        time_verdict(seconds, place.limit_s),
        disk_verdict(kept, free_bytes(root), str(root)),
    ]
    return {
        "config": {"name": cfg.name, "dataset": cfg.dataset},
        "images": images.as_json(),
        "target": place.as_json(),
        "parameters": {name: sum(p.numel() for p in net.parameters())
                       for name, net in zip("GD", nets, strict=True)},
        "memory": {**found.as_json(), "parts": found.parts, "predicted_by":
                   PREDICTED_BY["gpu_memory" if place.gpu else "memory"]},
        "pace": {
            "seconds_per_kimg": speed.seconds_per_kimg, "iteration_s": speed.iteration_s,
            "limits_s": speed.limits, "phases_s": speed.phases, "update_s": speed.update,
            "offload_s": speed.offload, "communication_s": speed.communication,
            "mostly": speed.limit,
            "tflop_per_image": speed.flops * place.ranks / speed.batch / 1e12,
            "gb_per_image": speed.moved * place.ranks / speed.batch / 1e9,
            "device": predictor.gpu.name, "device_source": predictor.gpu.source,
            "predicted_by": PREDICTED_BY["gpu" if place.gpu else "cpu"],
            "notes": _notes(cfg, place),
        },
        "total": {"kimg": cfg.train.kimg, "kimg_done": stands.kimg, "kimg_left": left,
                  "seconds": seconds, "node_hours": seconds / 3600 * place.nodes,
                  "gpu_hours": seconds / 3600 * place.ranks if place.gpu else None},
        "levers": [] if brief else [one.as_json() for one in levers(cfg, predictor)],
        "storage": [one.as_json() for one in kept],
        "verdicts": [one.as_json() for one in verdicts],
        "fits": not any(one.word == "does not fit" for one in verdicts),
        "run": None if run is None else {"name": run.name, "refused": stands.refused,
                                         "rows": [row.as_json() for row in compare(run, cpu_pace)]},
    }  # fmt: skip


def _refuse(cfg: Config, images: Subject, place: Target) -> None:
    from sunpipe.train.refuse import check_images, check_layout

    check_layout(cfg.train, place.ranks)
    check_images(cfg, images.resolution, images.names, images.units, images.trained)


def _notes(cfg: Config, place: Target) -> list[str]:
    """What makes this pace less certain."""
    notes = []
    if place.gpu is None and (said := busy(os.getloadavg()[0], os.cpu_count() or 1)):
        notes.append(said)
    if place.gpu is not None and not place.gpu.bf16 and cfg.train.compute.precision == "bf16":
        notes.append(
            f"a {place.gpu.name} has no units for bfloat16: counted as float32, and its"
            " libraries may be slower or refuse it; use train.compute.precision=fp32"
        )
    if cfg.train.compute.stripes > 1:
        notes.append("without the exchange of rows between ranks that share an image: it takes"
                     " longer")  # fmt: skip
    return notes


def busy(load: float, cores: int) -> str | None:
    """A sentence on other work that a measurement of this machine's CPU was disturbed by."""
    if load < 0.5 * cores:
        return None
    return (f"this machine is busy (load {load:.1f} on {cores} cores): the rates were measured too"
            " low, and a training alone on it would be up to several times as fast")  # fmt: skip


def words(verdict: dict[str, Any]) -> str:
    """A verdict as one line."""
    change = f"; smallest change: {', '.join(verdict['change'])}" if verdict["change"] else ""
    return f"{verdict['about']}: {verdict['word']} - {verdict['text']}{change}"
