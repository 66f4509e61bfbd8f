"""Intervals over HARPs."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import pearsonr, rankdata, spearmanr

from sunpipe.evaluate.bootstrap import (
    cluster_weights,
    correlation,
    interval,
    mean,
    weighted_pearson,
    weighted_ranks,
)

CLUSTERS = np.repeat(np.arange(12), 5)


def test_ranks_are_those_of_the_repeated_values() -> None:
    deal = np.random.default_rng(0)
    x = deal.integers(0, 6, 40).astype(float)  # with ties
    weights = deal.integers(0, 4, (7, 40)).astype(float)
    found = weighted_ranks(x, weights)
    for row, weight in zip(found, weights.astype(int), strict=True):
        np.testing.assert_allclose(np.repeat(row, weight), rankdata(np.repeat(x, weight)))


@pytest.mark.parametrize("scale", [1.0, 1e22])
def test_replicates_are_the_coefficients_of_the_drawn_harps(scale: float) -> None:
    deal = np.random.default_rng(1)
    x = scale * deal.normal(size=60)
    y = x + scale * deal.normal(size=60)
    weights = cluster_weights(CLUSTERS, 20, 3)
    assert (weights.sum(axis=1) == 60).all()  # whole HARPs of one size
    assert (weights.reshape(20, 12, 5) == weights[:, ::5, None]).all()
    plain = weighted_pearson(x, y, weights)
    ranked = weighted_pearson(weighted_ranks(x, weights), weighted_ranks(y, weights), weights)
    for place, weight in enumerate(weights.astype(int)):
        one, two = np.repeat(x, weight), np.repeat(y, weight)
        assert plain[place] == pytest.approx(pearsonr(one, two).statistic, abs=1e-9)
        assert ranked[place] == pytest.approx(spearmanr(one, two).statistic, abs=1e-9)


def test_intervals_over_harps_are_wider_than_over_tiles() -> None:
    deal = np.random.default_rng(2)
    level = np.repeat(deal.normal(size=12), 5)  # tiles of a HARP are alike
    x, y = level + 0.01 * deal.normal(size=60), deal.normal(size=60) * 0.01 + level
    y = y + np.repeat(deal.normal(size=12), 5)
    over_harps = correlation(x, y, CLUSTERS, 400, 0)["pearson"]
    over_tiles = correlation(x, y, np.arange(60), 400, 0)["pearson"]
    assert over_harps["value"] == over_tiles["value"] == pytest.approx(pearsonr(x, y).statistic)
    assert over_harps["low"] < over_harps["value"] < over_harps["high"]
    widths = [row["high"] - row["low"] for row in (over_harps, over_tiles)]
    assert widths[0] > 1.5 * widths[1]


def test_the_interval_of_a_mean_covers_it_as_often_as_it_says() -> None:
    deal = np.random.default_rng(4)
    inside = 0
    for trial in range(200):
        values = np.repeat(deal.normal(size=30), 4) + 0.1 * deal.normal(size=120)
        row = mean(values, np.repeat(np.arange(30), 4), 200, trial)
        inside += row["low"] <= 0 <= row["high"]
    assert 0.88 <= inside / 200 <= 0.99


def test_what_cannot_be_known_is_none() -> None:
    x = np.arange(60.0)
    constant = correlation(x, np.ones(60), CLUSTERS, 100, 0)
    assert constant["pearson"] == {"value": None, "low": None, "high": None}
    two = correlation(x[:10], x[:10], CLUSTERS[:10], 100, 0)
    assert two["spearman"] == {"value": 1.0, "low": None, "high": None}
    assert two["clusters"] == 2
    gaps = correlation(np.where(x < 50, np.nan, x), x, CLUSTERS, 100, 0)
    assert (gaps["n"], gaps["clusters"]) == (10, 2)
    nothing = mean(np.full(5, np.nan), np.arange(5), 100, 0)
    assert (nothing["value"], nothing["n"]) == (None, 0)
    assert interval(np.array([np.nan, np.nan, 1.0])) == (None, None)
