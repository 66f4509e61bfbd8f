"""The batched Newton solver beside scikit-learn, its batches, and what it refuses."""

import numpy as np
import pytest

from benchmarks import svm as benchmark
from sunpipe.errors import DataError, SunpipeError
from sunpipe.latent import newton
from sunpipe.latent.bootstrap import joined
from sunpipe.latent.newton import Problems
from sunpipe.latent.peers import solve_one_by_one
from sunpipe.latent.solver import Design, check, interval, tube
from sunpipe.latent.svm import apart, near

COUNT, DIMS = 1500, 20


@pytest.fixture(scope="module")
def planted():
    """Correlated latents behind a leaky ReLU, standardised; two noisy quantities."""
    random = np.random.default_rng(4)
    basis = np.linalg.qr(random.standard_normal((DIMS, DIMS)))[0]
    w = random.standard_normal((COUNT, DIMS)) * 10 ** np.linspace(0, -2, DIMS) @ basis
    w = np.where(w > 0, w, 0.2 * w)
    x = ((w - w.mean(axis=0)) / w.std(axis=0)).astype(np.float32)
    values = x @ random.standard_normal((DIMS, 2))
    values = values / values.std(axis=0) + 0.4 * random.standard_normal((COUNT, 2))
    return x, values.T


def loss(x, problems, number, v):
    """The objective in float64, written out for each kind."""
    margin = x.astype(np.float64) @ v[:-1] + v[-1]
    low, high = problems.low[problems.of[number]], problems.high[problems.of[number]]
    below = np.maximum(low.astype(np.float64) - margin, 0)
    above = np.maximum(margin - high.astype(np.float64), 0)
    costs = problems.weights[number] * (below**2 + above**2)
    return v @ v / 2 + problems.c[number] * costs.sum()


def assert_agree(x, problems, tolerance=1e-4):
    ours, theirs = Design(x, "cpu").solve(problems).v, solve_one_by_one(x, problems)
    for number, (left, right) in enumerate(zip(ours, theirs, strict=True)):
        cosine = left[:-1] @ right[:-1] / np.linalg.norm(left[:-1]) / np.linalg.norm(right[:-1])
        assert cosine > 0.9999, number
        ratio = loss(x, problems, number, left) / loss(x, problems, number, right)
        assert ratio == pytest.approx(1, abs=tolerance), number


@pytest.mark.parametrize("c", [1e-4, 0.01, 1.0])
@pytest.mark.parametrize("epsilon", [0.0, 0.1, 1.0])
def test_regressions_agree_with_linearsvr(planted, c, epsilon):
    x, values = planted
    targets = values.copy()
    targets[0, ::7] = np.nan
    assert_agree(x, near(targets, c, epsilon))


def test_kinds_share_a_batch(planted):
    x, values = planted
    labels = np.where(values > 0.5, 1, np.where(values < -0.5, -1, 0))
    mixed = joined([apart(labels, 0.01), near(values, 0.02, 0.1)])
    assert mixed.of.tolist() == [0, 1, 2, 3]
    assert_agree(x, mixed)


def test_least_squares_has_its_closed_form(planted):
    x, values = planted
    v = Design(x, "cpu").solve(near(values, 0.05, 0.0)).v
    a = np.concatenate([x, np.ones((COUNT, 1))], axis=1, dtype=np.float64)
    exact = np.linalg.solve(np.eye(DIMS + 1) + 0.1 * a.T @ a, 0.1 * a.T @ values.T).T
    np.testing.assert_allclose(v, exact, atol=1e-3 * np.abs(exact).max())


def replicates(values, count, keep=0.0):
    """Replicated problems of two quantities; `keep` leaves out the middle."""
    labels = np.where(values > keep, 1, np.where(values < -keep, -1, 0)).astype(np.int8)
    low, high = interval(labels)
    of = np.repeat([0, 1], count)
    drawn = np.random.default_rng(1).poisson(1.0, (2 * count, COUNT)).astype(np.int16)
    base = Problems(low, high, np.array([0, 1]), np.abs(labels), np.full(2, 0.01))
    return base, Problems(low, high, of, drawn * np.abs(labels)[of], np.full(2 * count, 0.01))


@pytest.mark.parametrize("keep", [0.0, 1.0])
def test_warm_starts_save_passes_and_change_nothing(planted, keep):
    x, values = planted
    base, many = replicates(values, 30, keep)
    design = Design(x, "cpu")
    cold = design.solve(many)
    warm = design.solve(many, design.solve(base).v[many.of])
    assert warm.passes < cold.passes
    scale = np.linalg.norm(cold.v, axis=1, keepdims=True)
    assert np.max(np.linalg.norm(warm.v - cold.v, axis=1) / scale[:, 0]) < 2e-3


def test_memory_bounds_the_batches(planted, monkeypatch):
    x, values = planted
    _, many = replicates(values, 6)
    design, sizes = Design(x, "cpu"), []
    whole = design.solve(many)
    honest = newton.Batch.solve

    def counted(self, start):
        assert 2 * 4 * self.weights.numel() <= 8 * COUNT * 5
        sizes.append(len(start))
        return honest(self, start)

    monkeypatch.setattr(newton.Batch, "solve", counted)
    cut = design.solve(many, whole.v, memory=8 * COUNT * 5)
    assert sum(sizes) == 12
    assert max(sizes) <= 5
    np.testing.assert_allclose(cut.v, whole.v, atol=2e-3 * np.abs(whole.v).max())


def test_problems_that_share_a_target_leave_its_other_samples_out(planted, monkeypatch):
    x, values = planted
    _, many = replicates(values, 60, keep=1.2)
    rows, honest = [], newton.Batch.__init__

    def counted(self, a, *args):
        rows.append(len(a))
        honest(self, a, *args)

    monkeypatch.setattr(newton.Batch, "__init__", counted)
    Design(x, "cpu").solve(many)
    used = [int((np.abs(each) > 1.2).sum()) for each in values]
    assert rows == used
    assert max(rows) < COUNT / 2


def test_blocks_of_any_size_give_the_same(planted, monkeypatch):
    x, values = planted
    problems = near(values, 0.01, 0.1)
    whole = Design(x, "cpu").solve(problems).v
    monkeypatch.setattr(newton, "CACHE", 1)
    np.testing.assert_allclose(Design(x, "cpu").solve(problems).v, whole, rtol=1e-3, atol=1e-4)


def test_unused_samples_may_hold_anything_but_used_ones_may_not(planted):
    x, _ = planted
    broken = x.copy()
    broken[[3, 8], 2] = np.nan, np.inf
    with pytest.raises(DataError, match="2 of 1500 latents are not finite"):
        Design(broken, "cpu")


def test_what_teaches_nothing_is_refused(planted):
    _, values = planted
    one = np.ones((1, COUNT), np.int8)
    with pytest.raises(DataError, match="one class only among 1500 samples"):
        check(apart(one, 0.01), DIMS)
    with pytest.raises(DataError, match="one value only among 1500 samples"):
        check(near(np.full((1, COUNT), 2.0), 0.01, 0.1), DIMS)
    with pytest.raises(DataError, match="only among 0 samples"):
        check(apart(0 * one, 0.01), DIMS)
    few = np.where(np.arange(COUNT) < DIMS - 1, np.sign(values[:1]), 0)
    with pytest.raises(DataError, match=r"only 19 samples to learn 20 dimensions from"):
        check(apart(few, 0.01), DIMS)
    check(apart(np.sign(values), 0.01), DIMS)


def test_giving_up_is_said(planted, monkeypatch):
    x, values = planted
    monkeypatch.setattr(newton, "NEWTON_STEPS", 1)
    with pytest.raises(SunpipeError, match=r"did not converge.*sklearn"):
        Design(x, "cpu").solve(apart(np.sign(values), 0.01))


def test_intervals():
    low, high = interval(np.array([[1, -1]], np.int8))
    assert low.tolist() == [[1, -np.inf]]
    assert high.tolist() == [[np.inf, -1]]
    low, high = tube(np.array([[2.0, np.nan]]), 0.5)
    assert low.tolist() == [[1.5, -0.5]]
    assert high.tolist() == [[2.5, 0.5]]


@pytest.mark.gpu
def test_a_gpu_finds_the_same(planted):
    x, values = planted
    problems = joined([apart(np.sign(values), 0.01), near(values, 0.01, 0.1)])
    here, there = (Design(x, device).solve(problems).v for device in ("cpu", "cuda"))
    np.testing.assert_allclose(there, here, atol=2e-3 * np.abs(here).max())


def test_the_benchmark_runs():
    shape = {"count": 600, "dims": 12, "quantities": 2, "replicates": 3}
    found = benchmark.run(shape, peers=1, rounds=1, seed=0)
    assert found["shape"]["problems"] == 6
    assert found["ours"]["passes"] > 0
    assert found["sklearn"]["tight"]["cosine"] > 0.9999
    assert abs(found["sklearn"]["tight"]["objective_over_theirs"]) < 1e-4
    assert found["times_faster"] > 0


@pytest.mark.parametrize("c", [1.0, 100.0])
def test_what_float32_cannot_resolve_is_solved_in_float64(c):
    random = np.random.default_rng(6)
    w = random.standard_normal((1000, 4)) @ random.standard_normal((4, 16))  # 4 of 16 dimensions
    x = ((w - w.mean(axis=0)) / w.std(axis=0)).astype(np.float32)
    y = x[:, 0] + 5 * random.standard_normal(1000)
    problems = near(y[None], c, 0.0)
    v = Design(x, "cpu").solve(problems).v[0]
    a = np.concatenate([x, np.ones((1000, 1))], axis=1, dtype=np.float64)
    exact = np.linalg.solve(np.eye(17) + 2 * c * a.T @ a, 2 * c * a.T @ problems.low[0])
    assert v[:-1] @ exact[:-1] / np.linalg.norm(v[:-1]) / np.linalg.norm(exact[:-1]) > 0.9999
