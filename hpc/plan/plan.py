"""The whole plan of an experiment's training, as one document."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hpc.plan.actual import compare
from hpc.plan.fit import layout_fault
from hpc.plan.levers import Predictor, levers
from hpc.plan.storage import Stored, free_bytes, storage
from hpc.plan.subject import Subject, subject
from hpc.plan.target import Target
from hpc.plan.verdict import Verdict, disk_verdict, memory_verdict, time_verdict
from sunpipe.errors import UsageError
from sunpipe.paths import Layout
from sunpipe.run import find_run, read_stats
from sunpipe.settings import Config

PREDICTED_BY = {
    "memory": "the ledger: networks counted, every phase run on shapes alone; within 15 % of what"
    " trainings on a CPU took (benchmarks/results/plan_memory.json)",
    "gpu": "a roofline over every kernel of an iteration; fitted to published times of StyleGAN2"
    " on V100 and A100 with 7 % error (0.81 to 1.08 of each), not tried on a GPU with this code"
    " (benchmarks/results/plan_anchors.json)",
    "cpu": "a roofline over every kernel of an iteration with rates measured on this machine just"
    " now; within a factor of two",
}


def make_plan(cfg: Config, place: Target, brief: bool = False) -> dict[str, Any]:
    """Everything that ``sunpipe plan`` says, with JSON's types.

    Parameters
    ----------
    brief : bool
        Without the alternatives, each of which is a ledger and a pace of its own.

    Raises
    ------
    UsageError
        Images, batch or layout that the training itself would refuse.
    """
    images = subject(cfg)
    _refuse(cfg, images, place)
    from sunpipe.train.meter import networks
    from sunpipe.train.plan import checkpoint_bytes

    shape = (images.resolution, images.channels)
    predictor = Predictor(*shape, place)
    found, speed = predictor.memory(cfg.train), predictor.pace(cfg.train)
    nets = networks(*shape, cfg.train.model, cfg.train.compute)
    kept = storage(cfg, images, checkpoint_bytes(cfg, *shape))
    layout = Layout.current()
    run = find_run(layout, cfg.name)
    stats = read_stats(run) if run else []
    done = stats[-1]["nimg"] / 1000 if stats else 0.0
    left = max(cfg.train.kimg - done, 0.0)
    seconds = left * speed.seconds_per_kimg
    cpu_pace = None if place.gpu else speed.seconds_per_kimg
    verdicts = [
        memory_verdict(cfg, *shape, found.peak_bytes, place),
        time_verdict(seconds, place.limit_s),
        disk_verdict(_more(kept, run), free_bytes(layout.root), str(layout.root)),
    ]
    return {
        "config": {"name": cfg.name, "dataset": cfg.dataset},
        "images": images.as_json(),
        "target": place.as_json(),
        "parameters": {name: sum(p.numel() for p in net.parameters())
                       for name, net in zip("GD", nets, strict=True)},
        "memory": {**found.as_json(), "parts": found.parts, "predicted_by": PREDICTED_BY["memory"]},
        "pace": {
            "seconds_per_kimg": speed.seconds_per_kimg, "iteration_s": speed.iteration_s,
            "limits_s": speed.limits, "phases_s": speed.phases, "update_s": speed.update,
            "offload_s": speed.offload, "communication_s": speed.communication,
            "mostly": speed.limit,
            "tflop_per_image": speed.flops * place.ranks / speed.batch / 1e12,
            "gb_per_image": speed.moved * place.ranks / speed.batch / 1e9,
            "device": predictor.gpu.name, "device_source": predictor.gpu.source,
            "predicted_by": PREDICTED_BY["gpu" if place.gpu else "cpu"],
        },
        "total": {"kimg": cfg.train.kimg, "kimg_done": done, "kimg_left": left,
                  "seconds": seconds, "node_hours": seconds / 3600 * place.nodes,
                  "gpu_hours": seconds / 3600 * place.ranks if place.gpu else None},
        "levers": [] if brief else [one.as_json() for one in levers(cfg, predictor)],
        "storage": [one.as_json() for one in kept],
        "verdicts": [one.as_json() for one in verdicts],
        "fits": not any(one.word == "does not fit" for one in verdicts),
        "run": None if run is None else {"name": run.name,
                                         "rows": [row.as_json() for row in compare(run, cpu_pace)]},
    }  # fmt: skip


def _refuse(cfg: Config, images: Subject, place: Target) -> None:
    side = images.resolution
    if side < 8 or side & (side - 1):
        raise UsageError(
            f"images of {side} x {side} pixels ({images.source}): StyleGAN2 needs a power of two of"
            " at least 8; change shard.tile or shard.reduce"
        )
    fault = layout_fault(cfg, place.ranks)
    if fault is not None:
        raise UsageError(fault)


def _more(kept: list[Stored], run: Path | None) -> int:
    """Bytes still to be written: without shards that are there, and what the run holds."""
    wanted = sum(one.bytes or 0 for one in kept if one.what != "shards")
    if run is not None:
        wanted -= sum(path.stat().st_size for path in run.rglob("*") if path.is_file())
    return max(wanted, 0)


def words(verdict: dict[str, Any]) -> str:
    """A verdict as one line."""
    change = f"; smallest change: {', '.join(verdict['change'])}" if verdict["change"] else ""
    return f"{verdict['about']}: {verdict['word']} - {verdict['text']}{change}"


__all__ = ["PREDICTED_BY", "Verdict", "make_plan", "words"]
