"""A plan as lines for people: what, where, memory, pace, storage, verdict."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from hpc.plan.plan import words
from hpc.plan.verdict import duration


def size(count: float | None) -> str:
    """Bytes for people, in GiB or MiB; ``?`` for None."""
    if count is None:
        return "?"
    return f"{count / 2**30:.2f} GiB" if count >= 2**30 / 10 else f"{count / 2**20:.1f} MiB"


def lines(plan: dict[str, Any]) -> Iterator[str]:
    """The whole plan, section by section."""
    yield from _head(plan)
    yield ""
    yield from _memory(plan)
    yield ""
    yield from _pace(plan)
    yield ""
    yield "storage"
    for one in plan["storage"]:
        yield f"  {one['what']:<14}{size(one['bytes']):>12}  {one['how']}"
    if plan["run"] is not None:
        yield ""
        refused = plan["run"]["refused"]
        yield (f"predicted and actual, {plan['run']['name']}"
               + (f" ({refused}: it does not go on, and this plan is of a new run)" if refused
                  else ""))  # fmt: skip
        yield from table(("", "predicted", "actual", "ratio"), actual_cells(plan["run"]["rows"]))
    yield ""
    yield from (words(one) for one in plan["verdicts"])


def _head(plan: dict[str, Any]) -> Iterator[str]:
    images, target = plan["images"], plan["target"]
    g, d = (plan["parameters"][net] / 1e6 for net in "GD")
    count = "" if images["trained"] is None else f"{images['trained']} "
    yield (f"{plan['config']['name']}: {count}images {images['channels']} x"
           f" {images['resolution']} x {images['resolution']} ({images['source']}); G {g:.2f} M,"
           f" D {d:.2f} M parameters")  # fmt: skip
    gpu = target["gpu"]
    what = f"GPUs {gpu['name']} ({gpu['source']})" if gpu else "CPU ranks"
    yield (f"on {target['nodes']} node(s) of {target['ranks_per_node']} {what};"
           f" from {target['source']}")  # fmt: skip
    if target["note"]:
        yield f"note: {target['note']}"


def _memory(plan: dict[str, Any]) -> Iterator[str]:
    memory = plan["memory"]
    yield (f"memory of a rank, predicted: {size(memory['peak_bytes'])} at the peak"
           f" ({memory['peak_phase']}), {memory['samples']} images in a pass")  # fmt: skip
    for name, count in memory["parts"].items():
        if count:
            yield f"  {name:<16}{size(count):>12}"
    if memory["host"]:
        yield f"  {'in the host':<16}{size(memory['host']):>12}"
    yield f"  by {memory['predicted_by']}"
    allow = plan["target"]["allowance"]
    if plan["target"]["gpu"]:
        yield (
            f"  beside it: {allow['context_gib']} GiB CUDA context, {allow['libraries_gib']} GiB"
            f" cuBLAS, cuDNN and NCCL, {1 - allow['usable_share']:.0%} for fragments"
        )
    if not plan["levers"]:
        return
    yield ""
    yield "each alternative, all else as it is ('*': as configured)"
    now = next((one for one in plan["levers"] if one["on"]), None)
    cells = [_lever_cells(one, now) for one in plan["levers"]]
    yield from table(("", "peak", "memory", "s/kimg", "time", "host", "peak in"), cells)


def _lever_cells(one: dict[str, Any], now: dict[str, Any] | None) -> tuple[str, ...]:
    """Saving and cost against the settings as they are."""
    memory = time = ""
    if now is not None and not one["on"]:
        memory = f"{one['peak_bytes'] / now['peak_bytes'] - 1:+.0%}"
        time = f"{one['seconds_per_kimg'] / now['seconds_per_kimg'] - 1:+.0%}"
    host = size(one["host_bytes"]) if one["host_bytes"] else ""
    return (("* " if one["on"] else "  ") + one["setting"], size(one["peak_bytes"]), memory,
            f"{one['seconds_per_kimg']:.2f}", time, host, one["peak_phase"])  # fmt: skip


def _pace(plan: dict[str, Any]) -> Iterator[str]:
    pace, total = plan["pace"], plan["total"]
    yield (
        f"pace, predicted: {pace['seconds_per_kimg']:.3g} s/kimg,"
        f" {1000 * pace['iteration_s']:.0f} ms an iteration, mostly {pace['mostly']};"
        f" {pace['tflop_per_image']:.3g} Tflop and {pace['gb_per_image']:.3g} GB an image"
    )
    parts = {**pace["limits_s"], "update": pace["update_s"], "offload": pace["offload_s"],
             "communication": pace["communication_s"]}  # fmt: skip
    shares = (f"{name} {share / pace['iteration_s']:.0%}" for name, share in parts.items() if share)
    yield f"  of which {', '.join(shares)}"
    yield f"  by {pace['predicted_by']}"
    yield from (f"  {note}" for note in pace["notes"])
    gpu = "" if total["gpu_hours"] is None else f", {total['gpu_hours']:.3g} GPU hours"
    done = f" ({total['kimg_done']:g} are done)" if total["kimg_done"] else ""
    yield (
        f"total: {total['kimg_left']:g} kimg{done} in {duration(total['seconds'])},"
        f" {total['node_hours']:.3g} node hours{gpu}; loading, checkpoints and metrics apart"
    )


def actual_cells(rows: Sequence[dict[str, Any]]) -> list[tuple[str, ...]]:
    """Cells of predicted against actual."""

    def said(value: float | None, unit: str) -> str:
        if value is None:
            return "-"
        return size(value) if unit == "bytes" else f"{value:.4g} {unit}"

    return [
        (row["what"], said(row["predicted"], row["unit"]), said(row["actual"], row["unit"]),
         "-" if row["predicted_over_actual"] is None else f"{row['predicted_over_actual']:.2f}")
        for row in rows
    ]  # fmt: skip


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Aligned columns, the first one to the left."""
    widths = [max(len(row[place]) for row in [head, *rows]) for place in range(len(head))]
    for row in [head, *rows]:
        cells = [f"{cell:<{width}}" if not place else f"{cell:>{width}}"
                 for place, (cell, width) in enumerate(zip(row, widths, strict=True))]  # fmt: skip
        yield "  " + "  ".join(cells).rstrip()
