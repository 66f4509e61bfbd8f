"""A run continues at another number of ranks, passes and stripes, within rounding."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.conftest import REPO, run_cli, run_json
from tests.train_ranks import run_ranks

TINY = REPO / "configs/tiny.toml"
# groups of 2 in the minibatch statistic: four ranks hold 2 of 8 samples each
BASE = ("--config", TINY, "--set", "train.model.mbstd_group=2", "--set", "train.tick_kimg=0.008",
        "--set", "train.r1_interval=2", "--set", "train.zero.offload=false")  # fmt: skip


@pytest.fixture(scope="module")
def begun(tiny_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two iterations."""
    folder = tmp_path_factory.mktemp("begun") / "root"
    shutil.copytree(tiny_root / "shards", folder / "shards")
    run_json("train", *BASE, "--set", "train.kimg=0.016", root=folder)
    return folder


def end(root: Path) -> Path:
    return root / "runs/00000-tiny/checkpoints/kimg-000000.040"


@pytest.fixture(scope="module")
def alone(begun: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three more iterations on one rank."""
    folder = tmp_path_factory.mktemp("alone") / "root"
    shutil.copytree(begun, folder)
    run_json("train", *BASE, "--set", "train.kimg=0.04", root=folder)
    return folder


def difference(ours: Path, reference: Path) -> dict[str, float]:
    """Norm of the difference of each network's weights, relative to that of the weights.

    A norm, because a single bias that is almost zero differs by more of itself.
    """
    found = {}
    for stem in ("G", "D", "G_ema"):
        left, right = (load_file(path / f"{stem}.safetensors") for path in (ours, reference))
        assert left.keys() == right.keys()
        names = [key for key in right if "noise_const" not in key]  # fixed maps: no weights
        assert all(torch.equal(left[key], right[key]) for key in right if key not in names)
        both = [torch.cat([each[key].flatten().double() for key in names])
                for each in (left, right)]  # fmt: skip
        found[stem] = float((both[0] - both[1]).norm() / both[1].norm())
    return found


@pytest.mark.parametrize(
    ("world", "more"),
    [
        (2, ()),
        (4, ()),
        (2, ("zero.stage=2",)),
        (1, ("compute.accumulate=4", "zero.stage=0")),
        (2, ("compute.stripes=2", "compute.stripes_from=16")),
        (1, ("compute.checkpoint=conv", "compute.checkpoint_from=8")),
    ],
)
def test_another_layout_of_the_same_work_ends_with_the_same_weights(
    begun: Path, alone: Path, tmp_path: Path, world: int, more: tuple[str, ...]
) -> None:
    root = tmp_path / "root"
    shutil.copytree(begun, root)
    settings = [word for key in more for word in ("--set", f"train.{key}")]
    row = run_ranks(world, "train", *BASE, "--set", "train.kimg=0.04", *settings, root=root)
    assert row["nimg"] == 40
    apart = difference(end(root), end(alone))
    assert max(apart.values()) <= 1e-6, apart
    assert difference(end(alone), begun / "runs/00000-tiny/checkpoints/kimg-000000.016")["G"] > 1e-3
    losses = [
        [json.loads(line)["loss_D"] for line in
         (folder / "runs/00000-tiny/stats.jsonl").read_text().splitlines()]
        for folder in (root, alone)
    ]  # fmt: skip
    torch.testing.assert_close(*map(torch.tensor, losses), rtol=2e-6, atol=1e-6)


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
    tiny_copy: Path, monkeypatch: pytest.MonkeyPatch, world: int, override: tuple[str, ...],
    words: str,
) -> None:  # fmt: skip
    for key, value in {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": str(world),
                       "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}.items():  # fmt: skip
        monkeypatch.setenv(key, value)
    settings = [word for key in override for word in ("--set", f"train.{key}")]
    done = run_cli("train", "--config", TINY, *settings, root=tiny_copy)
    assert done.returncode == 2
    assert words in done.stderr.splitlines()[-1]
    assert not (tiny_copy / "runs").exists()
