"""Order and normalisation: pure functions with known properties."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sunpipe.normalize_settings import NormalizeSettings
from sunpipe.shards.normalize import decode, encode
from sunpipe.shards.order import generator_seed, sample_indices


def test_each_pass_shows_every_sample_once() -> None:
    for turn in range(3):
        seen = sample_indices(10, seed=1, nimg=10 * turn, batch=10)
        assert sorted(seen.tolist()) == list(range(10))
    assert not np.array_equal(sample_indices(10, 1, 0, 10), sample_indices(10, 1, 10, 10))


def test_order_does_not_depend_on_how_it_is_asked_for() -> None:
    whole = sample_indices(7, seed=3, nimg=0, batch=40)
    pieces = [sample_indices(7, 3, start, 8) for start in range(0, 40, 8)]
    assert np.array_equal(whole, np.concatenate(pieces))
    assert not np.array_equal(whole, sample_indices(7, seed=4, nimg=0, batch=40))


def test_empty_dataset_is_refused() -> None:
    with pytest.raises(ValueError, match="no samples"):
        sample_indices(0, 0, 0, 4)


def test_seeds_differ_in_every_argument() -> None:
    arguments = [(0, 0, 0, "G"), (1, 0, 0, "G"), (0, 1, 0, "G"), (0, 0, 1, "G"), (0, 0, 0, "D")]
    seeds = {generator_seed(*each) for each in arguments}
    assert len(seeds) == 5
    assert all(0 <= seed < 2**63 for seed in seeds)


@pytest.mark.parametrize("kind", ["asinh", "signed_log", "linear"])
def test_normalisation_is_invertible_and_odd(kind: str) -> None:
    settings = NormalizeSettings(kind=kind, scale=100.0, limit=3000.0)
    field = torch.tensor([0.0, 1e-3, 6.4, 100.0, 3000.0, 12000.0, -0.5, -4500.0])
    image = encode(field, settings)
    assert float(image[0]) == 0.0
    assert float(encode(torch.tensor(3000.0), settings)) == pytest.approx(1.0, rel=1e-6)
    torch.testing.assert_close(encode(-field, settings), -image)
    torch.testing.assert_close(decode(image, settings), field, rtol=2e-5, atol=1e-4)
    assert bool((image.argsort() == field.argsort()).all())
