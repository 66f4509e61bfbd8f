"""A generator that copies is found, and one that does not is not."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.image import imread as plt_read
from scipy.spatial.distance import cdist

from sunpipe.evaluate.memorisation import closeness, copies, percentile, suspicion
from sunpipe.evaluate.retrieval_baselines import pixels
from sunpipe.evaluate.retrieval_bench import Bench
from sunpipe.evaluate.retrieval_copies import begin_audit, contrast, end_audit, ways_of
from sunpipe.evaluate.retrieval_nearest import Nearest, scan, strangers
from sunpipe.evaluate.retrieval_picture import draw_pairs
from sunpipe.evaluate.retrieval_sweep import compare, pixel_rows, turn
from sunpipe.normalize_settings import NormalizeSettings
from sunpipe.physics.channels import apply_symmetry
from sunpipe.retrieval_settings import RetrievalSettings
from tests.unit.retrieval_fake import archive

SIDE, CHANNELS = 8, ["Br", "Bt", "Bp"]
VIEW = NormalizeSettings("asinh", 100.0, 3000.0, 0.0)


def patches(count: int, seed: int) -> np.ndarray:
    """Smooth fields of very different strength: two blobs each."""
    deal = np.random.default_rng(seed)
    y, x = np.mgrid[:SIDE, :SIDE]
    found = np.zeros((count, 3, SIDE, SIDE))
    for number in range(count):
        for sign in (1, -1):
            at, width = deal.uniform(0, SIDE, 2), deal.uniform(1, 3)
            blob = np.exp(-((y - at[0]) ** 2 + (x - at[1]) ** 2) / width**2)
            found[number] += sign * deal.normal(1, 0.5, (3, 1, 1)) * blob
        found[number] *= 10 ** deal.uniform(1, 3.3)
    return found.astype(np.float32)


def features(fields: np.ndarray) -> np.ndarray:
    """Stands for an encoder that feels neither mirrors nor polarity: sorted magnitudes."""
    flat = np.arcsinh(np.abs(fields) / 100).reshape(len(fields), 3, -1)
    levels = np.sort(flat, axis=2)[:, :, -32::2]
    return np.sort(levels, axis=1).reshape(len(fields), -1).astype(np.float32)


@dataclass
class FakeReader:
    fields: np.ndarray
    info: Any = field(
        default_factory=lambda: SimpleNamespace(channels=CHANNELS, units=["Gauss"] * 3)
    )

    def images(self, rows: np.ndarray) -> np.ndarray:
        return self.fields[rows]


@pytest.fixture(scope="module")
def bench() -> Bench:
    fields = patches(60 * 12, 1)
    source = archive(60, train=45, vectors=features(fields))
    settings = RetrievalSettings(queries=300, bootstrap=100)
    return Bench(source, FakeReader(fields), SimpleNamespace(), "cosine", VIEW, [],  # type: ignore[arg-type]
                 np.zeros((len(fields), 0)), settings, 0, lambda: None)  # fmt: skip


def audit(bench: Bench, fields: np.ndarray, symmetries: list[str]) -> dict[str, Any]:
    ways = ways_of(bench, symmetries)
    rows = pixel_rows(lambda some: fields[some], len(fields), VIEW)
    assert len(ways) == (16 if symmetries else 1)
    waiting = begin_audit(bench, rows, features(fields), ways)
    assert waiting is not None
    bench.compare_pixels()
    return end_audit(waiting)[0]


def planted(bench: Bench, count: int = 10) -> np.ndarray:
    """Training patches that vary, whatever their strength."""
    size = contrast(bench.pixel_rows(np.arange(len(bench.archive))), 3)
    good = np.flatnonzero(bench.archive.train & (size > np.median(size)))
    return bench.images(good[:: len(good) // count][:count])


def test_planted_copies_are_flagged_and_honest_samples_are_not(bench: Bench) -> None:
    fresh = patches(90, 2)
    row = audit(bench, np.concatenate([fresh, planted(bench)]), [])
    assert set(range(90, 100)) <= set(row["copies"])
    assert len(set(row["copies"]) - set(range(90, 100))) <= 3
    assert row["generated_copies"]["value"] == pytest.approx(len(row["copies"]) / 100)
    assert row["held_out_copies"]["value"] < 0.03
    assert row["train_copies"]["value"] <= 0.01
    # The closest pairs are the planted ones, with the tile they were taken from.
    assert {pair["sample"] for pair in row["pairs"]} <= set(range(90, 100))
    assert all(pair["pixels_residual"] < 1e-2 for pair in row["pairs"])
    assert all(pair["record"].startswith("hmi.sharp_cea_720s[") for pair in row["pairs"])
    assert row["pixels"]["residual"]["generated_below"]["value"] >= 0.1


def test_the_closest_pairs_are_drawn(bench: Bench, tmp_path: Path) -> None:
    fields = np.concatenate([patches(3, 2), planted(bench)])
    pairs = audit(bench, fields, [])["pairs"]
    mine = fields[[pair["sample"] for pair in pairs]]
    draw_pairs(tmp_path / "pairs.png", bench, mine, pairs)
    seen = plt_read(tmp_path / "pairs.png")
    assert seen.shape[0] > 600
    assert seen[..., :3].std() > 0.05
    # A planted pair is one picture twice.
    first = pairs[0]
    same = bench.images(np.flatnonzero(bench.archive.rows == first["row"]))[0]
    np.testing.assert_array_equal(fields[first["sample"]], same)


def test_an_almost_copy_is_flagged_too(bench: Bench) -> None:
    noise = np.random.default_rng(3).normal(size=(10, 3, SIDE, SIDE))
    near = planted(bench)
    near = near * 1.05 + 0.02 * near.std(axis=(1, 2, 3), keepdims=True) * noise
    row = audit(bench, np.concatenate([patches(90, 4), near.astype(np.float32)]), [])
    assert len(set(row["copies"]) & set(range(90, 100))) >= 8


def test_a_mirrored_copy_is_seen_where_training_mirrored(bench: Bench) -> None:
    turned = torch.from_numpy(planted(bench))
    for name in ("flip_horizontal", "rotate90", "reverse_polarity"):
        turned = apply_symmetry(turned, CHANNELS, name)
    fields = np.concatenate([patches(30, 5), turned.numpy()])
    every = ["flip_horizontal", "flip_vertical", "rotate90", "reverse_polarity"]
    found = audit(bench, fields, every)
    assert set(range(30, 40)) <= set(found["copies"])
    assert not set(range(30, 40)) & set(audit(bench, fields, [])["copies"])


def test_a_tile_is_compared_in_every_way_it_may_lie(bench: Bench) -> None:
    # Nearest over all turned queries is nearest over all turned tiles.
    ways, some = ways_of(bench, ["flip_vertical", "rotate90", "reverse_polarity"]), slice(12, 20)
    mine, tiles = torch.from_numpy(patches(6, 8)), torch.from_numpy(bench.images(np.r_[some]))
    far = np.stack([cdist(pixels(turn(mine, CHANNELS, way), VIEW), pixels(tiles, VIEW))
                    for way in ways])  # fmt: skip
    assert len(ways) == 16
    bench.ask_pixels(strangers(6), pixels(mine, VIEW))
    bench.ask_pixels(strangers(6), pixels(mine, VIEW), ways)
    asked, bench.waiting = bench.waiting, []
    compare(tiles, CHANNELS, VIEW, asked, some)
    for one, wanted in zip(asked, (far[0], far.min(axis=0)), strict=True):
        np.testing.assert_allclose(one.found.distance[:, 1], wanted.min(axis=1), rtol=1e-3)
        np.testing.assert_array_equal(one.found.position[:, 1], 12 + wanted.argmin(axis=1))
    assert (far.min(axis=0) < 0.99 * far[0]).any()


def test_a_weak_patch_beside_the_only_weak_harp_is_no_copy() -> None:
    # All HARPs are strong but one; quiet samples are all nearest to that one.
    fields = 20 * patches(60 * 12, 6)
    fields[:12] = np.random.default_rng(0).normal(size=(12, 3, SIDE, SIDE))
    source = archive(60, train=45, vectors=features(fields))
    quiet = Bench(source, FakeReader(fields), SimpleNamespace(), "cosine", VIEW, [],  # type: ignore[arg-type]
                  np.zeros((len(fields), 0)), RetrievalSettings(queries=300, bootstrap=100), 0,
                  lambda: None)  # fmt: skip
    weak = np.random.default_rng(1).normal(size=(20, 3, SIDE, SIDE)).astype(np.float32)
    row = audit(quiet, weak, [])
    assert row["pixels"]["ratio"]["generated_below"]["value"] > 0.9  # fooled alone
    assert row["copies"] == []


def test_numbers_of_closeness() -> None:
    source = archive(4, tiles=1, hours=(0.0,))
    far = np.array([[1.0, 2.0, 4.0, 6.0], [0.0, 0.0, 0.0, 0.0]], np.float32)
    found = closeness(
        scan(Nearest(source, strangers(2), 24.0), lambda rows: far[:, rows]), np.array([0.5, 0.0])
    )
    np.testing.assert_array_equal(found.distance, [1, 0])
    np.testing.assert_array_equal(found.ratio, [0.25, np.nan])
    np.testing.assert_array_equal(found.residual, [2, np.nan])
    np.testing.assert_array_equal(found.position, [0, 0])
    np.testing.assert_array_equal(
        percentile(np.array([0.0, 2.0, np.nan]), np.array([1.0, 2.0, 3.0, np.nan])),
        [0, 2 / 3, np.nan],
    )
    both = {"embedding": found, "pixels": found}
    assert not copies(both, both).any()
    assert np.isfinite(suspicion(both, both)).all()


def test_two_training_harps_are_too_few_for_an_audit() -> None:
    fields = patches(5 * 12, 7)
    source = archive(5, train=2, vectors=features(fields))
    small = Bench(source, FakeReader(fields), SimpleNamespace(), "cosine", VIEW, [],  # type: ignore[arg-type]
                  np.zeros((len(fields), 0)), RetrievalSettings(), 0, lambda: None)  # fmt: skip
    assert begin_audit(small, np.zeros((4, 0), np.float32), features(fields[:4]), [()]) is None
