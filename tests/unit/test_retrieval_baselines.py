"""Keywords and pixels as retrievers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from scipy.stats import spearmanr

from sunpipe.evaluate.retrieval_baselines import (
    FLOOR,
    SIDE,
    Keywords,
    pixels,
    unit_rows,
    vector_distances,
)
from sunpipe.evaluate.retrieval_magnitudes import invariant
from sunpipe.evaluate.retrieval_sweep import turn
from sunpipe.normalize_settings import NormalizeSettings
from sunpipe.physics.images import measure_images


def tables(count: int = 400, seed: int = 0) -> np.ndarray:
    deal = np.random.default_rng(seed)
    base = deal.normal(size=(count, 4)) @ deal.normal(size=(4, 4))
    return np.stack([np.exp(base[:, 0]), base[:, 1], base[:, 2] ** 3, base[:, 3]], axis=1)


NAMES = ["A", "B", "C", "D"]


def test_distances_are_mahalanobis_of_normal_scores() -> None:
    values = tables()
    known = Keywords.fit(values, NAMES)
    assert known is not None
    scores = known.scores(values)
    assert abs(scores.mean()) < 0.01
    assert scores.std() == pytest.approx(1, abs=0.03)
    assert np.linalg.eigvalsh(known.correlation).min() >= FLOOR * 0.999
    inverse = np.linalg.inv(known.correlation)
    wanted = cdist(scores[:20], scores[20:50], "mahalanobis", VI=inverse)
    np.testing.assert_allclose(known.distances(scores[:20], scores[20:50]), wanted, rtol=1e-4)


def test_an_outlier_bends_nothing() -> None:
    values = tables()
    spoiled = values.copy()
    spoiled[0] = [1e30, -1e30, 1e30, 1e30]
    one, two = Keywords.fit(values, NAMES), Keywords.fit(spoiled, NAMES)
    assert one is not None
    assert two is not None
    np.testing.assert_allclose(one.correlation, two.correlation, atol=0.05)
    assert np.isfinite(two.scores(spoiled)).all()
    # Any rising transform of a quantity changes nothing at all.
    bent = values.copy()
    bent[:, 1] = np.exp(bent[:, 1])
    again = Keywords.fit(bent, NAMES)
    assert again is not None
    np.testing.assert_allclose(again.scores(bent), one.scores(values))


def test_missing_values_are_neither_near_nor_far() -> None:
    values = tables(600, 1)
    holes = values.copy()
    holes[::3, 2] = np.nan
    known = Keywords.fit(holes, NAMES)
    assert known is not None
    scores = known.scores(holes)
    far = known.distances(scores[:100], scores[100:]).astype(float)
    assert np.isfinite(far).all()
    whole = np.asarray(np.isfinite(scores).all(axis=1))
    both = whole[:100, None] & whole[None, 100:]
    assert (far[~both] ** 2).mean() == pytest.approx((far[both] ** 2).mean(), rel=0.15)
    complete = Keywords.fit(values, NAMES)
    assert complete is not None
    np.testing.assert_allclose(known.correlation, complete.correlation, atol=0.1)
    # Sharing fewer than half of the quantities, two tiles cannot be compared.
    lone = np.array([[np.nan, np.nan, np.nan, 1.0]])
    assert np.isinf(known.distances(known.scores(lone), scores)).all()


def test_quantities_that_say_nothing_are_left_out() -> None:
    values = tables()
    values[:, 1] = 7.0
    values[: len(values) * 2 // 3, 3] = np.nan
    known = Keywords.fit(values, NAMES)
    assert known is not None
    assert known.names == ["A", "C"]
    assert Keywords.fit(np.full((9, 1), np.nan), ["A"]) is None


def test_near_in_keywords_is_near_in_each() -> None:
    values = tables(500, 2)
    known = Keywords.fit(values, NAMES)
    assert known is not None
    scores = known.scores(values)
    match = 250 + known.distances(scores[:250], scores[250:]).argmin(axis=1)
    for column in range(4):
        assert spearmanr(values[:250, column], values[match, column]).statistic > 0.7


def test_pixels_are_compared_in_network_range_and_bounded() -> None:
    view = NormalizeSettings("linear", 1.0, 1000.0)
    fields = torch.full((2, 3, 2 * SIDE, 2 * SIDE), 500.0)
    fields[1] = 0
    rows = pixels(fields, view)
    assert rows.shape == (2, 3 * SIDE * SIDE)
    np.testing.assert_allclose(rows[0], 0.5)
    np.testing.assert_allclose(rows[1], 0.0)
    small = torch.randn(2, 1, 8, 8)
    np.testing.assert_allclose(pixels(small, view), small.flatten(1).numpy() / 1000, rtol=1e-6)


def test_vectors_are_compared_by_the_metric_of_the_index() -> None:
    deal = np.random.default_rng(3)
    one, two = (deal.normal(size=(n, 5)).astype(np.float32) for n in (3, 4))
    cosine = vector_distances(unit_rows(one, "cosine"), unit_rows(two, "cosine"), "cosine")
    np.testing.assert_allclose(cosine, cdist(one, two, "cosine"), atol=1e-6)
    plain = vector_distances(unit_rows(one, "euclidean"), two, "euclidean")
    np.testing.assert_allclose(plain, cdist(one, two), rtol=1e-5)
    assert (unit_rows(np.zeros((1, 5), np.float32), "cosine") == 0).all()


def smooth(count: int, side: int = 32) -> np.ndarray:
    """Two blobs of opposite sign and unequal strength, as vector fields in gauss."""
    deal = np.random.default_rng(4)
    y, x = np.mgrid[:side, :side]
    found = np.zeros((count, 3, side, side))
    for number in range(count):
        for sign in (1, -0.6):
            at = deal.uniform(side / 4, 3 * side / 4, 2)
            blob = np.exp(-((y - at[0]) ** 2 + (x - at[1]) ** 2) / deal.uniform(6, 30))
            found[number] += sign * deal.normal(1500, 300, (3, 1, 1)) * blob
    return found.astype(np.float32)


def test_the_symmetries_tell_what_of_a_quantity_stays() -> None:
    channels = ["Br", "Bt", "Bp"]
    fields, pixel_cm = smooth(24), np.full(24, 2.9e8)
    names = ["USFLUX", "NETFLUX", "MEANJZH", "TILT", "POLSEP"]
    every = ["flip_horizontal", "flip_vertical", "rotate90", "reverse_polarity"]
    left = invariant(fields, pixel_cm, channels, names, every)
    assert left.names == ["USFLUX", "|NETFLUX|", "|MEANJZH|", "POLSEP"]
    # A mirror alone turns helicity and tilt over and leaves the flux what it is.
    left = invariant(fields, pixel_cm, channels, names, ["flip_horizontal"])
    assert left.names == ["USFLUX", "NETFLUX", "|MEANJZH|", "|TILT|", "POLSEP"]
    assert invariant(fields, pixel_cm, channels, names, []).names == names
    values = np.array([[1.0, -2.0, -3.0, -4.0, -5.0]])
    np.testing.assert_array_equal(left(values), [[1, -2, 3, 4, -5]])
    # Distances of what is left do not feel the symmetries; those of all keywords do.
    turned = turn(torch.from_numpy(fields), channels, ("reverse_polarity", "rotate90"))
    # To float32: a rank would feel the last digit of a float64.
    one, two = (measure_images(each, channels, 2.9e8, names).float().double().numpy()
                for each in (torch.from_numpy(fields), turned))  # fmt: skip
    left = invariant(fields, pixel_cm, channels, names, every)
    for values, again, same in ((left(one), left(two), True), (one, two, False)):
        known = Keywords.fit(values, names[: values.shape[1]])
        assert known is not None
        far = known.distances(known.scores(values), known.scores(again))
        assert (far.argmin(axis=1) == np.arange(24)).all() == same
