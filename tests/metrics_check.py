"""One rank of the test of metrics while training; run by tests/integration/test_evaluate_ranks.py.

Arguments: the folder of a dataset, that of a run, and what goes wrong on the last
rank: ``nothing``, ``inf`` (some of its images), ``flood`` (all of them, and the first of
rank 0) or ``fault``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from sunpipe import dist
from sunpipe.errors import DataError, SunpipeError
from sunpipe.run import Run
from sunpipe.shards.reader import ShardReader
from sunpipe.train.engine import initialize
from sunpipe.train.metrics import Metrics
from sunpipe.train_settings import MetricSettings, TrainSettings


def main() -> None:
    torch.set_num_threads(1)
    folder, run, wrong = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    ranks = dist.discover()
    device = initialize(ranks, 60)
    reader = ShardReader(folder, splits=("train",))
    images = torch.from_numpy(reader.images(reader.rows))
    last = ranks.rank == ranks.world - 1

    def fields(purpose: str, samples: range) -> torch.Tensor:
        made = 1.1 * images[list(samples)]
        if last and wrong == "fault":
            raise DataError("the images of this rank are gone")
        if wrong == "flood" and (last or samples[0] == 0):
            made[: None if last else 1] = torch.nan
        if last and wrong == "inf" and samples[0] == ranks.rank:
            made[:3, 0, 0, 0] = torch.inf
        return made

    settings = MetricSettings(kimg=1, count=10**6, batch=16)
    trainer: Any = SimpleNamespace(
        t=TrainSettings(metrics=settings), ranks=ranks, reader=reader, device=device, nimg=1000,
        data_rank=ranks.rank, data_world=ranks.world, fields=fields,
    )  # fmt: skip
    try:
        row = Metrics(trainer, Run(run) if ranks.is_main else None).measure()
    except SunpipeError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
    if row is not None:
        print(json.dumps(row, allow_nan=False))


if __name__ == "__main__":
    main()
