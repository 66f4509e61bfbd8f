"""Distances on real patches, and `sunpipe evaluate generator` on a real run."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from sunpipe.config import load_config
from sunpipe.errors import DataError
from sunpipe.evaluate import FeatureBlock, Reference, compare
from sunpipe.evaluate.generator import Asked, evaluate, plan
from sunpipe.evaluate.reference import FEWEST, read_block
from sunpipe.evaluate.scale import beside, blur, blurred, halves, other_split, two_halves
from sunpipe.evaluate.sheet import contact_sheet
from sunpipe.latent.generator import Generator
from sunpipe.shards.reader import ShardReader
from sunpipe.train_settings import MetricSettings
from tests.conftest import REPO, Cli, run_json
from tests.unit.shards_fake import write_dataset

TINY = REPO / "configs/tiny.toml"
FEW = ("--set", "train.metrics.count=64")


@pytest.fixture(scope="module")
def real(tiny_root: Path) -> ShardReader:
    return ShardReader(tiny_root / "shards/tiny", splits=("train", "test"))


@pytest.fixture(scope="module")
def reference(real: ShardReader) -> Reference:
    return Reference.of(real, MetricSettings(count=10**6))


@pytest.fixture(scope="module")
def patches(real: ShardReader) -> torch.Tensor:
    return torch.from_numpy(real.images(real.rows))


class Pick:
    """Some rows of a reader."""

    def __init__(self, reader: ShardReader, rows: np.ndarray) -> None:
        self.reader, self.rows, self.info = reader, rows, reader.info

    def __len__(self) -> int:
        return len(self.rows)

    def images(self, rows: np.ndarray) -> np.ndarray:
        return self.reader.images(rows)


def rising(values: list[float]) -> bool:
    return bool((np.diff(values) > 0).all())


@pytest.mark.parametrize("name", ["fd_random", "kid_random", "spectrum_db", "w1_pixels"])
def test_distances_of_real_patches_grow_with_blur(
    reference: Reference, patches: torch.Tensor, name: str
) -> None:
    found, spoiled = [], patches
    for _ in range(4):
        found.append(compare(reference, reference.features(spoiled))[name])
        spoiled = blur(spoiled)
    assert rising(found), found


@pytest.mark.parametrize(
    "name", ["fd_random", "kid_random", "spectrum_db", "w1_pixels", "w1_usflux"]
)
def test_distances_of_real_patches_grow_with_noise(
    reference: Reference, patches: torch.Tensor, name: str
) -> None:
    noise = torch.randn(patches.shape, generator=torch.Generator().manual_seed(0))
    found = [compare(reference, reference.features(patches + gauss * noise))[name]
             for gauss in (0, 30, 100, 300)]  # fmt: skip
    assert rising(found), found


def test_each_fault_is_seen_by_its_metric(reference: Reference, patches: torch.Tensor) -> None:
    def distances(fields: torch.Tensor) -> dict[str, float]:
        return compare(reference, reference.features(fields))

    blurred, alone = distances(blur(patches)), distances(patches)
    assert blurred["spectrum_db_k8"] < -3  # fine structure is lost, large scales are kept
    assert abs(blurred["spectrum_db_k1"]) < 0.5
    # mirrors break Hale's and Joy's laws, and nothing else
    mirrored = distances(patches.flip(-1))
    assert mirrored["fd_random"] > alone["fd_random"] + 5
    assert mirrored["w1_usflux"] == pytest.approx(0, abs=1e-6)
    assert mirrored["spectrum_db"] < 0.1
    # polarity reversed: the imbalance tells
    assert distances(-patches.abs())["w1_imbalance"] > 0.5
    # one image over and over
    assert distances(patches[:1].repeat(64, 1, 1, 1))["fd_random"] > 50


def test_the_floor_is_far_below_a_blur(tiny_copy: Path) -> None:
    denser = ("--set", "dataset=dense", "--set", "shard.stride=28")
    run_json("shard", "--config", TINY, *denser, root=tiny_copy)
    train, test = (ShardReader(tiny_copy / "shards/dense", splits=(split,))
                   for split in ("train", "test"))  # fmt: skip
    reference = Reference.of(train, MetricSettings(count=10**6))
    floor, spoiled = halves(train, reference, 10**6, 32), blurred(train, reference, 10**6, 32)
    held_out = other_split(test, reference, 10**6, 32)
    assert floor is not None
    assert held_out is not None
    for name in ("fd_random", "kid_random", "spectrum_db"):
        assert floor[name] < spoiled[name] / 3
        assert floor[name] < held_out[name] / 3  # other regions are not the same distribution


def test_too_few_images_have_no_floor(tiny_root: Path, reference: Reference) -> None:
    train, test = (ShardReader(tiny_root / "shards/tiny", splits=(split,))
                   for split in ("train", "test"))  # fmt: skip
    assert halves(train, reference, 2048, 32) is None
    assert other_split(test, reference, 2048, 32) is None


def test_columns_are_compared_at_equal_n(tmp_path: Path) -> None:
    write_dataset(tmp_path / "fake", count=170, side=16)
    real = ShardReader(tmp_path / "fake", splits=("train",))
    reference, count = Reference.of(real, MetricSettings(count=10**6)), len(real)
    other = Pick(real, real.rows[: FEWEST + 3])
    made = [reference.block.take(np.roll(np.arange(count), shift)) for shift in (0, 40, 80)]
    found = beside(real, other, reference, made, count, 32)  # type: ignore[arg-type]
    halved, held_out, spoilt = (found[key] for key in ("real_halves", "held_out", "blurred"))
    assert halved
    assert held_out
    assert spoilt
    assert (halved["images"], held_out["images"], spoilt["images"]) == (
        count // 2, FEWEST + 3, count)  # fmt: skip
    # generated images at the N of the column, from the same real ones
    few = [compare(reference, block.take(slice(FEWEST + 3))) for block in made]
    expected = np.mean([row["fd_random"] for row in few])
    assert held_out["generated"]["fd_random"] == pytest.approx(expected)
    assert held_out["generated"]["fd_random"] > compare(reference, made[0])["fd_random"] + 0.1
    pair = two_halves(real, reference, count, 32)
    assert pair is not None
    floor = np.mean([compare(pair[0], block.take(slice(count // 2)))["w1_usflux"]
                     for block in made])  # fmt: skip
    assert halved["generated"]["w1_usflux"] == pytest.approx(floor)
    assert halved["metrics"] == compare(*pair)


def test_a_contact_sheet_is_drawn_of_fields_and_of_light(
    patches: torch.Tensor, tmp_path: Path
) -> None:
    shown = patches[:8, 0].numpy()
    contact_sheet(shown, shown[:5], tmp_path / "field.png", channel="Br", unit="Gauss", columns=4)
    contact_sheet(abs(shown), abs(shown), tmp_path / "light.png", channel="aia_193", unit="DN/s")
    for name in ("field.png", "light.png"):
        assert 5_000 < (tmp_path / name).stat().st_size < 400_000
    with pytest.raises(Exception, match="finite generated"):
        contact_sheet(shown, shown * np.nan, tmp_path / "x.png", channel="Br", unit="Gauss")
    assert not (tmp_path / "x.png").exists()


def test_the_command_measures_a_run_and_answers_again_from_its_file(
    tiny_run_root: Path, root: Path, cli: Cli
) -> None:
    shutil.copytree(tiny_run_root, root, dirs_exist_ok=True)
    dry = run_json("evaluate", "generator", "--config", TINY, *FEW, "--dry-run", root=root)
    assert dry["checkpoint"] == "kimg-000000.064"
    assert dry["images"] == 192
    run = root / "runs/00000-tiny"
    assert not (run / "metrics").exists()
    found = run_json("evaluate", "generator", "--config", TINY, *FEW, root=root)
    path = run / "metrics/generator-kimg-000000.064.json"
    assert found["file"] == str(path)
    assert Path(found["sheet"]).stat().st_size > 5000
    row = found["metrics"]["fd_random"]
    assert len(row["values"]) == 3
    assert row["mean"] == pytest.approx(np.mean(row["values"]))
    assert row["spread"] == pytest.approx(np.std(row["values"], ddof=1))
    assert found["metrics"]["spectrum_db"]["unit"] == "dB"
    # 64 images of training: far from real, further than a blur
    assert row["mean"] > 3 * found["scale"]["blurred"]["metrics"]["fd_random"]
    assert set(found["scale"]) == {"real_halves", "held_out", "blurred"}
    assert {path.name for path in (run / "metrics").iterdir()} == {path.name, f"{path.stem}.png"}
    assert json.loads(path.read_text())["provenance"]["versions"]["torch"]
    again = cli("evaluate", "generator", "--config", TINY, *FEW)
    assert again.returncode == 0
    assert "measured before" in again.stderr
    assert "fd_random" in again.stdout
    assert re.search(r"^images +64 +64 +- +- ", again.stdout, re.MULTILINE)
    assert "Mm" in again.stdout


def test_no_more_images_are_made_than_there_are_real_ones(
    tiny_run_root: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(tiny_run_root, root, dirs_exist_ok=True)
    images = len(ShardReader(root / "shards/tiny", splits=("train",)))
    many = ("train.metrics.count=100000",)
    assert plan(load_config(TINY, many), Asked())["images"] == 3 * images
    found = evaluate(load_config(TINY, many), Asked())
    assert found["count"] == images
    generator = Generator.load(root / "runs/00000-tiny")
    fields = generator.fields
    monkeypatch.setattr(Generator, "fields", lambda self, w: fields(w) * torch.inf)
    with pytest.raises(DataError, match=r"64 of 64 images that 00000-tiny makes from seed 0"):
        evaluate(load_config(TINY, ("train.metrics.count=64",)), Asked())


def test_the_command_refuses_in_one_line(tiny_root: Path, root: Path, cli: Cli) -> None:
    shutil.copytree(tiny_root, root, dirs_exist_ok=True)
    for args, code, words in (
        (("--seeds", "2"), 2, "needs 3 or more"),
        ((), 1, "run sunpipe train first"),
        (("--set", "train.metrics.count=63"), 2, "count"),
    ):
        done = cli("evaluate", "generator", "--config", TINY, *args)
        assert done.returncode == code
        assert words in done.stderr.splitlines()[-1]
        assert "Traceback" not in done.stderr


def test_ranks_gather_to_the_same(real: ShardReader, reference: Reference) -> None:
    rows = real.rows[:96]
    whole = compare(reference, read_block(reference.lens, real, rows, 96))
    parts = [read_block(reference.lens, real, rows[rank::2], 16) for rank in range(2)]
    assert compare(reference, FeatureBlock.concat(parts)) == pytest.approx(whole, rel=1e-4)
