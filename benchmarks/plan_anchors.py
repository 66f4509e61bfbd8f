"""The time model of ``sunpipe plan`` held against the published times of StyleGAN2.

NVlabs/stylegan3, docs/configs.md, lists seconds per kimg of StyleGAN2 on V100 and A100
(one to eight GPUs, 128 x 128 to 1024 x 1024). Their layers are written here as their
operations are (scaled activations, NCHW, half precision on the four highest sizes, one
kernel each for bias with activation and for the filter) and counted on the meta device
with the settings of each row. Three numbers, the parts of the peak rates that products
reach with and without tensor cores and the time to start a kernel, are fitted to all
rows at once (the part of the bandwidth cannot be told from these rows and is given).
The file says the error of each row, and of each row left out of the fit; beside it the
memory that the meter counts for these layers and what they list ("maximum GPU memory
usage observed").

    python benchmarks/plan_anchors.py --out benchmarks/results/plan_anchors.json
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import minimize

REPO = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPO))

from benchmarks.machine import document, write  # noqa: E402
from sunpipe.models import layers  # noqa: E402
from sunpipe.models.geometry import convolve  # noqa: E402
from sunpipe.models.modulated import Layer  # noqa: E402
from sunpipe.train.gpus import KNOWN  # noqa: E402
from sunpipe.train.ledger import ledger  # noqa: E402
from sunpipe.train.meter import pass_usage  # noqa: E402
from sunpipe.train.roofline import PUBLISHED, Reached, kernel_seconds  # noqa: E402
from sunpipe.train.work import Work, phase_works  # noqa: E402
from sunpipe.train_settings import (  # noqa: E402
    ComputeSettings,
    ModelSettings,
    TrainSettings,
    ZeroSettings,
)

SOURCE = "NVlabs/stylegan3, docs/configs.md, commit 8fb5177d77556d19bf3ccfa03621aa4cbdf29dc9"
# their half precision is float16, and their float32 products are not rounded
GPUS = {"v100": dataclasses.replace(KNOWN["v100"], bf16=125.0), "a100": KNOWN["a100-40"]}


@dataclasses.dataclass(frozen=True)
class Row:
    """A published row: seconds per kimg, GB of one GPU."""

    resolution: int
    gpus: int
    batch: int
    channel_base: int
    v100: float
    a100: float
    memory_gb: float
    mapping_layers: int = 2
    called: str = "default"

    @property
    def name(self) -> str:
        """Resolution, GPUs, batch, and what the source calls it."""
        return f"{self.resolution}, {self.gpus} GPUs, batch {self.batch}, {self.called}"


ROWS = (
    Row(128, 1, 32, 16384, 12.51, 6.79, 6.2),
    Row(128, 2, 64, 16384, 6.43, 3.45, 6.2),
    Row(128, 4, 64, 16384, 3.82, 2.23, 3.5),
    Row(256, 1, 16, 16384, 20.84, 12.53, 4.5),
    Row(256, 2, 32, 16384, 10.93, 6.36, 4.5),
    Row(256, 4, 64, 16384, 5.39, 3.20, 4.5),
    Row(256, 8, 64, 16384, 3.89, 2.38, 2.6),
    Row(512, 1, 8, 32768, 71.59, 41.06, 6.8),
    Row(512, 2, 16, 32768, 36.79, 20.83, 6.8),
    Row(512, 4, 32, 32768, 18.12, 10.45, 6.7),
    Row(512, 8, 64, 32768, 9.09, 5.24, 6.8),
    Row(1024, 1, 4, 32768, 141.83, 90.39, 7.2),
    Row(1024, 2, 8, 32768, 73.13, 46.04, 7.2),
    Row(1024, 4, 16, 32768, 36.95, 23.15, 7.0),
    Row(1024, 8, 32, 32768, 18.47, 11.66, 7.3),
    Row(256, 8, 64, 16384, 4.01, 2.47, 2.7, 8, "paper256"),
    Row(512, 8, 64, 32768, 9.11, 5.28, 6.7, 8, "paper512"),
    Row(1024, 8, 32, 32768, 18.56, 11.75, 6.9, 8, "paper1024"),
    Row(1024, 8, 32, 32768, 17.55, 14.57, 6.2, 8, "stylegan2"),
)


def _layer(
    x: torch.Tensor, weight: torch.Tensor, layer: Layer, *, bias: Any = None, style: Any = None,
    scale: Any = None, strength: Any = None, noise: Any = None, kernel: Any = None,
    stripes: None = None,
) -> torch.Tensor:  # fmt: skip
    """A layer as the original code computes it: operations of its own, one per kernel there."""
    weight = (weight * layer.gain).to(x.dtype)
    if style is not None:
        x = x * style[:, :, None, None].to(x.dtype)
    x = convolve(x, weight, kernel, layer.at)
    if scale is not None:  # demodulation and noise in one kernel
        scaled = scale[:, :, None, None].to(x.dtype)
        x = torch.addcmul((noise() * strength).to(x.dtype), x, scaled) if noise else x * scaled
    x = x.to(layer.dtype or x.dtype)
    # bias, activation, gain and clamp in one kernel, which keeps its result only
    return F.leaky_relu(x, layer.slope, inplace=True) if bias is not None else x


@contextmanager
def original_layers() -> Iterator[None]:
    """Layers are counted as the original code computes them."""
    with patch.object(layers, "convolution_layer", _layer):
        yield


def settings(row: Row) -> TrainSettings:
    """Settings of a row."""
    half = ComputeSettings(precision="bf16", bf16_from=max(row.resolution // 8, 1),
                           channels_last=False)  # fmt: skip
    model = ModelSettings(channel_base=row.channel_base, mapping_layers=row.mapping_layers)
    return TrainSettings(batch=row.batch, model=model, compute=half, diffaugment=())


def counted(row: Row) -> list[tuple[float, Work]]:
    """Kernels of the mean iteration of one GPU."""
    with original_layers():
        return list(phase_works(row.resolution, 3, settings(row), row.gpus).values())


def memory(row: Row) -> int:
    """Peak bytes of one GPU by the meter; ``DistributedDataParallel`` is not in it."""
    t = settings(row)
    plain = dataclasses.replace(t, zero=ZeroSettings(stage=0, offload=False))
    pass_usage.cache_clear()  # layers are not part of its key
    with original_layers():
        found = ledger(row.resolution, 3, plain, row.gpus).peak_bytes
    pass_usage.cache_clear()
    return found


def seconds(works: Sequence[tuple[float, Work]], batch: int, gpu: str, reached: Reached) -> float:
    """Predicted seconds per kimg."""
    one = sum(
        often * kernel_seconds(work, GPUS[gpu], "fp32", reached).max(axis=0).sum()
        for often, work in works
    )
    return 1000 * one / batch


def errors(rows: Sequence[tuple[Row, list[tuple[float, Work]]]], reached: Reached) -> list[float]:
    """Logarithms of predicted over published, V100 and A100 of each row."""
    return [float(np.log(seconds(works, row.batch, gpu, reached) / getattr(row, gpu)))
            for row, works in rows for gpu in GPUS]  # fmt: skip


def fit(rows: Sequence[tuple[Row, list[tuple[float, Work]]]]) -> Reached:
    """What makes the squares of `errors` least."""

    def cost(x: np.ndarray) -> float:
        return float(np.square(errors(rows, reached(x))).sum())

    def reached(x: np.ndarray) -> Reached:
        tensor, vector, start = map(float, np.exp(x))
        return Reached(tensor, vector, PUBLISHED.memory, start)

    found = minimize(cost, np.log([0.3, 0.6, 3e-5]), method="Nelder-Mead",
                     options={"xatol": 1e-3, "fatol": 1e-5})  # fmt: skip
    return reached(found.x)


def main() -> None:
    """Count, fit, compare, and write one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    rows = [(row, counted(row)) for row in ROWS]
    reached = fit(rows)
    table: dict[str, Any] = {}
    spread = []
    for place, (row, works) in enumerate(rows):
        without = fit([one for other, one in enumerate(rows) if other != place])
        found: dict[str, Any] = {}
        for gpu in GPUS:
            published = getattr(row, gpu)
            predicted = seconds(works, row.batch, gpu, reached)
            alone = seconds(works, row.batch, gpu, without)
            spread.append(alone / published)
            found[gpu] = {
                "published_s_per_kimg": published,
                "predicted_s_per_kimg": predicted,
                "ratio": predicted / published,
                "ratio_left_out": alone / published,
            }
        bytes_ = memory(row)
        found["memory"] = {"published_gb": row.memory_gb, "predicted_gib": bytes_ / 2**30,
                           "ratio": bytes_ / 2**30 / row.memory_gb}  # fmt: skip
        table[row.name] = found
        print(row.name, {gpu: round(one["ratio"], 2) for gpu, one in found.items()},
              file=sys.stderr, flush=True)  # fmt: skip
    write(document("plan_anchors", {
        "source": SOURCE, "gpus": {name: vars(gpu) for name, gpu in GPUS.items()},
        "reached": dataclasses.asdict(reached),
        "root_mean_square_of_log_ratio": float(np.sqrt(np.mean(np.square(errors(rows, reached))))),
        "left_out": {"lowest_ratio": min(spread), "highest_ratio": max(spread),
                     "root_mean_square_of_log_ratio":
                         float(np.sqrt(np.mean(np.square(np.log(spread)))))},
        "rows": table,
    }), arguments.out)  # fmt: skip


if __name__ == "__main__":
    main()
