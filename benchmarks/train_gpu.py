"""The levers of training one by one on a GPU: s/kimg and memory, 1024 to 4096.

Three parts, each less than ten minutes on an H200:

    python benchmarks/train_gpu.py ladder --resolution 1024 --batch 16
    python benchmarks/train_gpu.py ladder --resolution 1024 --batch 16 --channels 3
    python benchmarks/train_gpu.py sizes --resolutions 1024 2048 4096

``ladder`` turns on one lever after another, from modulated weights in groups to all of
them; ``scaled`` is the original code's layout in plain operations (scaled activations,
NCHW, half precision on the top four sizes, upfirdn by zero insertion). ``sizes`` takes
the largest batch that the ledger promises, with and without checkpoints. s/kimg are
medians of synchronised wall time, R1 and path length weighted by their intervals;
memory is ``max_memory_allocated`` beside the ledger. Rows of parts that were not run
stay "not measured" in the result file; ``list`` writes it so.
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

from benchmarks.machine import document, write
from benchmarks.plain_layers import Formulation
from benchmarks.whole_step import Contender, Step, matmul_rate, step_flops, weights
from sunpipe.train.ledger import ledger
from sunpipe.train_settings import ComputeSettings, ModelSettings, TrainSettings, ZeroSettings

OUT = Path(__file__).parent / "results" / "train_gpu.json"
NOT_MEASURED = "not measured"
BATCHES = (64, 32, 16, 8, 4, 2, 1)


def contender(
    name: str, batch: int, model: ModelSettings, layers: Formulation = "ours", *,
    tf32: bool = True, **compute: Any,
) -> Contender:  # fmt: skip
    """A row: a formulation and its ``[train.compute]``."""
    t = TrainSettings(batch=batch, model=model, compute=ComputeSettings(**compute),
                      zero=ZeroSettings(stage=0, offload=False))  # fmt: skip
    return Contender(name, t, layers, tf32)


def rungs(resolution: int, batch: int, model: ModelSettings) -> list[Contender]:
    """The ladder, one lever more in each row; the last two trade time for memory."""
    top_four: Any = {"precision": "bf16", "bf16_from": max(resolution // 8, 1)}
    plain: Any = {"channels_last": False}
    bf16: Any = {"precision": "bf16", "bf16_from": 64}
    return [
        contender("grouped fp32 NCHW", batch, model, "grouped", tf32=False, **plain),
        contender("grouped tf32 NCHW", batch, model, "grouped", **plain),
        contender("scaled tf32 NCHW", batch, model, "scaled", **plain),
        contender("scaled NCHW, bf16 top four", batch, model, "scaled", **plain, **top_four),
        contender("fused saving tf32 NCHW", batch, model, **plain),
        contender("fused saving tf32 channels-last", batch, model),
        contender("channels-last, bf16 top four", batch, model, **top_four),
        contender("channels-last, bf16 from 64", batch, model, **bf16),
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


def unmeasured(resolutions: list[int], batch: int, model: ModelSettings) -> dict[str, Any]:
    """Every row of the default commands, with what is known beforehand."""
    table: dict[str, Any] = {}
    for channels in (1, 3):
        table[f"ladder {resolutions[0]}, {channels} channels, batch {batch}"] = {
            row.name: {"predicted_bytes": predicted(row, resolutions[0], channels),
                       "s_per_kimg": NOT_MEASURED, "peak_bytes": NOT_MEASURED}
            for row in rungs(resolutions[0], batch, model)
        }  # fmt: skip
    for resolution in resolutions:
        table[f"sizes {resolution}, 1 channels"] = NOT_MEASURED
    return table


def arguments(given: list[str] | None = None) -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=("ladder", "sizes", "list"))
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
    parser.add_argument("--out", type=Path, default=OUT)
    return parser.parse_args(given)


def main(given: list[str] | None = None) -> None:
    """Run a part and put its rows into the result file."""
    args = arguments(given)
    if args.device == "cuda" and args.part != "list" and not torch.cuda.is_available():
        sys.exit("train_gpu: no CUDA device here; --device cpu --resolution 32 tries the code only")
    device = torch.device(args.device)
    model = dataclasses.replace(ModelSettings(), channel_base=args.channel_base)
    document_now = json.loads(args.out.read_text()) if args.out.exists() else {}
    table: dict[str, Any] = document_now.get("parts", {})
    if args.part == "list":
        for name, rows in unmeasured(args.resolutions, args.batch, model).items():
            table.setdefault(name, rows)
    elif args.part == "ladder":
        key = f"ladder {args.resolution}, {args.channels} channels, batch {args.batch}"
        rows = table.setdefault(key, {})
        for row in rungs(args.resolution, args.batch, model):
            if args.rows and row.name not in args.rows:
                rows.setdefault(row.name, NOT_MEASURED)
                continue
            rows[row.name] = measure(
                row, args.resolution, args.channels, device, args.warm, args.timed
            )
            print(f"{row.name}: {rows[row.name]}", file=sys.stderr, flush=True)
        rows["matmul_tflop_per_s"] = matmul_rate(
            torch.bfloat16, device, 8192 if device.type == "cuda" else 256, time.perf_counter
        ) / 1e12  # fmt: skip
    else:
        whole = torch.cuda.get_device_properties(0).total_memory if device.type == "cuda" else 2**33
        memory = 2**30 * args.memory_gib if args.memory_gib else 0.9 * whole
        for resolution in args.resolutions:
            rows = {}
            for row in sizes(resolution, args.channels, model, memory):
                rows[row.name] = measure(
                    row, resolution, args.channels, device, args.warm, args.timed
                )
                print(f"{resolution} {row.name}: {rows[row.name]}", file=sys.stderr, flush=True)
            table[f"sizes {resolution}, {args.channels} channels"] = rows or "does not fit"
    write(document("train_gpu", {"parts": table}), args.out)


if __name__ == "__main__":
    main()
