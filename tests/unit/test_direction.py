import numpy as np
import pytest

from sunpipe.latent.axes import Axes
from sunpipe.latent.direction import angle, conditional, random_directions, unit
from sunpipe.latent.svm import Scale, fit_svm


def axes_of(x):
    return Axes.of(x, np.ones(x.shape[1], bool))


def test_conditional_is_orthogonal_to_every_other():
    random = np.random.default_rng(0)
    others = unit(random.standard_normal((5, 32)))
    target = unit(random.standard_normal(32) + 2 * others[0])
    found = conditional(target, others, np.eye(32))
    assert found is not None
    np.testing.assert_allclose(others @ found, 0, atol=1e-12)
    assert np.linalg.norm(found) == pytest.approx(1)
    assert found @ target > 0


def test_nearly_parallel_others_do_no_harm():
    random = np.random.default_rng(1)
    other = unit(random.standard_normal(16))
    twins = unit(np.stack([other, other + 1e-9 * random.standard_normal(16), other, -other]))
    target = unit(random.standard_normal(16))
    found = conditional(target, twins, np.eye(16))
    assert found is not None
    np.testing.assert_allclose(found, conditional(target, other[None], np.eye(16)), atol=1e-6)


def test_nothing_is_left_in_the_span_of_the_others():
    others = np.eye(4)[:2]
    assert conditional(unit(np.array([1.0, 2.0, 0.0, 0.0])), others, np.eye(4)) is None
    assert conditional(np.array([0.0, 0, 1, 0]), others, np.eye(4)) is not None


def test_without_others_the_direction_stays():
    target = np.array([0.0, 2.0])
    np.testing.assert_array_equal(conditional(target, np.zeros((0, 2)), np.eye(2)), [0, 1])


def test_conditional_removes_a_planted_correlation():
    """Two quantities that rise together: walking one conditionally leaves the other alone."""
    random = np.random.default_rng(2)
    w = random.standard_normal((4000, 16))
    a, b = np.eye(16)[0], unit(np.eye(16)[0] + np.eye(16)[1])
    values = w @ np.stack([a, b]).T + 0.1 * random.standard_normal((4000, 2))
    low, high = np.quantile(values, [0.25, 0.75], axis=0)
    weights = np.where(values >= high, 1.0, np.where(values <= low, -1.0, 0.0)).T
    normals = fit_svm(w, weights, 0.01, Scale.of(w)).normals
    free = conditional(normals[0], normals[1:], axes_of(w).root())
    assert free is not None
    assert abs(normals[0] @ b) > 0.6  # the plain direction drags b along
    assert abs(free @ b) < 0.06
    assert free @ a > 0.5


@pytest.fixture(scope="module")
def flat_cloud():
    """Latents that vary a thousand times less in half of their dimensions."""
    random = np.random.default_rng(3)
    turn = np.linalg.qr(random.standard_normal((12, 12)))[0]
    return (random.standard_normal((5000, 12)) * ([1.0] * 6 + [1e-3] * 6)) @ turn


def test_in_the_covariance_metric_w_moves_where_it_varies(flat_cloud):
    axes = axes_of(flat_cloud)
    root = axes.root()
    np.testing.assert_allclose(root @ root, np.cov(flat_cloud.T), atol=1e-12)
    normals = unit(np.random.default_rng(4).standard_normal((3, 12)))
    plain = conditional(normals[0], normals[:0], root)
    free = conditional(normals[0], normals[1:], root)
    # 'plain' is what a regression of w on the score finds
    score = flat_cloud @ normals[0]
    pattern = unit((flat_cloud - flat_cloud.mean(0)).T @ (score - score.mean()))
    np.testing.assert_allclose(plain, pattern, atol=1e-6)
    np.testing.assert_allclose(normals[1:] @ free, 0, atol=1e-9)
    assert normals[0] @ free > 0
    assert axes.effort(plain) < 1.5
    assert axes.effort(free) < 2
    assert axes.effort(conditional(normals[0], normals[1:], np.eye(12))) > 100


def test_effort_of_a_round_cloud_is_one():
    w = np.random.default_rng(0).standard_normal((20_000, 5)) * 3
    assert axes_of(w).effort(unit(np.arange(1.0, 6))) == pytest.approx(1, abs=0.02)


def test_random_directions_are_pure_and_of_length_one():
    found = random_directions(10, 6, seed=4)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1)
    assert np.array_equal(found, random_directions(10, 6, seed=4))
    assert not np.array_equal(found, random_directions(10, 6, seed=5))


def test_angle_and_sigma():
    assert angle(np.array([1.0, 0]), np.array([0, 1.0])) == pytest.approx(90)
    assert angle(np.array([1.0, 0]), np.array([1.0, 0])) == 0
    w = np.random.default_rng(0).standard_normal((20_000, 3)) * [1, 2, 3]
    assert axes_of(w).sigma(np.array([0.0, 0, 1])) == pytest.approx(3, rel=0.03)


def test_axes_keep_their_signs_whatever_the_solver_says(monkeypatch):
    """Coordinates along axes are stored, by the inverter for one."""
    x = np.random.default_rng(6).standard_normal((500, 4)) * [4, 3, 2, 1]
    found, solve = axes_of(x), np.linalg.eigh

    def flipped(matrix):
        values, vectors = solve(matrix)
        return values, vectors * [1, -1, -1, 1]

    monkeypatch.setattr(np.linalg, "eigh", flipped)
    np.testing.assert_array_equal(axes_of(x).vectors, found.vectors)
    assert (found.vectors.max(axis=0) == np.abs(found.vectors).max(axis=0)).all()
