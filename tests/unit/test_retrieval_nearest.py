"""Who may answer, and who is nearest, against plain loops."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from sunpipe.errors import DataError
from sunpipe.evaluate.retrieval_archive import choose, hours_of, read_archive, spread
from sunpipe.evaluate.retrieval_nearest import (
    Nearest,
    askers,
    euclidean,
    scan,
    strangers,
)
from sunpipe.evaluate.retrieval_scores import like, magnitudes, physics, same_region
from tests.unit.index_fake import make
from tests.unit.retrieval_fake import archive


def naive(found: Nearest, far: np.ndarray, hours: float, allowed: np.ndarray) -> np.ndarray:
    """Distance of the best tile of each group for each query, one pair after the other."""
    source, asked = found.archive, found.asked
    best = np.full(found.distance.shape, np.inf)
    for query in range(len(asked)):
        for tile in range(len(source)):
            here = source.group[tile] == asked.group[query] or (
                source.disk[tile] and asked.disk[query]
            )
            apart = abs(source.hours[tile] - asked.hours[query])
            if not allowed[tile] or (here and (apart < hours or apart == 0)):
                continue
            group = source.group[tile]
            best[query, group] = min(best[query, group], far[query, tile])
    return best


@pytest.mark.parametrize("disk", [False, True])
@pytest.mark.parametrize("hours", [0.0, 12.0, 24.0])
def test_both_protocols_are_those_of_plain_loops(hours: float, disk: bool) -> None:
    source = archive(7, disk=disk)
    deal = np.random.default_rng(5)
    chosen = deal.choice(len(source), 20, replace=False)
    far = deal.integers(0, 30, (20, len(source))).astype(np.float32)  # with ties
    allowed = deal.random(len(source)) < 0.8
    found = scan(Nearest(source, askers(source, chosen), hours, allowed), lambda r: far[:, r])
    best = naive(found, far, hours, allowed)
    np.testing.assert_array_equal(found.distance, best)
    known = np.isfinite(best)
    places = found.position[known]
    np.testing.assert_array_equal(far[np.nonzero(known)[0], places], best[known])
    np.testing.assert_array_equal(source.group[places], np.nonzero(known)[1])

    own = source.group[chosen]
    for query, rank in enumerate(found.own_rank()):
        mine, rest = best[query, own[query]], np.delete(best[query], own[query])
        if np.isfinite(mine):
            assert rank == 1 + (rest < mine).sum() + (rest == mine).sum() / 2
        else:
            assert np.isnan(rank)
        assert found.match(True)[0][query] == rest.min()
        assert found.match(False)[0][query] == best[query].min()


def test_blocks_do_not_matter_and_strangers_leave_nothing_out() -> None:
    source = archive(5)
    far = np.random.default_rng(6).random((3, len(source))).astype(np.float32)
    whole, pieces = (Nearest(source, strangers(3), 24.0) for _ in range(2))
    whole.see(far, slice(0, len(source)))
    for start in range(0, len(source), 5):
        rows = slice(start, min(start + 5, len(source)))
        pieces.see(far[:, rows], rows)
    np.testing.assert_array_equal(whole.distance, pieces.distance)
    np.testing.assert_array_equal(whole.position, pieces.position)
    np.testing.assert_array_equal(whole.match(True)[1], far.argmin(axis=1))
    assert np.isnan(whole.own_rank()).all()


def test_a_perfect_and_a_random_retriever_get_what_they_deserve() -> None:
    source = archive(30, tiles=3)
    asked = askers(source, np.arange(len(source)))
    same = (source.group[:, None] != source.group[None]).astype(np.float32)
    perfect = same_region(scan(Nearest(source, asked, 24.0), lambda r: same[:, r]), 10, 100, 0)
    assert perfect["recall_1"]["value"] == 1
    assert perfect["mean_rank"]["value"] == 1
    assert perfect["recall_1"]["n"] == 2 * 3 * 30  # 12 h is less than 24 h from both others
    deal = np.random.default_rng(0)
    luck = deal.random((len(source), len(source)), dtype=np.float32)
    chance = scan(Nearest(source, asked, 24.0), lambda r: luck[:, r])
    row = same_region(chance, 10, 100, 0)
    # Three own tiles stand against nine of each other HARP, which so is ahead in 3 of 4 cases.
    assert 0 < row["recall_1"]["value"] < 0.06
    assert row["mean_rank"]["value"] == pytest.approx(1 + 29 * 0.75, abs=1.5)


def test_the_physics_of_a_match_is_read_from_the_matched_tile() -> None:
    source = archive(12, dim=1)
    values = np.stack([source.vectors[:, 0], -(source.vectors[:, 0] ** 3)], axis=1).astype(float)
    chosen = np.arange(0, len(source), 3)
    far = np.abs(source.vectors[chosen] - source.vectors[:, 0][None])
    found = scan(Nearest(source, askers(source, chosen), 24.0), lambda r: far[:, r])
    rows = physics(found, values[chosen], values, ["A", "B"], True, found.asked.group, 100, 0)
    assert rows["A"]["spearman"]["value"] > 0.95
    assert rows["B"]["pearson"]["value"] > 0.8
    assert rows["A"]["clusters"] == 12


def test_magnitudes_stand_beside_quantities_of_both_signs() -> None:
    values = np.array([[1.0, -2.0, np.nan], [2.0, 3.0, -1.0], [3.0, 4.0, -1.0]])
    wide, names = magnitudes(values, ["A", "B", "C"])
    assert names == ["A", "B", "C", "|B|"]
    np.testing.assert_array_equal(wide[:, 3], [2, 3, 4])
    np.testing.assert_array_equal(like(-values, ["A", "B", "C"], names)[:, 3], [2, 3, 4])


def test_distances_of_rows() -> None:
    deal = np.random.default_rng(0)
    one, two = (deal.normal(size=(n, 9)).astype(np.float32) for n in (4, 5))
    wanted = np.linalg.norm(one[:, None] - two[None], axis=2)
    np.testing.assert_allclose(euclidean(one, two), wanted, rtol=1e-5)
    assert euclidean(one, one)[0, 0] < 3e-3


def test_queries_are_spread_over_harps_and_times() -> None:
    source = archive(5, tiles=6)
    chosen = choose(source, source.group != 2, 17)
    assert len(chosen) == len(set(chosen)) == 17
    count = np.bincount(source.group[chosen], minlength=5)
    assert count[2] == 0
    assert sorted(np.delete(count, 2)) == [4, 4, 4, 5]
    assert len(set(source.hours[chosen])) == 3
    np.testing.assert_array_equal(choose(source, source.group != 2, 17), chosen)
    assert len(choose(source, source.group == 1, 100)) == 18
    assert len(choose(source, np.zeros(len(source), bool), 5)) == 0
    np.testing.assert_array_equal(spread(5, 9), np.arange(5))
    np.testing.assert_array_equal(spread(9, 3), [0, 4, 8])


def test_times_of_both_kinds() -> None:
    column = pa.chunked_array([["2011.02.15_02:30:00_TAI", "2011-02-15T02:30:36Z"]])
    first, second = hours_of(column)
    assert second - first == pytest.approx(0.01)
    assert first == pytest.approx(15020 * 24 + 2.5)


def test_an_embedding_is_read_in_the_order_of_its_groups(tmp_path: Path) -> None:
    _, vectors = make(tmp_path / "e", [3, 2, 4])
    source = read_archive(tmp_path / "e", 100)
    assert (len(source), source.total, source.unit) == (9, 9, "HARP")
    np.testing.assert_array_equal(source.vectors, vectors[source.places])
    assert source.names == ["1", "2", "3"]
    np.testing.assert_array_equal(source.train, source.group != 1)
    few = read_archive(tmp_path / "e", 5)
    assert (len(few), few.total, len(few.names)) == (5, 9, 3)
    np.testing.assert_array_equal(few.vectors, vectors[few.places])
    make(tmp_path / "one", [4])
    with pytest.raises(DataError, match="holds one HARP"):
        read_archive(tmp_path / "one", 100)
