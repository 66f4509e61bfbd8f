"""Commands that meet at one index, and files that do not belong together."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from sunpipe.errors import DataError, UsageError
from sunpipe.files import sha256
from sunpipe.index import construct, measure
from sunpipe.index import grow as growing
from sunpipe.index.build import build, embedding_plan, merge
from sunpipe.index.build_cli import app
from sunpipe.index.describe import verify
from sunpipe.index.grow import grow
from sunpipe.index.store import load_index, map_vectors, prepare, read_info
from sunpipe.index_settings import IndexSettings
from tests.unit.test_index_codes import embed

DIM = 6
FLAT = IndexSettings(kind="flat")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Timings need no care here."""
    monkeypatch.setattr(measure, "REPEATS", 1)
    monkeypatch.setattr(measure, "SPENT_S", 0.0)


def points(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    found = np.random.default_rng(seed).normal(size=(count, DIM)).astype(np.float32)
    return found, np.arange(count)


def two_parts(home: Path, settings: IndexSettings = FLAT) -> Path:
    """Both parts complete, but the task that should have published is gone."""
    embed(home / "e", *points(40, 1))
    build(home / "e", home / "i", settings=settings, part="1/2")
    plan, _ = embedding_plan(home / "e", home / "i", settings)
    construct.encode(plan, (2, 2), construct.learned(plan)[0])
    return plan.work


def ask(*words: object) -> dict[str, Any]:
    result = CliRunner().invoke(app, [*map(str, words), "--json"])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_two_adds_at_once_keep_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second, third = points(30, 1)[0], points(20, 2)[0], points(10, 3)[0]
    build(embed(tmp_path / "a", first, np.arange(30)), tmp_path / "i")
    embed(tmp_path / "b", second, np.arange(20), first=100)
    embed(tmp_path / "c", third, np.arange(10), first=200)
    real, errors = growing.load_index, []

    def add() -> None:
        try:
            grow(tmp_path / "i", tmp_path / "b")
        except Exception as error:
            errors.append(error)

    other = threading.Thread(target=add)

    def met(folder: Path) -> Any:
        index = real(folder)
        if not other.ident:  # the other begins when this one has loaded the index
            other.start()
            other.join(0.3)
            assert other.is_alive()  # it waits
        return index

    monkeypatch.setattr(growing, "load_index", met)
    grow(tmp_path / "i", tmp_path / "c")
    other.join(20)
    assert not errors
    index = load_index(tmp_path / "i")
    wanted = prepare(np.vstack([first, third, second]), "l2")
    np.testing.assert_array_equal(index.vectors, wanted)
    assert index.table["record"].to_pylist()[30] == "r200"
    assert verify(tmp_path / "i")["ok"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "c", "i"]


def test_a_flat_file_of_other_vectors_is_not_mapped(tmp_path: Path) -> None:
    build(embed(tmp_path / "e", *points(30, 1)), tmp_path / "i")
    assert map_vectors(tmp_path / "i", "flat", 30, DIM).shape == (30, DIM)
    for count, dim in ((29, DIM), (31, DIM), (15, 2 * DIM), (60, DIM // 2)):
        with pytest.raises(DataError, match="does not hold"):
            map_vectors(tmp_path / "i", "flat", count, dim)


def test_pixels_of_the_same_scale_are_alike(tmp_path: Path) -> None:
    build(embed(tmp_path / "e", *points(30, 1)), tmp_path / "i")
    near = embed(tmp_path / "n", *points(5, 2), first=100, pixel=7.3e7 * (1 + 1e-6))
    assert grow(tmp_path / "i", near)["count"] == 35
    far = embed(tmp_path / "f", *points(5, 3), first=200, pixel=7.3e7 * 1.05)
    with pytest.raises(DataError, match=r"cut otherwise .* pixel_cm .* within 2%"):
        grow(tmp_path / "i", far)


def test_other_settings_leave_finished_parts(tmp_path: Path) -> None:
    work = two_parts(tmp_path)
    before = sorted(path.name for path in work.iterdir())
    with pytest.raises(UsageError, match="built with metric cosine, not euclidean"):
        merge(tmp_path / "e", tmp_path / "i", "euclidean", FLAT)
    assert build(tmp_path / "e", tmp_path / "i", "euclidean", FLAT)["metric"] == "euclidean"
    left = build(tmp_path / "e", tmp_path / "i", settings=IndexSettings(recall=0.5), part="1/2")
    assert left["parts_left"] == ["2/2"]
    grow(tmp_path / "i", embed(tmp_path / "more", *points(5, 2), first=100))
    assert sorted(path.name for path in work.iterdir()) == before
    block = IndexSettings(kind="flat", block=7)  # changes nothing of the result
    assert merge(tmp_path / "e", tmp_path / "i", settings=block)["metric"] == "cosine"
    assert verify(tmp_path / "i")["ok"]
    assert not work.exists()


def test_what_a_killed_build_left_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embed(tmp_path / "e", *points(30, 1))
    with monkeypatch.context() as patch:
        patch.setattr("sunpipe.index.build.finish", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            build(tmp_path / "e", tmp_path / "i")
    assert len(list(tmp_path.iterdir())) == 2
    build(tmp_path / "e", tmp_path / "i", "euclidean")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["e", "i"]


def test_vectors_and_metadata_belong_together(tmp_path: Path) -> None:
    build(embed(tmp_path / "e", *points(30, 1)), tmp_path / "i")
    table = pq.read_table(tmp_path / "i" / "metadata.parquet")
    pq.write_table(table.take(list(range(29, -1, -1))), tmp_path / "i" / "metadata.parquet")
    about = json.loads((tmp_path / "i" / "index.json").read_text())
    about["files"]["metadata.parquet"] = sha256(tmp_path / "i" / "metadata.parquet")
    (tmp_path / "i" / "index.json").write_text(json.dumps(about))
    assert "do not belong together" in verify(tmp_path / "i")["problems"][0]
    more = embed(tmp_path / "more", *points(5, 2), first=100)
    with pytest.raises(DataError, match="do not belong together"):
        grow(tmp_path / "i", more)


def test_an_index_of_another_version_is_refused(tmp_path: Path) -> None:
    build(embed(tmp_path / "e", *points(30, 1)), tmp_path / "i")
    path = tmp_path / "i" / "index.json"
    good = json.loads(path.read_text())
    short = [{"first": 0, "rows": 30}]
    for change, match in (({"schema": 2}, "another schema than 3"), ({"costs": {}}, "costs"),
                          ({"kind": "ivf", "files": {**good["files"], "vectors.npy": "0"}},
                           "shape lacks"), ({"sources": short}, "sources")):  # fmt: skip
        path.write_text(json.dumps({**good, **change}))
        with pytest.raises(DataError, match=match):
            read_info(path.parent)


def test_parts_merge_and_add_from_the_command_line(tmp_path: Path) -> None:
    embed(tmp_path / "e", *points(40, 1))
    folders = ("--embeddings", tmp_path / "e", "--out", tmp_path / "i", "--kind", "flat")
    assert ask("build", *folders, "--part", "2/2")["parts_left"] == ["1/2"]
    assert not (tmp_path / "i").exists()
    assert ask("build", *folders, "--part", "1/2")["count"] == 40
    assert ask("merge", *folders)["skipped"]
    more = embed(tmp_path / "more", *points(5, 2), first=100)
    assert ask("add", tmp_path / "i", "--embeddings", more)["added"] == 5
    assert ask("info", tmp_path / "i")["count"] == 45
    assert ask("verify", tmp_path / "i")["ok"]


def test_merge_from_the_command_line(tmp_path: Path) -> None:
    two_parts(tmp_path)
    folders = ("--embeddings", tmp_path / "e", "--out", tmp_path / "i")
    assert ask("merge", *folders, "--kind", "flat")["count"] == 40
    assert read_info(tmp_path / "i").kind == "flat"
