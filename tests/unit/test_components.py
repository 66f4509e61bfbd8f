"""Bootstrap, rivals, judge and components on planted latents."""

import json
from dataclasses import replace

import numpy as np
import pytest

from sunpipe.errors import DataError
from sunpipe.latent.bootstrap import bootstrap_planes, learned_from
from sunpipe.latent.components import component_vectors, components
from sunpipe.latent.direction import unit
from sunpipe.latent.judge import judge, rivals
from sunpipe.latent.prepare import prepare
from sunpipe.latent.ridge import normal_scores
from sunpipe.latent.samples import Samples
from sunpipe.latent.svm import Scale, apart, fit_svm, fit_svr
from sunpipe.latent_settings import DirectionsSettings

COUNT, DIMS = 2000, 8
NAMES = ["USFLUX", "MEANGAM", "POLSEP"]


def samples_of(values, w):
    recipe = {"generator": "f" * 64, "styles": 1, "psi": 1.0, "noise": "const", "num_ws": 4}
    known = {
        "z": w.astype(np.float32), "w": w.astype(np.float32), "values": values,
        "names": NAMES, "units": ["Mx", "deg", "Mm"], "recipe": recipe,
        "z2": None, "crossover": None, "num_ws": 4,
    }  # fmt: skip
    wanted = Samples.__dataclass_fields__
    return Samples(**{key: value for key, value in known.items() if key in wanted})


@pytest.fixture(scope="module")
def latents():
    """w varies most along axis 0, then 1; USFLUX follows 0, MEANGAM 1 and 2, POLSEP nothing."""
    random = np.random.default_rng(8)
    w = random.standard_normal((COUNT, DIMS)) * np.array([4, 3, 2, 1, 0.8, 0.6, 0.4, 0.2])
    noise = random.standard_normal((COUNT, 3))
    values = np.stack([
        np.exp(w[:, 0] / 2 + 0.3 * noise[:, 0]), w[:, 1] / 3 - w[:, 2] / 2 + 0.3 * noise[:, 1],
        noise[:, 2],
    ], axis=1)  # fmt: skip
    values[::50, 1] = np.nan
    return w, values


def prepared(latents, **changes):
    w, values = latents
    settings = DirectionsSettings(quantities=tuple(NAMES), bootstrap=4, components=3)
    return prepare(samples_of(values, w), replace(settings, **changes), 0)


@pytest.fixture(scope="module")
def p(latents):
    return prepared(latents)


def test_components_are_read(p):
    table = components(p)
    assert [row["name"] for row in table] == ["PC1", "PC2", "PC3"]
    assert [row["reads"] for row in table] == ["USFLUX", "MEANGAM", "MEANGAM"]
    variances = np.linalg.eigvalsh(np.cov(p.x.astype(np.float64).T))[::-1]
    np.testing.assert_allclose([row["share"] for row in table], variances[:3] / variances.sum())
    np.testing.assert_allclose([row["sigma"] ** 2 for row in table], variances[:3])
    first = table[0]["quantities"]
    assert first["USFLUX"]["spearman"] > 0.95
    assert first["USFLUX"]["pearson"] < 0.9  # the quantity grows with the exponential of w
    assert table[2]["quantities"]["MEANGAM"]["spearman"] < -0.5
    for row in table:
        assert abs(row["quantities"]["POLSEP"]["spearman"]) < row["chance"]
        assert 0.03 < row["chance"] < 0.1  # 9 correlations of 2000 samples
    json.dumps(table, allow_nan=False)
    assert components(p) == table


def test_component_vectors_are_the_axes_of_w(p, latents):
    vectors = component_vectors(p)
    np.testing.assert_allclose(np.abs(vectors), np.eye(DIMS)[:3], atol=0.1)
    np.testing.assert_allclose(vectors @ vectors.T, np.eye(3), atol=1e-12)
    assert (vectors.max(axis=1) > 0.9).all()
    assert component_vectors(prepared(latents, components=50)).shape == (DIMS, DIMS)
    assert components(prepared(latents, components=0)) == []


def test_noise_reads_as_nothing(latents):
    w, _ = latents
    values = np.random.default_rng(3).standard_normal((COUNT, 3))
    assert [row["reads"] for row in components(prepared((w, values)))] == [None] * 3


@pytest.mark.parametrize("learner", ["svm", "svr", "ridge"])
def test_refits_do_not_depend_on_the_batch_and_lie_around_the_learner(latents, learner):
    p = prepared(latents, learner=learner)
    together, alone = bootstrap_planes(p, p.names), bootstrap_planes(p, ["MEANGAM"])
    assert list(together) == p.names
    assert together["MEANGAM"].normals.shape == (4, DIMS)
    np.testing.assert_allclose(together["MEANGAM"].normals, alone["MEANGAM"].normals, atol=1e-3)
    truth = unit(np.array([0, 1 / 3, -1 / 2, 0, 0, 0, 0, 0]))
    cosine = together["MEANGAM"].normals @ truth
    assert (cosine > 0.9).all()
    assert len(np.unique(cosine)) == 4
    assert bootstrap_planes(prepared(latents, bootstrap=0), p.names) == {}


def test_refits_agree_with_scikit_learn(p, latents):
    ours = bootstrap_planes(p, ["USFLUX"])["USFLUX"].normals
    theirs = bootstrap_planes(prepared(latents, solver="sklearn"), ["USFLUX"])["USFLUX"].normals
    assert (np.sum(ours * theirs, axis=1) > 0.9999).all()


def test_judge_puts_every_contender_beside_the_walked_direction(p):
    planes, refits = rivals(p, p.names), bootstrap_planes(p, p.names)
    about = judge(p, "MEANGAM", refits["MEANGAM"], planes["MEANGAM"])
    json.dumps(about, allow_nan=False)
    assert about["svm"]["cosine"] == pytest.approx(1, abs=1e-5)
    for key in ("svm", "svr", "ridge", "ridge_ranks"):
        assert about[key]["accuracy_extremes"] > 0.97, key
        assert about[key]["spearman"] > 0.9, key
        assert about[key]["cosine"] > 0.97, key
    assert about["component"]["name"] == "PC3"
    assert 0.5 < about["component"]["spearman"] < about["svm"]["spearman"]
    assert about["random"]["accuracy_extremes"] < about["component"]["accuracy_extremes"]
    assert about["accuracy"]["random_extremes"] == about["random"]["accuracy_extremes"]
    assert about["accuracy"]["spearman"] == pytest.approx(about["svm"]["spearman"], abs=1e-4)
    assert about["bootstrap_angle_deg"]["replicates"] == 4
    noise = judge(p, "POLSEP", refits["POLSEP"], planes["POLSEP"])
    assert abs(noise["svm"]["spearman"]) < 0.15
    assert abs(noise["ridge"]["r2"]) < 0.05


def test_what_is_not_given_to_judge_is_fitted(p, latents):
    given = judge(p, "USFLUX", bootstrap_planes(p, p.names)["USFLUX"], rivals(p, p.names)["USFLUX"])
    alone = judge(p, "USFLUX")
    assert alone["svr"]["cosine"] == pytest.approx(given["svr"]["cosine"], abs=1e-4)
    assert alone["bootstrap_angle_deg"]["median"] == pytest.approx(
        given["bootstrap_angle_deg"]["median"], abs=0.05
    )
    bare = judge(prepared(latents, bootstrap=0, components=0), "USFLUX")
    assert "bootstrap_angle_deg" not in bare
    assert bare["component"] is None


def test_columns_that_may_not_move_get_exactly_zero(latents):
    w, values = latents
    movable = np.array([True, False] * 4)
    scale, scores = Scale.of(w), normal_scores(values[:, 0])
    marks = np.where(scores > 0, 1, -1)
    for solver in ("newton", "sklearn"):
        for planes in (
            fit_svm(w, marks[None], 0.01, scale, solver, movable),
            fit_svr(w, scores[None], 0.01, 0.1, scale, solver, movable),
        ):
            assert (planes.normals[0, ~movable] == 0).all()
            assert planes.normals[0, 0] > 0.9
    with pytest.raises(DataError, match="no dimension of the latents varies"):
        fit_svm(np.zeros_like(w), marks[None], 0.01, Scale.of(np.zeros_like(w)))


def test_learners_see_no_held_out_sample(p):
    for learner in ("svm", "svr", "ridge"):
        problem = learned_from(p, "USFLUX", learner)
        assert not problem.weights[:, p.test].any(), learner
        assert problem.weights[:, ~p.test].any()
    assert np.array_equal(
        learned_from(p, "USFLUX", "svm").weights,
        apart(np.where(p.test, 0, p.extreme["USFLUX"])[None], 0.01).weights,
    )
