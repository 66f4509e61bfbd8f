"""The levers of training one by one on a GPU: s/kimg and memory, 1024 to 4096.

Parts, each less than ten minutes on an H200:

    python benchmarks/train_gpu.py ladder --resolution 1024 --batch 16
    python benchmarks/train_gpu.py ladder --resolution 1024 --batch 16 --channels 3
    python benchmarks/train_gpu.py sizes --resolutions 1024 2048 4096
    python benchmarks/train_gpu.py command --resolution 1024 --batch 16

``ladder`` turns on one lever after another, from modulated weights in groups to all of
them; ``scaled`` is the original code's layout in plain operations (scaled activations,
NCHW, half precision on the top four sizes, upfirdn by zero insertion). ``sizes`` takes
the largest batch that the ledger promises, with and without checkpoints. ``command``
is ``sunpipe train`` itself, loading and statistics included, by its ``stats.jsonl``.
Other s/kimg are medians of synchronised wall time, R1 and path length weighted by their intervals;
memory is ``max_memory_allocated`` beside the ledger. What a row allows a GPU to round,
``fp32``, ``tf32`` or ``bf16``, is what a training of that precision allows.

In the result file each part keeps the circumstances of all its ``runs``, and each
row the number of its ``run``. Rows that were not run stay "not measured"; ``list``
writes it so. ``torch.compile`` has no row, see `NO_COMPILE`.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import train_command
from benchmarks.machine import circumstances, write
from benchmarks.plain_layers import Formulation
from benchmarks.whole_step import Contender, Step, matmul_rate, step_flops, weights
from sunpipe.train.ledger import ledger
from sunpipe.train_settings import ComputeSettings, ModelSettings, TrainSettings, ZeroSettings

OUT = Path(__file__).parent / "results" / "train_gpu.json"
NOT_MEASURED = "not measured"
COMMAND = "sunpipe train, bf16 from 64"
NO_COMPILE = (
    "torch.compile has no row. With fullgraph=True a G step does not compile (torch 2.13, CPU):"
    " Dynamo stops in the autograd.Function of the modulated convolution, 'Attempted to call op"
    " with non-contiguous out= tensor'. Without it each of these layers breaks the graph and runs"
    " as before, which measures the rest only; and what is compiled has no second derivative,"
    " which R1 and path length need of the same modules."
)
Part = dict[str, Any]
BATCHES = (64, 32, 16, 8, 4, 2, 1)


def contender(
    name: str, batch: int, model: ModelSettings, layers: Formulation = "ours", *,
    r1_batch_shrink: int = 1, **compute: Any,
) -> Contender:  # fmt: skip
    """A row: a formulation and its ``[train.compute]``."""
    t = TrainSettings(batch=batch, model=model, compute=ComputeSettings(**compute),
                      r1_batch_shrink=r1_batch_shrink,
                      zero=ZeroSettings(stage=0, offload=False))  # fmt: skip
    return Contender(name, t, layers, t.compute.precision != "fp32")  # as the trainer has it


def rungs(resolution: int, batch: int, model: ModelSettings) -> list[Contender]:
    """The ladder, one lever more in each row; the last two trade time for memory."""
    top_four: Any = {"precision": "bf16", "bf16_from": max(resolution // 8, 1)}
    plain: Any = {"channels_last": False}
    tf32: Any = {"precision": "tf32"}
    bf16: Any = {"precision": "bf16", "bf16_from": 64}
    return [
        contender("grouped fp32 NCHW", batch, model, "grouped", **plain),
        contender("grouped tf32 NCHW", batch, model, "grouped", **plain, **tf32),
        contender("scaled tf32 NCHW", batch, model, "scaled", **plain, **tf32),
        contender("scaled NCHW, bf16 top four", batch, model, "scaled", **plain, **top_four),
        contender("fused saving fp32 NCHW", batch, model, **plain),
        contender("fused saving tf32 NCHW", batch, model, **plain, **tf32),
        contender("fused saving tf32 channels-last", batch, model, **tf32),
        contender("channels-last, bf16 top four", batch, model, **top_four),
        contender("channels-last, bf16 from 64", batch, model, **bf16),
        contender("bf16 from 64, R1 on a quarter", batch, model, r1_batch_shrink=4, **bf16),
        contender("bf16 from 64, checkpoint block", batch, model, checkpoint="block", **bf16),
        contender("bf16 from 64, checkpoint conv", batch, model, checkpoint="conv", **bf16),
    ]


def sizes(resolution: int, channels: int, model: ModelSettings, memory: float) -> list[Contender]:
    """Largest batch that the ledger promises to fit, without and with checkpoints."""
    rows = []
    for kind in ("none", "block", "conv"):
        for batch in BATCHES:
            row = contender(f"bf16, checkpoint {kind}, batch {batch}", batch, model,
                            precision="bf16", checkpoint=kind)  # fmt: skip
            if ledger(resolution, channels, row.settings).peak_bytes <= memory:
                rows.append(row)
                break
    return rows


def predicted(row: Contender, resolution: int, channels: int) -> int | None:
    """The ledger's peak; it knows our layers only."""
    if row.layers != "ours":
        return None
    return ledger(resolution, channels, row.settings).peak_bytes


def measure(
    row: Contender, resolution: int, channels: int, device: torch.device, warm: int, timed: int
) -> dict[str, Any]:
    """Seconds per thousand images, and memory."""
    cuda = device.type == "cuda"
    if cuda:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    found: dict[str, Any] = {"predicted_bytes": predicted(row, resolution, channels)}
    try:
        step = Step(row, resolution, channels, device)
        often, medians = weights(row.settings), {}
        for phase in often:
            for _ in range(warm):
                step.run(phase)
            medians[phase] = statistics.median(
                step.seconds(phase, time.perf_counter) for _ in range(timed)
            )
    except torch.cuda.OutOfMemoryError:
        return found | {"s_per_kimg": "out of memory"}
    seconds = sum(often[phase] * medians[phase] for phase in often)
    flops = step_flops(resolution, channels, row.settings)
    found |= {
        "batch": row.settings.batch, "s_per_kimg": 1000 * seconds / row.settings.batch,
        "seconds_of_a_phase": medians, "tflop_per_s": flops / seconds / 1e12,
        "peak_bytes": torch.cuda.max_memory_allocated(device) if cuda else NOT_MEASURED,
    }  # fmt: skip
    if cuda and found["predicted_bytes"]:
        found["predicted_over_measured"] = found["predicted_bytes"] / found["peak_bytes"]
    return found


def run_of(part: Part, device: torch.device) -> int:
    """Note the circumstances of this run of a part; its number."""
    runs = part.setdefault("runs", [])
    runs.append(circumstances("train_gpu", cuda=device.type == "cuda"))
    return len(runs) - 1


def fill(part: Part, run: int, name: str, found: dict[str, Any]) -> None:
    """Put a measured row into its part."""
    part.setdefault("rows", {})[name] = found | {"run": run}
    print(f"{name}: {found}", file=sys.stderr, flush=True)


def unmeasured(resolutions: list[int], batch: int, model: ModelSettings) -> dict[str, Any]:
    """Every row of the default commands, with what is known beforehand."""
    table: dict[str, Any] = {}
    for channels in (1, 3):
        table[f"ladder {resolutions[0]}, {channels} channels, batch {batch}"] = {
            "runs": [],
            "rows": {
                row.name: {"predicted_bytes": predicted(row, resolutions[0], channels),
                           "s_per_kimg": NOT_MEASURED, "peak_bytes": NOT_MEASURED}
                for row in rungs(resolutions[0], batch, model)
            },
        }  # fmt: skip
    for resolution in resolutions:
        table[f"sizes {resolution}, 1 channels"] = {"runs": [], "rows": NOT_MEASURED}
    table[f"command {resolutions[0]}, 1 channels, batch {batch}"] = {
        "runs": [], "rows": {COMMAND: NOT_MEASURED}}  # fmt: skip
    return table


def arguments(given: list[str] | None = None) -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=("ladder", "sizes", "command", "list"))
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--resolution", type=int, default=1024, help="of the ladder")
    parser.add_argument("--resolutions", type=int, nargs="+", default=[1024, 2048, 4096])
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--channels", type=int, default=1)
    parser.add_argument("--channel-base", type=int, default=ModelSettings().channel_base)
    parser.add_argument("--memory-gib", type=float, help="for sizes; default: 0.9 of the GPU's")
    parser.add_argument("--warm", type=int, default=5)
    parser.add_argument("--timed", type=int, default=15)
    parser.add_argument("--rows", nargs="+", help="names of the rungs to run; default all")
    parser.add_argument("--ticks", type=int, default=4, help="of 16 iterations, of command")
    parser.add_argument("--out", type=Path, help=f"default: {OUT.name} in results/")
    args = parser.parse_args(given)
    if args.out is None and args.device == "cpu" and args.part != "list":
        parser.error("--device cpu needs --out: the published file holds what GPUs did")
    args.out = args.out or OUT
    return args


def main(given: list[str] | None = None) -> None:
    """Run a part and put its rows into the result file."""
    args = arguments(given)
    if args.device == "cuda" and args.part != "list" and not torch.cuda.is_available():
        sys.exit("train_gpu: no CUDA device here; --device cpu --resolution 32 tries the code only")
    device = torch.device(args.device)
    model = dataclasses.replace(ModelSettings(), channel_base=args.channel_base)
    table: dict[str, Part] = {}
    if args.out.exists():
        table = json.loads(args.out.read_text())["parts"]
    if args.part == "list":
        for name, part in unmeasured(args.resolutions, args.batch, model).items():
            table.setdefault(name, part)
    elif args.part == "ladder":
        ladder(table, args, device, model)
    elif args.part == "command":
        key = f"command {args.resolution}, {args.channels} channels, batch {args.batch}"
        part = table.setdefault(key, {})
        found = train_command.measure(
            args.resolution, args.channels, args.batch, args.device, args.ticks,
            compute__precision="bf16", model__channel_base=args.channel_base,
        )  # fmt: skip
        fill(part, run_of(part, device), COMMAND, found)
    else:
        whole = torch.cuda.get_device_properties(0).total_memory if device.type == "cuda" else 2**33
        memory = 2**30 * args.memory_gib if args.memory_gib else 0.9 * whole
        for resolution in args.resolutions:
            part = table[f"sizes {resolution}, {args.channels} channels"] = {"rows": {}}
            run = run_of(part, device)
            for row in sizes(resolution, args.channels, model, memory):
                fill(part, run, row.name, measure(
                    row, resolution, args.channels, device, args.warm, args.timed
                ))  # fmt: skip
            part["rows"] = part["rows"] or "does not fit"
    write({"no_compile": NO_COMPILE, "parts": table}, args.out)


def ladder(
    table: dict[str, Part], args: argparse.Namespace, device: torch.device, model: ModelSettings
) -> None:
    """Measure the rungs that were asked for."""
    part = table.setdefault(
        f"ladder {args.resolution}, {args.channels} channels, batch {args.batch}", {}
    )
    run = run_of(part, device)
    for row in rungs(args.resolution, args.batch, model):
        if args.rows and row.name not in args.rows:
            part.setdefault("rows", {}).setdefault(row.name, NOT_MEASURED)
            continue
        fill(part, run, row.name, measure(
            row, args.resolution, args.channels, device, args.warm, args.timed
        ))  # fmt: skip
    part["runs"][run]["matmul_tflop_per_s"] = matmul_rate(
        torch.bfloat16, device, 8192 if device.type == "cuda" else 256, time.perf_counter
    ) / 1e12  # fmt: skip


if __name__ == "__main__":
    main()
