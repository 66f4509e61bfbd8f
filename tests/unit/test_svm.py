import numpy as np
import pytest

from sunpipe.latent.direction import random_directions, unit
from sunpipe.latent.peers import solve_one_by_one
from sunpipe.latent.ridge import fit_ridge, normal_scores
from sunpipe.latent.solver import Design
from sunpipe.latent.svm import (
    Scale,
    accuracy,
    apart,
    bootstrap_weights,
    fit_svm,
)

COUNT, DIMS = 3000, 24


@pytest.fixture(scope="module")
def planted():
    """Correlated latents of unequal scale, two planted directions, noisy quantities."""
    random = np.random.default_rng(1)
    w = random.standard_normal((COUNT, DIMS)) * np.linspace(2.0, 0.5, DIMS)
    w = w + 0.3 * w[:, ::-1] + 5.0
    truth = unit(random.standard_normal((2, DIMS)))
    values = w @ truth.T + 0.3 * random.standard_normal((COUNT, 2))
    return w, truth, values


def classes(values, share=0.25):
    low, high = np.quantile(values, [share, 1 - share], axis=0)
    return np.where(values >= high, 1, np.where(values <= low, -1, 0)).T.astype(np.int8)


@pytest.mark.parametrize("solver", ["newton", "sklearn"])
def test_planted_direction_is_recovered_and_points_up(planted, solver):
    w, truth, values = planted
    planes = fit_svm(w, classes(values), 0.01, Scale.of(w), solver)
    cosines = np.sum(planes.normals * truth, axis=1)
    assert np.all(cosines > 0.95), cosines
    np.testing.assert_allclose(np.linalg.norm(planes.normals, axis=1), 1.0, rtol=1e-12)


def test_newton_agrees_with_linearsvc(planted):
    w, _, values = planted
    random = np.random.default_rng(2)
    weights = classes(values) * random.integers(0, 4, size=(2, COUNT))  # bootstrap counts too
    x = Scale.of(w).apply(w)
    for c in (1e-4, 0.01, 1.0):
        problems = apart(weights, c)
        ours, theirs = Design(x).solve(problems).v, solve_one_by_one(x, problems)
        cosine = np.sum(unit(ours[:, :-1]) * unit(theirs[:, :-1]), axis=1)
        assert np.all(cosine > 0.99999), (c, cosine)
        np.testing.assert_allclose(ours, theirs, atol=2e-3 * np.abs(theirs).max())


def test_problems_do_not_influence_each_other(planted):
    w, _, values = planted
    design = Design(Scale.of(w).apply(w))
    weights = classes(values)
    both = design.solve(apart(weights, 0.01)).v
    alone = [design.solve(apart(row[None], 0.01)).v for row in weights]
    np.testing.assert_allclose(both, np.concatenate(alone), atol=1e-4)


def test_standardisation_is_folded_back(planted):
    w, _, values = planted
    weights = classes(values[:, :1])
    scale = Scale.of(w)
    plane = fit_svm(w, weights, 0.01, scale, "sklearn")
    found = solve_one_by_one(scale.apply(w), apart(weights, 0.01))[0]
    in_x = scale.apply(w) @ found[:-1] + found[-1]
    length = np.linalg.norm(found[:-1] / scale.std)
    np.testing.assert_allclose(plane.score(w)[:, 0], in_x / length, rtol=1e-4, atol=1e-5)


def test_a_constant_dimension_is_harmless(planted):
    w, truth, values = planted
    wider = np.concatenate([w, np.full((COUNT, 1), 7.0)], axis=1)
    plane = fit_svm(wider, classes(values[:, :1]), 0.01, Scale.of(wider))
    assert plane.normals[0, -1] == pytest.approx(0, abs=1e-6)
    assert plane.normals[0, :-1] @ truth[0] > 0.95


def test_unused_samples_have_no_say(planted):
    w, _, values = planted
    weights = classes(values[:, :1])
    spoiled = w.copy()
    spoiled[weights[0] == 0] += 1e3
    scale = Scale.of(w)
    clean, dirty = (fit_svm(each, weights, 0.01, scale).normals[0] for each in (w, spoiled))
    assert clean @ dirty > 1 - 1e-6


def test_random_direction_is_near_one_half(planted):
    w, _, values = planted
    marks = classes(values[:, :1])[0]
    middle = w - w.mean(axis=0)
    scores = middle @ random_directions(200, DIMS, 0).T
    found = [accuracy(score, marks) for score in scores.T]
    assert np.mean(found) == pytest.approx(0.5, abs=0.05)
    plane = fit_svm(w, marks[None], 0.01, Scale.of(w))
    assert accuracy(plane.score(w)[:, 0], marks) > 0.95


def test_accuracy_counts_only_labelled():
    assert accuracy(np.array([1.0, -1.0, 5.0]), np.array([1, 1, 0], np.int8)) == 0.5
    assert accuracy(np.array([1.0]), np.zeros(1, np.int8)) is None


def test_bootstrap_keeps_class_sizes():
    marks = np.array([1, 1, 1, -1, -1, 0], np.int8)
    weights = bootstrap_weights(marks, 50, seed=3)
    assert np.all(weights[:, 5] == 0)
    assert np.all(weights[:, :3].sum(axis=1) == 3)
    assert np.all(weights[:, 3:5].sum(axis=1) == -2)
    assert np.array_equal(weights, bootstrap_weights(marks, 50, seed=3))
    assert len(np.unique(weights, axis=0)) > 5


def test_ridge_recovers_the_plane_and_says_how_well(planted):
    w, truth, values = planted
    test = np.zeros(COUNT, bool)
    test[::3] = True
    holed = values[:, 0].copy()
    holed[::10] = np.nan
    found = fit_ridge(w, holed, test, Scale.of(w[~test]))
    assert found.plane.normals[0] @ truth[0] > 0.99
    assert 0.9 < found.r2 < 1
    noise = np.random.default_rng(5).standard_normal(COUNT)
    assert fit_ridge(w, noise, test, Scale.of(w[~test])).r2 < 0.02


def test_ranks_defend_the_control_against_heavy_tails(planted):
    w, truth, values = planted
    test = np.zeros(COUNT, bool)
    test[::3] = True
    scale = Scale.of(w[~test])
    heavy = np.exp(4 * values[:, 0])
    raw = fit_ridge(w, heavy, test, scale).plane.normals[0] @ truth[0]
    ranks = fit_ridge(w, normal_scores(heavy), test, scale)
    assert ranks.plane.normals[0] @ truth[0] > 0.99 > raw
    scores = normal_scores(np.array([3.0, np.nan, 1.0, 2.0, np.inf]))
    assert np.isnan(scores[[1, 4]]).all()
    np.testing.assert_allclose(scores[[2, 3, 0]], [-0.967422, 0, 0.967422], atol=1e-6)
