"""Distances of feature vectors against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import sqrtm

from sunpipe.evaluate.frechet import Gaussian, frechet_distance, kernel_distance


def spd(rng: np.random.Generator, size: int, rank: int | None = None) -> np.ndarray:
    half = rng.standard_normal((size, rank or size))
    return half @ half.T / size


def test_equal_gaussians_are_at_distance_zero() -> None:
    rng = np.random.default_rng(0)
    one = Gaussian(rng.standard_normal(20), spd(rng, 20))
    assert frechet_distance(one, one) == pytest.approx(0, abs=1e-10)


def test_commuting_covariances_have_a_closed_form() -> None:
    mean, a, b = np.array([1.0, -2.0, 0.5]), np.array([1.0, 4.0, 9.0]), np.array([4.0, 1.0, 0.25])
    expected = np.square(mean).sum() + np.square(np.sqrt(a) - np.sqrt(b)).sum()
    turn = np.linalg.qr(np.random.default_rng(1).standard_normal((3, 3)))[0]
    one = Gaussian(np.zeros(3), turn @ np.diag(a) @ turn.T)
    two = Gaussian(turn @ mean, turn @ np.diag(b) @ turn.T)
    assert frechet_distance(one, two) == pytest.approx(expected, rel=1e-12)
    assert frechet_distance(two, one) == pytest.approx(expected, rel=1e-12)


def test_it_is_the_trace_formula_with_a_matrix_root() -> None:
    rng = np.random.default_rng(2)
    one, two = (Gaussian(rng.standard_normal(12), spd(rng, 12)) for _ in range(2))
    cross = sqrtm(one.covariance @ two.covariance)
    expected = np.square(one.mean - two.mean).sum() + np.trace(
        one.covariance + two.covariance - 2 * cross.real
    )
    assert frechet_distance(one, two) == pytest.approx(float(expected), rel=1e-9)


def test_fewer_images_than_features_stay_finite_and_exact() -> None:
    rng = np.random.default_rng(3)
    one, two = (Gaussian(np.zeros(30), spd(rng, 30, rank=5)) for _ in range(2))
    assert frechet_distance(one, one) == pytest.approx(0, abs=1e-7)
    # against the same in the full-rank limit
    softened = [Gaussian(g.mean, g.covariance + 1e-10 * np.eye(30)) for g in (one, two)]
    assert frechet_distance(one, two) == pytest.approx(frechet_distance(*softened), rel=1e-3)


def test_a_fit_has_the_moments_of_numpy() -> None:
    x = np.random.default_rng(4).standard_normal((50, 6)).astype(np.float32)
    fit = Gaussian.of(x)
    np.testing.assert_allclose(fit.mean, x.astype(float).mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(fit.covariance, np.cov(x.astype(float), rowvar=False), rtol=1e-12)
    with pytest.raises(ValueError, match="2 or more"):
        Gaussian.of(x[:1])


def test_the_kernel_distance_is_the_double_sum() -> None:
    rng = np.random.default_rng(5)
    x, y = rng.standard_normal((9, 4)), rng.standard_normal((7, 4)) + 0.3

    def k(a: np.ndarray, b: np.ndarray) -> float:
        return float((a @ b / 4 + 1) ** 3)

    expected = (
        np.mean([k(x[i], x[j]) for i in range(9) for j in range(9) if i != j])
        + np.mean([k(y[i], y[j]) for i in range(7) for j in range(7) if i != j])
        - 2 * np.mean([k(a, b) for a in x for b in y])
    )
    assert kernel_distance(x, y) == pytest.approx(float(expected), rel=1e-12)


def test_the_kernel_distance_is_unbiased_and_the_frechet_distance_is_not() -> None:
    rng = np.random.default_rng(6)
    pairs = [rng.standard_normal((2, 40, 8)) for _ in range(200)]
    kernel = np.array([kernel_distance(a, b) for a, b in pairs])
    assert abs(kernel.mean()) < 3 * kernel.std() / np.sqrt(len(kernel))
    assert min(frechet_distance(Gaussian.of(a), Gaussian.of(b)) for a, b in pairs) > 0.3


def test_the_kernel_matrix_is_made_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(7)
    x, y = rng.standard_normal((100, 5)), rng.standard_normal((70, 5))
    whole = kernel_distance(x, y)
    monkeypatch.setattr("sunpipe.evaluate.frechet.AT_ONCE", 17)
    assert kernel_distance(x, y) == pytest.approx(whole, rel=1e-10)


def test_other_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="kernel distance needs"):
        kernel_distance(np.zeros((3, 2)), np.zeros((3, 4)))
    with pytest.raises(ValueError, match="features of"):
        frechet_distance(Gaussian.of(np.eye(3)), Gaussian.of(np.eye(4)))
