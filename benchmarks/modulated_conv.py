"""One styled convolution layer of StyleGAN2: ours beside its rivals, time and memory.

Run it alone on a machine::

    OMP_NUM_THREADS=1 python benchmarks/modulated_conv.py --out FILE.json

The layer is convolution, demodulation, noise, bias, leaky ReLU, forward and
backward, float32 and bfloat16, one thread. ``ours`` is `convolution_layer`: it
scales the input channels, convolves once with shared weights in channels-last,
and keeps only its input and output. ``unfused`` is the same arithmetic written
with torch's operations, in channels-last. ``grouped`` modulates one weight per
sample and convolves in groups (equations 1 and 3 of arXiv:1912.04958 taken
literally), as most public re-implementations do. ``limit`` is the convolution
alone, in channels-last, with nothing around it.

Contenders take turns; figures are medians of processor milliseconds over the
rounds. ``saved`` counts the bytes that torch keeps for the backward pass beside
the input and the parameters, each storage once. ``difference`` is the largest
of the output against float64, over its largest value.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from sunpipe.models.filters import binomial
from sunpipe.models.geometry import Geometry
from sunpipe.models.modulated import Layer, convolution_layer
from sunpipe.provenance import git_revision

# channels in and out, size of the input, up
LAYERS = [
    (512, 512, 32, False),
    (128, 128, 128, False),
    (32, 32, 256, False),
    (64, 32, 128, True),
]
BATCH = 4
Tensor = torch.Tensor


@dataclass
class Case:
    """Tensors of one layer."""

    x: Tensor
    weight: Tensor
    affine: Tensor
    bias: Tensor
    strength: Tensor
    noise: Tensor
    kernel: Tensor | None

    @classmethod
    def make(cls, inputs: int, outputs: int, size: int, up: bool) -> Case:
        """Random tensors, float32."""
        out = 2 * size if up else size
        return cls(
            torch.randn(BATCH, inputs, size, size), torch.randn(outputs, inputs, 3, 3),
            1 + torch.randn(BATCH, inputs), torch.randn(outputs), torch.randn(1),
            torch.randn(BATCH, 1, out, out), binomial(4.0) if up else None,
        )  # fmt: skip

    def cast(self, wide: torch.dtype, narrow: torch.dtype, last: bool) -> Case:
        """Features in `narrow`, the rest in `wide`; leaves that want gradients."""
        memory = torch.channels_last if last else torch.contiguous_format
        leaf = [t.to(wide).requires_grad_() for t in (self.weight, self.affine, self.bias,
                                                      self.strength)]  # fmt: skip
        x = self.x.to(narrow).contiguous(memory_format=memory).requires_grad_()
        kernel = None if self.kernel is None else self.kernel.to(wide)
        return Case(x, *leaf, self.noise.to(wide), kernel)

    @property
    def gain(self) -> float:
        """Equalised learning rate: the weight's scale."""
        return 1 / math.sqrt(self.weight[0].numel())


def demodulation(case: Case, style: Tensor) -> Tensor:
    return (style.square() @ case.weight.square().sum((2, 3)).t() + 1e-8).rsqrt()


def ours(case: Case) -> Tensor:
    style, root = case.affine * case.gain, math.sqrt(2)
    at = Geometry("same" if case.kernel is None else "up")
    return convolution_layer(
        case.x, case.weight, Layer(at), bias=case.bias * root, style=style,
        scale=demodulation(case, style) * root, strength=case.strength * root,
        noise=lambda: case.noise, kernel=case.kernel,
    )  # fmt: skip


def blurred(x: Tensor, kernel: Tensor) -> Tensor:
    taps = kernel.to(x.dtype).expand(x.shape[1], 1, 4, 4)
    return F.conv2d(x, taps, padding=1, groups=x.shape[1])


def finished(x: Tensor, case: Case) -> Tensor:
    x = x + (case.noise * case.strength).to(x.dtype)
    return F.leaky_relu(x + case.bias.to(x.dtype)[:, None, None], 0.2) * math.sqrt(2)


def unfused(case: Case) -> Tensor:
    style = case.affine * case.gain
    x = case.x * style.to(case.x.dtype)[:, :, None, None]
    weight = case.weight.to(x.dtype)
    if case.kernel is None:
        x = F.conv2d(x, weight, padding=1)
    else:
        x = blurred(F.conv_transpose2d(x, weight.transpose(0, 1), stride=2), case.kernel)
    x = x * demodulation(case, style).to(x.dtype)[:, :, None, None]
    return finished(x, case)


def grouped(case: Case) -> Tensor:
    batch, channels, height, width = case.x.shape
    weight = case.weight[None] * case.gain * case.affine[:, None, :, None, None]
    weight = weight * (weight.square().sum((2, 3, 4), keepdim=True) + 1e-8).rsqrt()
    weight = weight.to(case.x.dtype)
    x = case.x.reshape(1, batch * channels, height, width)
    if case.kernel is None:
        x = F.conv2d(x, weight.flatten(0, 1), padding=1, groups=batch)
    else:
        weight = weight.transpose(1, 2).flatten(0, 1)
        x = F.conv_transpose2d(x, weight, stride=2, groups=batch)
    x = x.reshape(batch, -1, *x.shape[2:])
    return finished(x if case.kernel is None else blurred(x, case.kernel), case)


def limit(case: Case) -> Tensor:
    weight = case.weight.to(case.x.dtype)
    if case.kernel is None:
        return F.conv2d(case.x, weight, padding=1)
    return F.conv_transpose2d(case.x, weight.transpose(0, 1), stride=2)


CONTENDERS: dict[str, tuple[Callable[[Case], Tensor], bool]] = {
    "ours": (ours, True),
    "unfused": (unfused, True),
    "grouped": (grouped, False),
    "limit": (limit, True),
}


def saved_bytes(call: Callable[[Case], Tensor], case: Case) -> int:
    """Bytes kept for the backward pass beside the case's own tensors."""
    given = {t.untyped_storage().data_ptr() for t in vars(case).values() if t is not None}
    kept: dict[int, Tensor] = {}

    def pack(t: Tensor) -> Tensor:
        kept[t.untyped_storage().data_ptr()] = t
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        out = call(case)
    kept = {place: t for place, t in kept.items() if place not in given}
    del out
    return sum(t.untyped_storage().nbytes() for t in kept.values())


def measure(shape: tuple[int, int, int, bool], dtype: torch.dtype, rounds: int) -> dict[str, Any]:
    """Medians of milliseconds, saved MB and error of every contender on one layer."""
    plain = Case.make(*shape)
    exact = ours(plain.cast(torch.float64, torch.float64, True)).detach()
    cases = {name: plain.cast(torch.float32, dtype, last) for name, (_, last) in CONTENDERS.items()}
    times: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    for turn in range(rounds + 1):  # the first only warms up
        for name, (call, _) in CONTENDERS.items():
            start = time.process_time()
            out = call(cases[name])
            out.backward(torch.ones_like(out))
            spent = 1000 * (time.process_time() - start)
            if turn:
                times[name].append(spent)
    found: dict[str, Any] = {}
    for name, (call, _) in CONTENDERS.items():
        error = float((call(cases[name]).detach() - exact).abs().max() / exact.abs().max()) \
            if name != "limit" else None  # fmt: skip
        found[name] = {
            "cpu_ms": round(statistics.median(times[name]), 1),
            "saved_mb": round(saved_bytes(call, cases[name]) / 1e6, 2),
            "difference": error,
        }
    best = found["ours"]
    found["times_faster_than"] = {
        name: round(found[name]["cpu_ms"] / best["cpu_ms"], 2) for name in CONTENDERS
    }
    found["times_less_saved_than"] = {
        name: round(found[name]["saved_mb"] / best["saved_mb"], 2) for name in CONTENDERS
    }
    return found


def machine() -> dict[str, Any]:
    """What the figures were taken on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")),
                 platform.processor())  # fmt: skip
    return {"cpu": model, "cores": os.cpu_count(), "load": os.getloadavg()[0],
            "system": platform.platform()}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    about, layers = machine(), {}
    for shape in LAYERS:
        for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
            inputs, outputs, size, up = shape
            label = f"{inputs} to {outputs} channels at {size}{', up' if up else ''}, {name}"
            layers[label] = measure(shape, dtype, options.rounds)
            print(label)
            for contender in CONTENDERS:
                row = layers[label][contender]
                print(f"    {contender:8s} {row['cpu_ms']:8.1f} ms {row['saved_mb']:8.2f} MB")
    result = {
        "command": "OMP_NUM_THREADS=1 python benchmarks/modulated_conv.py "
        + " ".join(sys.argv[1:]),
        "machine": about, "revision": git_revision(), "versions": {"torch": torch.__version__},
        "batch": BATCH, "rounds": options.rounds, "threads": 1, "layers": layers,
    }  # fmt: skip
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
