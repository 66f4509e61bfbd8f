"""Index folders: digests, refusals, and search against brute force."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from sunpipe.errors import DataError, UsageError
from sunpipe.index.build import build
from sunpipe.index.describe import verify
from sunpipe.index.fold import nearest_groups
from sunpipe.index.nearest import nearest_tiles
from sunpipe.index.search import (
    Query,
    joint_records,
    joint_tiles,
    record_query,
    search,
)
from sunpipe.index.store import Index, load_index
from tests.unit.index_fake import DIM, make, record

TILES = [3, 5, 1, 4, 2]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make(tmp_path / "embeddings", TILES)
    build(tmp_path / "embeddings", tmp_path / "index")
    return tmp_path / "index"


@pytest.fixture
def index(folder: Path) -> Index:
    return load_index(folder)


def far(stored: np.ndarray, query: np.ndarray, metric: str) -> np.ndarray:
    """Distances (N, Q) in float64, computed apart from FAISS."""
    a, b = stored.astype(np.float64), query.astype(np.float64)
    if metric == "euclidean":
        return np.linalg.norm(a[:, None] - b[None], axis=2)
    return 1 - (a / np.linalg.norm(a, axis=1)[:, None]) @ (b / np.linalg.norm(b, axis=1)[:, None]).T


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_tiles_and_records_equal_brute_force(tmp_path: Path, metric: str) -> None:
    tiles = [4, 9, 1, 7, 2, 30, 3]
    _, vectors = make(tmp_path / "e", tiles, seed=3)
    build(tmp_path / "e", tmp_path / "i", metric)
    index = load_index(tmp_path / "i")
    query = np.random.default_rng(9).normal(size=(5, DIM)).astype(np.float32)
    codes = np.repeat(np.arange(len(tiles)), tiles)
    truth = far(vectors, query, metric)
    for allowed in (np.ones(len(codes), bool), codes % 2 == 0, codes == 5):
        got, rows = nearest_tiles(index, query, 6, allowed)
        for number in range(5):
            order = [row for row in np.argsort(truth[:, number]) if allowed[row]][:6]
            assert rows[number].tolist() == order
            np.testing.assert_allclose(got[number], truth[order, number], atol=2e-6)
        alone = nearest_groups(index, query, 3, allowed, codes)
        names = np.unique(codes[allowed])
        for number, answer in enumerate(alone):
            best = {name: min((truth[row, number], row) for row in np.flatnonzero(
                (codes == name) & allowed)) for name in names}  # fmt: skip
            wanted = sorted(best.values())[:3]
            assert [row for _, row in answer] == [row for _, row in wanted]
        joint = joint_records(index, query, 3, allowed)
        means = {name: truth[(codes == name) & allowed].min(axis=0).mean() for name in names}
        order = sorted(names, key=lambda name: means[name])[:3]
        assert [codes[row] for _, row in joint] == order
        np.testing.assert_allclose([d for d, _ in joint], [means[n] for n in order], atol=2e-6)
        for (_, row), name in zip(joint, order, strict=True):
            mine = (codes == name) & allowed
            assert truth[row].min() == truth[mine].min()
        either = joint_tiles(index, query, 4, allowed)
        wanted_rows = [r for r in np.argsort(truth.min(axis=1)) if allowed[r]][:4]
        assert [row for _, row in either] == wanted_rows


def test_one_vector_asked_alone_or_jointly_is_the_same(index: Index) -> None:
    query = np.ones((1, DIM), np.float32)
    everything = np.ones(sum(TILES), bool)
    codes = np.repeat(np.arange(len(TILES)), TILES)
    alone = nearest_groups(index, query, 5, everything, codes)[0]
    joint = joint_records(index, query, 5, everything)
    assert [row for _, row in alone] == [row for _, row in joint]
    np.testing.assert_allclose([d for d, _ in alone], [d for d, _ in joint], atol=1e-6)


def test_blocks_do_not_change_the_answer(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    query = np.random.default_rng(2).normal(size=(3, DIM)).astype(np.float32)
    allowed = np.ones(sum(TILES), bool)
    whole = joint_records(index, query, 5, allowed)
    monkeypatch.setattr("sunpipe.index.search.BLOCK", 4)
    assert [row for _, row in joint_records(index, query, 5, allowed)] == [r for _, r in whole]


def test_own_record_is_left_out_unless_asked_for(index: Index) -> None:
    query = record_query(index, record(2))
    assert query.about["tiles"] == 5
    others = search(index, query, 10)
    assert [hit["harpnum"] for hit in others].count(2) == 0
    assert len(others) == 4  # k beyond what is there
    with_self = search(index, query, 10, include_self=True)
    assert with_self[0]["record"] == record(2)
    assert with_self[0]["distance"] == pytest.approx(0, abs=1e-6)
    assert len(with_self) == 5
    tiles = search(index, query, 100, per="tile")
    assert len(tiles) == sum(TILES) - 5


def test_hits_carry_what_a_person_needs(index: Index) -> None:
    hits = search(index, record_query(index, record(1)), 10)
    hit = next(hit for hit in hits if hit["harpnum"] == 3)
    assert hit["record"] == record(3)
    assert hit["t_rec"] == "2011.02.15_02:00:00_TAI"
    assert hit["tile"] == [0, 0]
    assert hit["split"] == "train"
    assert hit["keywords"] == {"USFLUX": 3e22, "TOTUSJH": None, "R_VALUE": None}  # NaN is no JSON
    json.dumps(hits, allow_nan=False)
    assert [hit["distance"] for hit in hits] == sorted(hit["distance"] for hit in hits)


def test_conditions_are_exact(index: Index) -> None:
    query = record_query(index, record(1))
    assert {h["harpnum"] for h in search(index, query, 10, "USFLUX > 3.5e22")} == {4, 5}
    assert search(index, query, 10, "USFLUX > 1e30") == []
    assert search(index, query, 10, "harpnum = 1") == []
    assert len(search(index, query, 10, "harpnum = 1", include_self=True)) == 1


def test_bad_questions(index: Index) -> None:
    with pytest.raises(UsageError, match=r"not in .*near: hmi\.sharp_cea_720s\[1\]"):
        record_query(index, "hmi.sharp_cea_720s[1][2011.02.15_02:12:00_TAI]")
    with pytest.raises(UsageError, match="at least one"):
        search(index, record_query(index, record(1)), 0)
    other = Query(np.ones((1, DIM), np.float32), {"kind": "fits"}, None, "a" * 64)
    with pytest.raises(
        DataError, match=r"encoder eeeeeeeeeeee .*query is from encoder aaaaaaaaaaaa"
    ):
        search(index, other, 3)
    longer = Query(np.ones((1, DIM + 1), np.float32), {"kind": "fits"}, None, "e" * 64)
    with pytest.raises(DataError, match=f"vectors of {DIM} numbers, the query has {DIM + 1}"):
        search(index, longer, 3)


def test_any_change_of_a_file_is_refused(folder: Path) -> None:
    random = np.random.default_rng(0)
    for name in ("vectors.faiss", "metadata.parquet"):
        path = folder / name
        whole = path.read_bytes()
        for _ in range(40):
            damaged = bytearray(whole)
            damaged[int(random.integers(len(whole)))] ^= 1 << int(random.integers(8))
            path.write_bytes(bytes(damaged))
            with pytest.raises(DataError, match=f"{name} was altered"):
                load_index(folder)
        path.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(DataError, match="altered or cut short"):
            load_index(folder)
        assert verify(folder)["problems"] == [f"{name} is missing or was altered"]
        path.unlink()
        with pytest.raises(DataError, match="altered or cut short"):
            load_index(folder)
        path.write_bytes(whole)
    assert load_index(folder).info.count == sum(TILES)


def test_index_json_is_checked(folder: Path) -> None:
    path = folder / "index.json"
    good = json.loads(path.read_text())
    for change, match in (
        ({"schema": 99}, "another schema"),
        ({"dim": DIM + 1}, "index.json says"),
        ({"count": 3}, "index.json says"),
        ({"surprise": 1}, "not an index's"),
    ):
        path.write_text(json.dumps({**good, **change}))
        with pytest.raises(DataError, match=match):
            load_index(folder)
    path.write_text("{")
    with pytest.raises(DataError, match="not valid JSON"):
        load_index(folder)
    path.unlink()
    with pytest.raises(DataError, match="run sunpipe index build"):
        load_index(folder)


def test_verify(folder: Path) -> None:
    assert verify(folder) == {"ok": True, "problems": [], "count": sum(TILES)}


def test_build_again_is_cheap_and_a_new_embedding_is_seen(tmp_path: Path) -> None:
    make(tmp_path / "e", TILES)
    first = build(tmp_path / "e", tmp_path / "i")
    assert not first["skipped"]
    stamp = (tmp_path / "i" / "vectors.faiss").stat().st_mtime_ns
    assert build(tmp_path / "e", tmp_path / "i")["skipped"]
    assert (tmp_path / "i" / "vectors.faiss").stat().st_mtime_ns == stamp
    assert not build(tmp_path / "e", tmp_path / "i", "euclidean")["skipped"]
    make(tmp_path / "e", TILES, seed=5)
    assert not build(tmp_path / "e", tmp_path / "i", "euclidean")["skipped"]
    # An index that was damaged is built again.
    (tmp_path / "i" / "vectors.faiss").write_bytes(b"x")
    assert not build(tmp_path / "e", tmp_path / "i", "euclidean")["skipped"]
    assert verify(tmp_path / "i")["ok"]


def test_a_folder_with_other_things_is_never_replaced(tmp_path: Path) -> None:
    make(tmp_path / "e", TILES)
    home = tmp_path / "home"
    home.mkdir()
    (home / "thesis.tex").write_text("years of work")
    with pytest.raises(UsageError, match=r"thesis\.tex"):
        build(tmp_path / "e", home)
    with pytest.raises(UsageError, match="is no part of an index"):
        build(tmp_path / "e", tmp_path / "e")
    with pytest.raises(UsageError, match="is a file"):
        build(tmp_path / "e", home / "thesis.tex")
    assert (home / "thesis.tex").read_text() == "years of work"


def test_altered_embeddings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="run sunpipe embed first"):
        build(tmp_path / "none", tmp_path / "i")
    make(tmp_path / "e", TILES)
    part = tmp_path / "e" / "embedding-00001.npy"
    part.write_bytes(part.read_bytes()[:-4])
    with pytest.raises(DataError, match=r"embedding-00001\.npy is missing or was altered"):
        build(tmp_path / "e", tmp_path / "i")
    assert not (tmp_path / "i").exists()


def test_equal_vectors_do_not_trouble_verify(tmp_path: Path) -> None:
    from sunpipe.embed import store

    _, vectors = make(tmp_path / "e", [2, 2])
    vectors[:] = vectors[0]
    info = store.read_embedding(tmp_path / "e")
    table = store.read_metadata(tmp_path / "e", info)
    for shard, part in enumerate((vectors[:2], vectors[2:])):
        store.write_part(tmp_path / "e", shard, part, {"same": True})
    notes = {store.part_name(s): store.part_note(tmp_path / "e", s, {"same": True}) for s in (0, 1)}
    store.publish(tmp_path / "e", table, encoder=info.encoder, dataset=info.dataset,
                  splits=info.splits, dim=DIM, files=notes)  # fmt: skip
    build(tmp_path / "e", tmp_path / "i")
    assert verify(tmp_path / "i")["ok"]
