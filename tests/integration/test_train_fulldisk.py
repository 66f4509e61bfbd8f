"""The shipped configurations of whole disks train on small disks of a known sky."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import torch

from sunpipe.config import load_config
from sunpipe.errors import ConfigError
from sunpipe.latent.assemble import fit
from sunpipe.latent.generator import Generator
from sunpipe.latent.sample import sample
from sunpipe.physics.measurable import measurable
from tests.conftest import REPO, run_cli, run_json
from tests.integration.test_shard_disks import DAY, Sky, shard

SMALL = {
    "dataset": "disks", "name": "disks", "train.kimg": 0.016, "train.batch": 4,
    "train.tick_kimg": 0.008, "train.metrics.kimg": 0, "train.model.z_dim": 8,
    "train.model.w_dim": 8, "train.model.mapping_layers": 2, "train.model.channel_base": 256,
    "train.model.channel_max": 8, "train.compute.bf16_from": 16, "train.r1_interval": 2,
}  # fmt: skip


@pytest.mark.parametrize(
    ("product", "config", "channel", "unit"),
    [
        ("aia_fulldisk", "aia193_1024", "193", "DN/s"),
        ("aia_fulldisk", "aia193_4096", "193", "DN/s"),
        ("hmi_fulldisk", "hmi_fulldisk_1024", "magnetogram", "Gauss"),
    ],
)
def test_disks_train(root: Path, product: str, config: str, channel: str, unit: str) -> None:
    heaven = Sky(root)
    for day in range(6):
        heaven.add("hmi" if unit == "Gauss" else "aia", DAY + timedelta(days=40 * day))
    made = shard(product, test_share=0.2)
    assert made["rows"] == 6
    words = [word for key, value in SMALL.items() for word in ("--set", f"{key}={value}")]
    path = REPO / f"configs/{config}.toml"
    row = run_json("train", "--config", path, *words, root=root)
    assert row["nimg"] == 16
    generator = Generator.load(root / "runs/00000-disks", device="cpu")
    assert (generator.channels, generator.units) == ([channel], [unit])
    fields = generator.fields(generator.map(generator.sample_z(8, seed=0)))
    assert fields.shape == (8, 1, 64, 64)
    assert bool(torch.isfinite(fields).all())
    directions_of_disks(root, path, channel)
    if unit == "Gauss":
        refused = run_cli("train", "--config", path, *words, "--set", "train.kimg=0.032", "--new",
                          "--set", 'train.diffaugment=["color"]', root=root)  # fmt: skip
        assert refused.returncode == 2
        assert "color is for intensities" in refused.stderr.splitlines()[-1]


def directions_of_disks(root: Path, path: Path, channel: str) -> None:
    """A disk's own quantities get directions; what these have too little of says so."""
    names = [name for name in measurable([channel]) if name not in ("TILT", "R_VALUE")]
    keys = {**SMALL, "sample.count": 240, "directions.quantities": json.dumps(names),
            "directions.traverse_count": 4, "directions.bootstrap": 2}  # fmt: skip
    cfg = load_config(path, [f"{key}={value}" for key, value in keys.items()])
    made = sample(cfg)
    assert set(made["quantities"]) == set(measurable([channel]))
    found = fit(cfg)
    assert set(found["quantities"]) | set(found["left_out"]) == set(names)
    assert found["quantities"], found["left_out"]
    with pytest.raises(ConfigError, match=f"images of {channel} do not give MEANGAM"):
        fit(replace(cfg, directions=replace(cfg.directions, quantities=("MEANGAM",))))
