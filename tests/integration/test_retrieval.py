"""``sunpipe evaluate retrieval`` on the bundled records, end to end."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sunpipe.config import load_config
from sunpipe.embed.embed import embed
from sunpipe.errors import DataError, Stopped
from sunpipe.evaluate import retrieval_measured
from sunpipe.evaluate.cli import evaluate as app
from sunpipe.evaluate.retrieval import evaluate, plan
from sunpipe.evaluate.retrieval_table import render
from sunpipe.index.build import build
from sunpipe.paths import Layout
from sunpipe.settings import Config
from sunpipe.shards.reader import ShardReader
from sunpipe.train.ssl import train_ssl
from tests.conftest import REPO

# HARP 6060 was seen twice, 12 minutes apart.
FEW = ("retrieval.queries=40", "retrieval.bootstrap=100", "retrieval.exclude_hours=0.1",
       "retrieval.k=5")  # fmt: skip


def config(*overrides: str) -> Config:
    return load_config(REPO / "configs/tiny.toml", (*FEW, *overrides))


@pytest.fixture(scope="module")
def built(tiny_run_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A data root with generator, encoder, embeddings and index, scored once."""
    root = tmp_path_factory.mktemp("scored") / "root"
    shutil.copytree(tiny_run_root, root)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SUNPIPE_ROOT", str(root))
        train_ssl(config())
        embed(config())
        build(root / "embeddings/tiny", root / "index/tiny")
        evaluate(config())
        yield root


@pytest.fixture
def inside(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A writable copy of `built`, as the data root."""
    root = tmp_path / "root"
    shutil.copytree(built, root)
    monkeypatch.setenv("SUNPIPE_ROOT", str(root))
    return root


@pytest.fixture
def scored(built: Path) -> dict[str, Any]:
    return json.loads((built / "evaluations/tiny/retrieval.json").read_text())


def test_the_scorecard_of_the_bundled_records(scored: dict[str, Any], built: Path) -> None:
    assert scored["queries"] == {"split": "all", "tiles": 40, "groups": 3}
    assert scored["archive"]["groups"] == 3
    assert scored["archive"]["records"] == 4
    # Only 6060 has another time, and its pixels are nearly the same 12 minutes later.
    rows = scored["same_region"]
    assert set(rows) == {"embedding", "pixels", "keywords", "chance"}
    assert rows["pixels"]["recall_1"]["value"] > 0.9
    assert rows["keywords"]["recall_1"]["value"] > 0.6
    assert rows["chance"]["recall_1"]["value"] < 0.6
    assert rows["embedding"]["recall_1"]["clusters"] == 1
    assert rows["embedding"]["recall_5"]["value"] == 1  # of three HARPs
    assert rows["embedding"]["recall_1"]["low"] is None  # one HARP says nothing about others
    physics = scored["physics"]["other_harp"]
    for name in ("USFLUX", "MEANGAM", "TOTUSJH", "NETFLUX", "POLSEP", "AREA_MM2", "|NETFLUX|"):
        row = physics["keywords"][name]
        assert row["clusters"] <= 3
        assert name in scored["units"]
        assert -1 <= physics["embedding"][name]["spearman"]["value"] <= 1
    # With its own HARP 12 minutes later in reach, 6060 has other matches.
    assert scored["physics"]["other_time"]["pixels"] != physics["pixels"]
    assert scored["index"]["recall_5"] == 1
    for row in scored["invariance"]["symmetries"].values():
        assert row["trained"]
        assert row["moved"] < 1e-3  # the orbit: the same vector to rounding
        assert row["top_1"]["value"] > 0.95
    made = scored["generated"]["physics"]["embedding"]["USFLUX"]
    assert made["n"] == 40
    assert abs(made["pearson_shuffled"]) < 0.2
    assert scored["memorisation"] == {"left_out": "fewer than 3 training HARPs"}
    assert Path(scored["picture"]).name == "retrieval.png"
    assert (built / "evaluations/tiny/retrieval.png").stat().st_size > 10_000


def test_the_table_says_what_was_not_there(scored: dict[str, Any]) -> None:
    text = render(scored)
    assert "The same HARP again, 0.1 h away or more, among 3" in text
    assert "fewer than 3 training HARPs" in text
    assert "nan" not in text.lower()
    assert max(map(len, text.splitlines())) < 120
    bare = {**scored, "index": {"left_out": "none; run sunpipe index build"},
            "generated": {"left_out": "no trained generator of this experiment"}}  # fmt: skip
    assert "Index: none; run sunpipe index build" in render(bare)
    assert "Generated queries: no trained generator" in render(bare)


def test_asked_again_it_answers_and_made_again_it_is_the_same(
    inside: Path, scored: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    again = evaluate(config())
    assert "measured before" in capsys.readouterr().err
    assert again["physics"] == scored["physics"]
    (inside / "evaluations/tiny/retrieval.json").unlink()
    fresh = evaluate(config())
    for key in ("same_region", "physics", "generated", "invariance", "index"):
        assert fresh[key] == scored[key], key


def test_a_stop_costs_no_more_than_a_slab(
    inside: Path, scored: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = inside / "evaluations/tiny"
    shutil.rmtree(folder)
    monkeypatch.setattr(retrieval_measured, "SLAB", 32)
    reader = ShardReader(inside / "shards/tiny")
    rows, names, calls = reader.rows[:80], ["USFLUX", "MEANGAM"], [0]

    def stop() -> None:
        calls[0] += 1
        if calls[0] == 3:
            raise Stopped("asked to")

    with pytest.raises(Stopped):
        retrieval_measured.measured(folder, reader, rows, names, stop)
    slabs = sorted(folder.rglob("*.npy"))
    assert [path.name for path in slabs] == ["00000.npy", "00001.npy"]
    slabs[0].write_bytes(b"torn")
    calls[0] = 10
    found = retrieval_measured.measured(folder, reader, rows, names, stop)
    assert calls[0] == 12  # the torn slab and the third
    whole = retrieval_measured.measured(inside / "other", reader, rows, names, lambda: None)
    np.testing.assert_array_equal(found, whole)
    # Other quantities are another folder, and the old one goes.
    retrieval_measured.measured(folder, reader, rows, ["USFLUX"], lambda: None)
    assert len(list(folder.glob("measured-*"))) == 1


def test_parts_that_are_not_there_are_said(
    inside: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(inside / "index")
    shutil.rmtree(inside / "runs/00000-tiny")
    assert plan(config())["generator"] is None
    app(["retrieval", "-c", str(REPO / "configs/tiny.toml"), "--json",
         *(word for key in FEW for word in ("--set", key))], standalone_mode=False)  # fmt: skip
    found = json.loads(capsys.readouterr().out)
    assert found["index"] == {"left_out": "none; run sunpipe index build"}
    assert found["generated"]["left_out"].startswith("no trained generator")
    assert found["copies_picture"] is None


def test_what_does_not_belong_together_is_refused(
    inside: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = inside / "runs/00000-tiny/config.json"
    about = json.loads(run.read_text())
    about["data"]["pixel_cm"] *= 2
    run.write_text(json.dumps(about))
    with pytest.raises(DataError, match="makes pixels of"):
        evaluate(config("retrieval.k=6"))
    shutil.rmtree(inside / "runs/00000-tiny")
    path = Layout(inside).embeddings("tiny") / "embedding.json"
    info = json.loads(path.read_text())
    path.write_text(json.dumps({**info, "dataset": {**info["dataset"], "id": "other"}}))
    with pytest.raises(DataError, match="changed since it was embedded"):
        evaluate(config())
    path.unlink()
    with pytest.raises(DataError, match="run sunpipe embed first"):
        evaluate(config())
    with pytest.raises(DataError, match="run sunpipe embed first"):
        app(["retrieval", "-c", str(REPO / "configs/tiny.toml"), "--dry-run"],
            standalone_mode=False)  # fmt: skip
    assert capsys.readouterr().out == ""
