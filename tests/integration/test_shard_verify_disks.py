"""``sunpipe verify`` on disks: companions, splits by time, coordinates, QUALITY by chain."""

from __future__ import annotations

import shutil
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from preprocess.shard import shard
from preprocess.verify import verify
from sunpipe.config import validate
from tests.integration.tampering import all_of, edit, only, rows_of
from tests.integration.test_shard_disks import DAY, SIDE, Sky


@pytest.fixture(scope="module")
def matched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with matched sets of two days and five blocks. Do not write to it."""
    root = tmp_path_factory.mktemp("disks") / "root"
    heaven = Sky(root)
    for day in (0, 1, 30, 60, 90, 120):
        when = DAY + timedelta(days=day)
        heaven.add("aia", when, 171)
        heaven.add("aia", when + timedelta(seconds=9), 193)
    settings = {"product": "aia_fulldisk", "wavelengths": [171, 193], "dtype": "float32",
                "resolution": SIDE, "images_per_shard": 4, "test_share": 0.5,
                "block_days": 30.0}  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SUNPIPE_ROOT", str(root))
        shard(validate({"name": "disks", "dataset": "disks", "shard": settings}))
    return root


@pytest.fixture
def dataset(matched: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "disks"
    shutil.copytree(matched / "shards/disks", folder)
    return folder


def test_the_dataset_is_good_and_has_both_sides(dataset: Path, matched: Path) -> None:
    assert verify(dataset, matched / "archive") == []
    assert {row["split"] for row in rows_of(dataset)} == {"train", "test"}


def other_side(dataset: Path) -> tuple[int, str]:
    """A row, and the companion of a row of the other side."""
    rows = rows_of(dataset)
    other = next(row for row in rows if row["split"] != rows[0]["split"])
    return 0, other["companions"]


def test_a_companion_of_the_other_side(dataset: Path) -> None:
    row, record = other_side(dataset)
    edit(dataset, "records", companions=only(row, lambda v: record))
    found = "\n".join(verify(dataset))
    assert "or their companions, stand in the training and in the test split, 0.000 days" in found
    assert "s away, at most 60 s are allowed" in found


CASES: dict[str, tuple[dict[str, Any], str]] = {
    "split": ({"split": only(0, lambda v: {"train": "test", "test": "train"}[v])},
              "in the training and in the test split"),
    "no companion": ({"companions": only(0, lambda v: "")}, "companions: '' is not a record"),
    "companion of another channel": (
        {"companions": only(0, lambda v: v.replace("[193]", "[211]"))}, "expected one of each of"),
    "companion of another series": (
        {"companions": only(0, lambda v: v.replace("lev1_euv_12s", "lev1_x"))},
        "channel 193 mixes the series"),
    "crpix": ({"crpix1": all_of(lambda v: v + 100)}, "its disk gives 32.5"),
    "crval": ({"crval2": all_of(lambda v: 30.0)}, "its disk gives 0"),
    "cdelt": ({"cdelt2": all_of(lambda v: 2 * v)}, "its disk gives"),
    "pixel": ({"pixel_cm": all_of(lambda v: 2 * v)}, "its coordinates give"),
    "infinite": ({"RSUN_OBS": all_of(lambda v: float("inf"))}, "its coordinates give nan"),
    "mu": ({"mu": all_of(lambda v: 0.3)}, "mu is 0.3, its disk gives 1"),
    "projection": ({"ctype1": all_of(lambda v: "RA---TAN")}, "has 'HPLN-TAN'"),
    "unit": ({"cunit1": all_of(lambda v: "deg")}, "has 'arcsec'"),
    "simulated": ({"simulated": only(0, lambda v: True)}, "simulated is True"),
    "quality": ({"quality": only(0, lambda v: 1 << 14)}, "NOSUNPRESENCE"),
    "no quality": ({"quality": only(0, lambda v: None)}, "quality is null"),
    "tile": ({"tile_x": only(0, lambda v: 4)}, "is not on the grid"),
    "channel": ({"record": only(0, lambda v: v.replace("[171]", "[94]"))}, "is no record of"),
}  # fmt: skip


@pytest.mark.parametrize("kind", CASES)
def test_rows_that_cannot_be(dataset: Path, kind: str) -> None:
    changes, text = CASES[kind]
    edit(dataset, "records", **changes)
    problems = verify(dataset)
    assert any(text in line for line in problems), problems
