"""A run continues at another number of ranks, passes and stripes, within rounding."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from sunpipe.config import load_config
from sunpipe.dist import Ranks
from sunpipe.errors import UsageError
from sunpipe.shards.reader import ShardReader
from sunpipe.train.begin import check
from tests.conftest import REPO, run_json
from tests.train_ranks import run_ranks

TINY = REPO / "configs/tiny.toml"
# groups of 2 in the minibatch statistic: four ranks hold 2 of 8 samples each
BASE = ("--config", TINY, "--set", "train.model.mbstd_group=2", "--set", "train.tick_kimg=0.008",
        "--set", "train.r1_interval=2", "--set", "train.zero.offload=false", "--set",
        "train.lr_g=0.002", "--set", "train.lr_d=0.002")  # fmt: skip
BEGIN, END = 0.064, 0.088  # kimg: eight iterations, then three


@pytest.fixture(scope="module")
def begun(tiny_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose second moments are no longer new: Adam enlarges rounding by their inverse."""
    folder = tmp_path_factory.mktemp("begun") / "root"
    shutil.copytree(tiny_root / "shards", folder / "shards")
    run_json("train", *BASE, "--set", f"train.kimg={BEGIN}", root=folder)
    return folder


def weights(root: Path, nimg: int, stem: str) -> torch.Tensor:
    """Trained numbers of a network in one row."""
    folder = root / f"runs/00000-tiny/checkpoints/kimg-000000.{nimg:03d}"
    named = load_file(folder / f"{stem}.safetensors")
    return torch.cat([named[key].flatten().double() for key in sorted(named)])


@pytest.fixture(scope="module")
def alone(begun: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three more iterations on one rank."""
    folder = tmp_path_factory.mktemp("alone") / "root"
    shutil.copytree(begun, folder)
    run_json("train", *BASE, "--set", f"train.kimg={END}", root=folder)
    return folder


@pytest.mark.parametrize(
    ("world", "more"),
    [
        (2, ()),
        (4, ()),
        (1, ("compute.accumulate=4", "zero.stage=2")),
        (2, ("compute.stripes=2", "compute.stripes_from=16")),
    ],
)
def test_another_layout_of_the_same_work_ends_with_the_same_weights(
    begun: Path, alone: Path, tmp_path: Path, world: int, more: tuple[str, ...]
) -> None:
    root = tmp_path / "root"
    shutil.copytree(begun, root)
    settings = [word for key in more for word in ("--set", f"train.{key}")]
    row = run_ranks(world, "train", *BASE, "--set", f"train.kimg={END}", *settings, root=root)
    assert row["nimg"] == 88
    passes = any("accumulate" in key for key in more)
    for stem in ("G", "D", "G_ema"):
        start, ours, theirs = (weights(begun, 64, stem), weights(root, 88, stem),
                               weights(alone, 88, stem))  # fmt: skip
        assert (theirs - start).norm() > 0.01
        # rounding, enlarged by Adam where gradients cancel, against what three iterations changed;
        # with several passes the running mean of path lengths is followed by each pass
        bound = 1e-2 if passes else 1e-3
        assert (ours - theirs).norm() <= bound * (theirs - start).norm(), stem
    for name in ("loss_G", "loss_D"):
        seen = [[json.loads(line)[name] for line in
                 (folder / "runs/00000-tiny/stats.jsonl").read_text().splitlines()]
                for folder in (root, alone)]  # fmt: skip
        assert len(seen[0]) == 11
        rtol = 1e-5 if passes else 1e-6
        torch.testing.assert_close(*map(torch.tensor, seen), rtol=rtol, atol=1e-7)


@pytest.mark.parametrize(
    ("world", "override", "words"),
    [
        (3, (), "train.batch=8 does not divide over 3 ranks; use a multiple of 3"),
        (
            2,
            ("compute.accumulate=8",),
            "train.compute.accumulate=8; use a multiple of 16",
        ),
        (1, ("compute.stripes=2",), "1 ranks do not divide into groups of"),
        (2, ("compute.stripes=2",), "compute.stripes_from=256 is above the resolution 32"),
    ],
)
def test_work_that_does_not_divide_is_refused(
    tiny_root: Path, world: int, override: tuple[str, ...], words: str
) -> None:
    reader = ShardReader(tiny_root / "shards/tiny", splits=("train",))
    ranks = Ranks(0, world, 0, "127.0.0.1", 1, "torchrun")
    with pytest.raises(UsageError) as caught:
        check(load_config(TINY, [f"train.{key}" for key in override]), ranks, reader)
    assert words in str(caught.value)
