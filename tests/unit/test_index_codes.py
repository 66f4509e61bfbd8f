"""Codes with exact re-ranking: chosen by measuring, exact under filters, built in parts, grown."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from sunpipe.embed.store import part_name, part_note, publish, write_part
from sunpipe.errors import DataError, UsageError
from sunpipe.index import choose, digests, learn, margin, measure
from sunpipe.index.build import build, merge
from sunpipe.index.codes import Effort, find
from sunpipe.index.describe import verify
from sunpipe.index.exact import exact
from sunpipe.index.grow import grow
from sunpipe.index.nearest import nearest_tiles, stored
from sunpipe.index.store import load_index, prepare, read_info
from sunpipe.index_settings import IndexSettings

DIM, COUNT, GROUPS = 16, 3000, 60
MADE = {"encoder": "e" * 64, "dataset": "d" * 64, "splits": ["train"]}
CLUSTERED, DIFFUSE = 0.05, 1.5


def cloud(noise: float, count: int = COUNT, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    centres = np.random.default_rng(0).normal(size=(GROUPS, DIM))
    random = np.random.default_rng(seed)
    group = random.integers(GROUPS, size=count)
    return (centres[group] + noise * random.normal(size=(count, DIM))).astype(np.float32), group


def embed(
    folder: Path, vectors: np.ndarray, group: np.ndarray, files: int = 4, first: int = 0,
    encoder: str = "e" * 64, pixel: float = 7.3e7,
) -> Path:  # fmt: skip
    names = []
    for shard, part in enumerate(np.array_split(vectors, files)):
        write_part(folder, shard, part, MADE)
        names += [part_name(shard)] * len(part)
    table = pa.table({
        "embedding": names, "record": [f"r{first + row}" for row in range(len(vectors))],
        "harpnum": group, "tile_y": np.zeros(len(vectors), int),
        "tile_x": np.zeros(len(vectors), int), "split": ["train"] * len(vectors),
    })  # fmt: skip
    publish(folder, table, encoder={"digest": encoder, "run": "0"}, splits=["train"],
            dataset={"name": "f", "id": "d" * 64, "pixel_cm": pixel}, dim=vectors.shape[1],
            files={part_name(s): part_note(folder, s, MADE) for s in range(files)})  # fmt: skip
    return folder


def of(kind: str, **more: float) -> IndexSettings:
    return IndexSettings(kind=kind, **more)  # type: ignore[arg-type]


@pytest.fixture(scope="module", autouse=True)
def fewer_questions() -> Iterator[None]:
    """Timings need no care here, and 150 queries are enough for 3000 vectors."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measure, "REPEATS", 1)
        patch.setattr(measure, "SPENT_S", 0.0)
        patch.setattr(measure, "QUERIES", 150)
        patch.setattr(margin, "QUERIES", 150)
        yield


@pytest.fixture(scope="module")
def homes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Indexes of both kinds of codes, of both metrics, read only."""
    base = tmp_path_factory.mktemp("codes")
    embed(base / "tight", *cloud(CLUSTERED))
    embed(base / "loose", *cloud(DIFFUSE))
    build(base / "tight", base / "ivf", "cosine", of("ivf"))
    build(base / "loose", base / "fastscan", "euclidean", of("fastscan"))
    return {name: base / name for name in ("tight", "loose", "ivf", "fastscan")}


@pytest.mark.parametrize("kind", ["ivf", "fastscan"])
@pytest.mark.parametrize("share", [1, 0.5, 0.1, 0.03, 0.003, 0.0007])
@pytest.mark.parametrize("whole", [False, True])
def test_filters_lose_no_hits(homes: dict[str, Path], kind: str, share: float, whole: bool) -> None:
    """At random, and with whole groups of neighbours left out: the queries' own as well."""
    index = load_index(homes[kind])
    random = np.random.default_rng(4)
    if whole:
        allowed = (random.random(GROUPS) < share)[index.table["harpnum"].to_numpy()]
    else:
        allowed = random.random(COUNT) < share
    queries = cloud(CLUSTERED if kind == "ivf" else DIFFUSE, 100, seed=9)[0]
    ready = prepare(queries, index.info.normalisation)
    _, rows = nearest_tiles(index, queries, 10, allowed)
    _, truth = exact(index.vectors, ready, 10, index.info.metric, np.flatnonzero(allowed))
    assert rows.shape == truth.shape
    if truth.size:
        assert allowed[rows].all()
        assert (rows[:, :, None] == truth[:, None, :]).any(axis=2).mean() >= 0.985


@pytest.mark.parametrize("kind", ["ivf", "fastscan"])
def test_queries_unlike_the_archive_find_their_neighbours(
    homes: dict[str, Path], kind: str
) -> None:
    index = load_index(homes[kind])
    strange = np.random.default_rng(8).normal(size=(100, DIM)).astype(np.float32)
    far, rows = nearest_tiles(index, strange, 10, np.ones(COUNT, bool))
    ready = prepare(strange, index.info.normalisation)
    truth = exact(index.vectors, ready, 10, index.info.metric)[1]
    assert (rows[:, :, None] == truth[:, None, :]).any(axis=2).mean() >= 0.97
    assert (np.diff(far, axis=1) >= 0).all()


def test_any_number_may_be_asked(homes: dict[str, Path]) -> None:
    index = load_index(homes["ivf"])
    queries = stored(index, np.array([5, 2000]))
    for k in (1, 300, COUNT + 5):
        far, rows = nearest_tiles(index, queries, k, np.ones(COUNT, bool))
        assert rows.shape == (2, min(k, COUNT))
        assert rows[:, 0].tolist() == [5, 2000]
        assert all(len(set(each)) == len(each) for each in rows.tolist())
        np.testing.assert_allclose(far[:, 0], 0, atol=1e-6)
    with pytest.raises(DataError, match="NaN or infinity"):
        nearest_tiles(index, np.full((1, DIM), np.nan, np.float32), 3, np.ones(COUNT, bool))


@pytest.mark.parametrize("kind", ["ivf", "fastscan"])
def test_recall_is_measured_and_written_down(homes: dict[str, Path], kind: str) -> None:
    info = read_info(homes[kind])
    assert info.kind == kind
    assert info.reason.startswith(f"{kind} was asked for")
    assert info.recall == info.measured["recall"] >= 0.99
    assert info.measured["neighbours"] == 10
    assert {each["kind"] for each in info.candidates} == {"flat", kind}
    assert all(each["qps"] > 0 for each in info.candidates)
    assert verify(homes[kind]) == {"ok": True, "problems": [], "count": COUNT}


def test_auto_measures_and_says_why(
    homes: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learn, "SMALL", 100)
    made = build(homes["tight"], tmp_path / "i")
    found = {each["kind"]: each for each in made["candidates"]}
    assert set(found) == {"flat", "fastscan", "ivf"}
    able = [each["qps"] for each in found.values() if not each["note"]]
    assert found[made["kind"]]["qps"] >= (1 - choose.NOISE) * max(able) - 0.1
    assert made["kind"] in made["reason"]
    loose = build(homes["loose"], tmp_path / "l")
    left = next(each for each in loose["candidates"] if each["kind"] == "ivf")
    assert loose["kind"] != "ivf" or left["recall"] >= 0.99


def test_choice_takes_the_simpler_kind_within_the_noise() -> None:
    def of_speed(flat: float, scan: float, ivf: float, note: str = "") -> str:
        able = [choose.Candidate("flat", 1, flat), choose.Candidate("fastscan", 1, scan)]
        return choose.pick([*able, choose.Candidate("ivf", 0.995, ivf, note=note)], 0.99)[0].kind

    assert of_speed(100, 95, 90) == "flat"
    assert of_speed(100, 200, 215) == "fastscan"
    assert of_speed(100, 200, 300) == "ivf"
    assert of_speed(100, 200, 300, "it finds 0.5") == "fastscan"


def test_small_and_exact_ones_are_flat(homes: dict[str, Path], tmp_path: Path) -> None:
    small = build(homes["tight"], tmp_path / "i")
    assert (small["kind"], small["recall"]) == ("flat", 1.0)
    assert "3000 vectors are fewer than 10000" in small["reason"]
    tiny = embed(tmp_path / "e", *cloud(1, 500))
    with pytest.raises(UsageError, match="at least 1000 vectors, there are 500; use --kind flat"):
        build(tiny, tmp_path / "t", "cosine", of("ivf"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["e", "i"]
    one = embed(tmp_path / "one", *cloud(1, 1), files=1)
    assert build(one, tmp_path / "o")["count"] == 1
    assert verify(tmp_path / "o")["ok"]


def test_parts_in_any_order_make_the_same_index(homes: dict[str, Path], tmp_path: Path) -> None:
    out, settings = tmp_path / "i", of("ivf")
    for part in ("2/3", "3/3"):
        left = build(homes["tight"], out, "cosine", settings, part)
        assert "1/3" in left["parts_left"]
        assert not out.exists()
    with pytest.raises(UsageError, match="parts 1/3 are missing"):
        merge(homes["tight"], out, "cosine", settings)
    assert build(homes["tight"], out, "cosine", settings, "1/3")["kind"] == "ivf"
    assert merge(homes["tight"], out, "cosine", settings)["skipped"]
    whole, parts = load_index(homes["ivf"]), load_index(out)
    assert parts.info.files["vectors.npy"] == whole.info.files["vectors.npy"]
    queries = prepare(cloud(CLUSTERED, 50, seed=3)[0], "l2")
    every = Effort(whole.faiss.nlist, 20)
    one, other = (find(each.faiss, each.vectors, queries, 10, "cosine", every)
                  for each in (whole, parts))  # fmt: skip
    np.testing.assert_array_equal(one.rows, other.rows)
    assert parts.info.recall >= 0.99
    assert sorted(path.name for path in tmp_path.iterdir()) == ["i"]


def test_merge_publishes_what_a_killed_task_left(
    homes: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "i"
    build(homes["tight"], out, "cosine", of("flat"), "1/2")
    with monkeypatch.context() as patch:
        patch.setattr("sunpipe.index.build.finish", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            build(homes["tight"], out, "cosine", of("flat"), "2/2")
    assert not out.exists()
    assert merge(homes["tight"], out, "cosine", of("flat"))["kind"] == "flat"
    assert verify(out)["ok"]


def test_growing(homes: dict[str, Path], tmp_path: Path) -> None:
    vectors, group = cloud(CLUSTERED)
    half = embed(tmp_path / "half", vectors[:2400], group[:2400])
    out = tmp_path / "i"
    build(half, out, "cosine", of("ivf"))
    more = grow(out, homes["tight"])  # holds the first 2400 again
    assert (more["added"], more["known"], more["learned_anew"]) == (600, 2400, "")
    assert (more["trained"], more["count"], more["kind"]) == (2400, 3000, "ivf")
    assert more["recall"] >= 0.99
    assert [each["rows"] for each in more["sources"]] == [2400, 600]
    index = load_index(out)
    np.testing.assert_allclose(index.vectors, prepare(vectors, "l2"), atol=0)
    assert index.table["record"].to_pylist() == [f"r{row}" for row in range(3000)]
    assert verify(out)["ok"]
    again = grow(out, homes["tight"])
    assert (again["added"], again["skipped"]) == (0, True)
    assert build(homes["tight"], out, "cosine", of("ivf"))["skipped"]  # it holds that embedding
    large = embed(tmp_path / "large", *cloud(CLUSTERED, 1500, seed=7), first=10_000)
    anew = grow(out, large)
    assert "more than 1.5 times the 2400" in anew["learned_anew"]
    assert (anew["trained"], anew["count"]) == (4500, 4500)
    assert verify(out)["ok"]


def test_strangers_are_not_added(homes: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "i"
    vectors, group = cloud(1, 40)
    build(embed(tmp_path / "e", vectors, group), out)
    before = (out / "index.json").read_bytes()
    for match, kind in (
        ("encoder eeeeeeeeeeee, .* encoder aaaaaaaaaaaa", {"encoder": "a" * 64}),
        ("cut otherwise .* pixel_cm", {"pixel": 1e8}),
    ):
        other = embed(tmp_path / match[:3], vectors, group, first=100, **kind)
        with pytest.raises(DataError, match=match):
            grow(out, other)
    wide = embed(tmp_path / "wide", np.ones((4, DIM + 1), np.float32), group[:4], first=100)
    with pytest.raises(DataError, match=f"vectors of {DIM} numbers"):
        grow(out, wide)
    bad = embed(tmp_path / "bad", np.zeros((4, DIM), np.float32), group[:4], 1, first=100)
    with pytest.raises(DataError, match=r"4 zero vectors \(first: row 0\): they have no direction"):
        grow(out, bad)
    assert (out / "index.json").read_bytes() == before
    good = grow(out, embed(tmp_path / "good", vectors, group, first=100))
    assert (good["count"], good["kind"]) == (80, "flat")
    assert verify(out)["ok"]


def test_vectors_that_cannot_be_used(tmp_path: Path) -> None:
    vectors, group = cloud(1, 40)
    vectors[21, 3] = np.nan
    with pytest.raises(DataError, match=r"embedding-00002.npy .* row 1 has NaN or infinity"):
        build(embed(tmp_path / "nan", vectors, group), tmp_path / "i")
    empty = embed(tmp_path / "empty", vectors[:0], group[:0], files=1)
    with pytest.raises(DataError, match="holds no vectors"):
        build(empty, tmp_path / "i")
    zero = embed(tmp_path / "zero", np.zeros((8, DIM), np.float32), group[:8])
    assert build(zero, tmp_path / "z", "euclidean")["count"] == 8
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "nan", "z", "zero"]


def test_full_disk_leaves_nothing(
    homes: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    for name in ("sunpipe.index.publish.pq.write_table", "sunpipe.index.construct.fsync_file"):
        with monkeypatch.context() as patch:
            patch.setattr(name, full)
            with pytest.raises(OSError, match="No space"):
                build(homes["tight"], tmp_path / "i")
        assert list(tmp_path.iterdir()) == []


def test_damage_is_refused_whatever_the_kind(homes: dict[str, Path], tmp_path: Path) -> None:
    import shutil

    folder = tmp_path / "i"
    shutil.copytree(homes["ivf"], folder)
    random = np.random.default_rng(0)
    for name in ("vectors.faiss", "vectors.npy", "metadata.parquet"):
        whole = (folder / name).read_bytes()
        for _ in range(10):
            bad = bytearray(whole)
            bad[int(random.integers(len(whole)))] ^= 1 << int(random.integers(8))
            (folder / name).write_bytes(bytes(bad))
            with pytest.raises(DataError, match=f"{name} was altered"):
                load_index(folder)
        (folder / name).write_bytes(whole)
    info = json.loads((folder / "index.json").read_text())
    for change, match in (
        ({"count": COUNT - 1}, "index.json says"), ({"kind": "hnsw"}, "kind 'hnsw'"),
        ({"schema": 1}, "run sunpipe index build again"),
    ):  # fmt: skip
        (folder / "index.json").write_text(json.dumps({**info, **change}))
        with pytest.raises(DataError, match=match):
            load_index(folder)


def test_digests_are_remembered_only_for_the_same_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(digests, "LARGE", 4)
    reads: list[Path] = []
    real = digests.sha256

    def counted(path: Path) -> str:
        reads.append(path)
        return real(path)

    monkeypatch.setattr(digests, "sha256", counted)
    path = tmp_path / "x"
    path.write_bytes(b"abcdefgh")
    for _ in range(2):  # too young to be remembered
        digests.known_sha256(path)
    assert len(reads) == 2
    monkeypatch.setattr(digests, "SETTLED_S", -1.0)
    first = digests.known_sha256(path)
    assert digests.known_sha256(path) == first
    assert len(reads) == 3
    stat = path.stat()
    with open(path, "r+b") as handle:
        handle.write(b"abcdefgX"[:8])
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # as if nothing had happened
    assert digests.known_sha256(path) == real(path) != first
    assert len(reads) == 4


def test_memory_bounds_the_choice() -> None:
    assert "exceed" in choose.too_large("flat", 1_000_000, 512, 1.0)
    assert choose.too_large("fastscan", 1_000_000, 512, 1.0) == ""
    kinds, why = learn.kinds_to_try(replace(IndexSettings(), recall=1.0), 50_000, 512)
    assert (kinds, "which only exact search promises" in why) == ([], True)
    rows = learn.sample_rows(100_000, 512, 32.0)
    assert len(rows) <= learn.SAMPLES[1]
    assert len(learn.sample_rows(100_000, 512, 0.02)) < len(rows)


def test_codes_that_cannot_tell_vectors_apart_are_not_read(
    homes: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sunpipe.index.choose.tune", lambda *_: (None, 0.8))
    made = build(homes["loose"], tmp_path / "i", "cosine", of("ivf"))
    assert "its codes find" in made["reason"]
    assert "every row is compared" in made["reason"]
    index = load_index(tmp_path / "i")
    queries = cloud(DIFFUSE, 20, seed=9)[0]
    for allowed in (np.ones(COUNT, bool), np.arange(COUNT) % 2 == 0):
        _, rows = nearest_tiles(index, queries, 10, allowed)
        truth = exact(index.vectors, prepare(queries, "l2"), 10, "cosine", np.flatnonzero(allowed))
        np.testing.assert_array_equal(rows, truth[1])
