"""Walks by measured responses: planted functions in, paths out."""

from pathlib import Path

import numpy as np
import pytest

from sunpipe.errors import DataError
from sunpipe.latent.ask import Asked, check, names
from sunpipe.latent.hold import Goal, Whitened, follow, jacobian
from sunpipe.latent.routes import Route

DIMS = 10


@pytest.fixture(scope="module")
def cloud():
    """Latents that vary differently along turned axes."""
    random = np.random.default_rng(0)
    turn = np.linalg.qr(random.standard_normal((DIMS, DIMS)))[0]
    x = (random.standard_normal((4000, DIMS)) * np.linspace(3, 0.3, DIMS)) @ turn + 5
    return Whitened.of(x, np.ones(DIMS, bool))


def goal(change, held=1, tolerance=0.05):
    labels = ("Q", "H", "K")[: held + 1]
    return Goal(0, change, tuple(range(1, held + 1)), np.full(held, tolerance), labels)


def walked(cloud, functions, change, reach=4.0, **how):
    """Walk where quantities are functions of the whitened latent (K, R)."""

    def measure(x):
        y = cloud.whiten(x - cloud.mean)
        return np.stack([function(y) for function in functions], axis=1)

    return follow(measure, cloud.mean.copy(), cloud, [], goal(change, len(functions) - 1, **how),
                  reach)  # fmt: skip


def test_a_unit_of_the_cloud_is_a_standard_deviation(cloud):
    assert cloud.axes.shape == (DIMS, DIMS)
    lengths = np.linalg.norm(cloud.axes, axis=1)
    assert (np.diff(lengths) < 0).all()
    assert lengths[0] == pytest.approx(3, rel=0.05)
    np.testing.assert_allclose(cloud.whiten(cloud.axes), np.eye(DIMS), atol=1e-12)
    probes = cloud.probes([cloud.axes[3] + cloud.axes[4], 2 * cloud.axes[3], cloud.axes[4]], 6)
    assert probes.shape == (6, DIMS)
    np.testing.assert_allclose(probes @ probes.T, np.eye(6), atol=1e-12)
    np.testing.assert_allclose(probes[0], np.eye(DIMS)[3:5].sum(0) / np.sqrt(2), atol=1e-9)


def test_columns_that_may_not_move_stay():
    x = np.random.default_rng(1).standard_normal((500, 6))
    x[:, 4] = 2
    cloud = Whitened.of(x, np.array([0, 1, 1, 1, 1, 0], bool))
    assert cloud.axes.shape == (3, 6)
    assert not cloud.axes[:, [0, 4, 5]].any()
    with pytest.raises(DataError, match="do not vary"):
        Whitened.of(np.ones((9, 2)), np.ones(2, bool))


def test_the_held_stays_on_a_curved_surface(cloud):
    target, held = (lambda y: y[:, 0] + 0.5 * y[:, 1]), (lambda y: y[:, 1] + 0.3 * y[:, 0] ** 2)
    path = walked(cloud, [target, held], 1.5)
    assert path.reached
    assert path.values[-1, 0] - path.values[0, 0] == pytest.approx(1.5, rel=0.05)
    assert np.abs(path.values[:, 1] - path.values[0, 1]).max() <= 0.05
    assert np.abs(np.diff(path.steps)).max() < 0.9
    straight = held(cloud.whiten(path.x[-1:] - cloud.mean) * [1, 0, *[1] * (DIMS - 2)])
    assert straight > 0.1  # without the bend it would have drifted


def test_a_fold_is_climbed_on_its_own_side(cloud):
    """A global direction of a square is nothing; its response here is something."""
    path = walked(cloud, [lambda y: (y[:, 2] - 0.5) ** 2], 2.0)
    assert path.reached
    assert cloud.whiten(path.x[-1] - cloud.mean)[2] < -1


def test_what_is_one_quantity_cannot_be_held_apart(cloud):
    path = walked(cloud, [lambda y: y[:, 0], lambda y: 3 * y[:, 0]], 1.0)
    assert not path.reached
    assert "whatever changes Q moves H too" in path.reason
    assert np.abs(path.values[:, 1] - path.values[0, 1]).max() <= 0.05


def test_two_held_and_the_one_that_stops_it_is_named(cloud):
    functions = [lambda y: y[:, 0], lambda y: y[:, 1], lambda y: np.where(y[:, 0] > 0.6, 1.0, 0.0)]
    path = walked(cloud, functions, 2.0)
    assert not path.reached
    assert path.values[-1, 0] <= 0.6
    assert "K" in path.reason


def test_the_walk_ends_with_the_cloud(cloud):
    path = walked(cloud, [lambda y: y[:, 0]], 50.0, reach=2.0)
    assert not path.reached
    assert "where the sampled latents end" in path.reason
    assert path.values[-1, 0] == pytest.approx(2, abs=0.05)


def test_undefined_is_not_walked_into(cloud):
    path = walked(cloud, [lambda y: np.where(y[:, 0] < 1, y[:, 0], np.nan)], 2.0)
    assert not path.reached
    assert np.isfinite(path.values).all()
    assert path.values[-1, 0] < 1


def test_a_jump_is_no_slope(cloud):
    def measure(x):
        y = cloud.whiten(x - cloud.mean)
        return (y[:, 0] + 5.0 * (y[:, 1] > 0.06))[:, None]

    found = jacobian(measure, cloud.mean, cloud.axes, goal(1.0, 0), 0.1)
    np.testing.assert_allclose(found[0, 0], 1, atol=1e-9)
    assert abs(found[0, 1]) < 1e-9


def test_frames_lie_on_the_way():
    nodes = np.array([[0.0, 0], [1, 0], [1, 2]])
    route = Route("bent", nodes, np.array([0.0, 1, 3]), nodes[0], nodes[-1], True, "")
    steps, x = route.frames(4)
    np.testing.assert_allclose(steps, [0, 1, 2, 3])
    np.testing.assert_allclose(x, [[0, 0], [1, 0], [1, 1], [1, 2]])
    back = Route("straight", nodes[:2], np.array([0.0, -2]), nodes[0], nodes[1], True, "")
    np.testing.assert_allclose(back.frames(3)[1], [[0, 0], [0.5, 0], [1, 0]])
    still = Route("straight", nodes[:2], np.zeros(2), nodes[0], nodes[0], False, "no")
    assert still.frames(5)[1].shape == (1, 2)


@pytest.mark.parametrize(
    ("asked", "line"),
    [
        (Asked(None, "1"), "say what to walk"),
        (Asked("USFLUX", "1", component=2), "say what to walk"),
        (Asked("USFLUX"), "say how far"),
        (Asked("USFLUX", "1", to="2"), "say how far"),
        (Asked("USFLUX", "1", conditional=True, against=("POLSEP",)), "leave it out"),
        (Asked(None, to="1", component=1), "--to needs --quantity"),
        (Asked(None, "1", component=1, hold=("POLSEP",)), "--hold needs --quantity"),
        (Asked("USFLUX", "1", hold=("USFLUX",)), "it is what is to change"),
        (Asked("USFLUX", "1", against=("POLSEP", "POLSEP")), "POLSEP stands twice"),
        (Asked("USFLUX", "1", hold_tolerance=0.0), "must be above 0"),
        (Asked("USFLUX", "1", hold_tolerance=0.2), "--hold-tolerance needs --hold"),
        (Asked("USFLUX", "1", hold=("POLSEP",), path="straight"), "cannot keep what --hold names"),
        (Asked(None, "1", component=1, path="bent"), "--component goes straight"),
        (Asked("USFLUX", "1", against=("POLSEP",), path="bent"), "--against does not count"),
        (Asked("USFLUX", "1", conditional=True, path="bent"), "--conditional does not count"),
        (Asked("USFLUX", "1", start=Path("walk.h5"), seed=3), "both say where to start"),
    ],
)
def test_options_that_do_not_go_together(asked, line):
    from sunpipe.errors import UsageError

    with pytest.raises(UsageError, match=line):
        check(asked)


def test_names_of_a_list():
    assert names(" USFLUX, POLSEP,") == ("USFLUX", "POLSEP")
    assert names(None) == ()
