"""``sunpipe evaluate retrieval`` on the bundled records, end to end."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from scipy.stats import pearsonr, spearmanr

from sunpipe.config import load_config
from sunpipe.embed.embed import embed
from sunpipe.embed.encoder import FieldEncoder
from sunpipe.embed.store import read_embedding, read_metadata, read_vectors
from sunpipe.errors import DataError, Stopped
from sunpipe.evaluate import retrieval_measured
from sunpipe.evaluate.cli import evaluate as app
from sunpipe.evaluate.retrieval import evaluate, plan, queries_of
from sunpipe.evaluate.retrieval_archive import read_archive
from sunpipe.evaluate.retrieval_generated import fields_of, trained_generator
from sunpipe.evaluate.retrieval_table import render
from sunpipe.index.build import build
from sunpipe.latent.generator import Generator
from sunpipe.paths import Layout
from sunpipe.physics.images import measure_images
from sunpipe.settings import Config
from sunpipe.shards.reader import ShardReader
from sunpipe.train.ssl import train_ssl
from tests.conftest import REPO

# HARP 6060 was seen twice, 12 minutes apart.
FEW = ("retrieval.queries=40", "retrieval.bootstrap=100", "retrieval.exclude_hours=0.1",
       "retrieval.k=5")  # fmt: skip
CHANNELS = ["Br", "Bt", "Bp"]
MEASURED = ["USFLUX", "MEANGAM", "TOTUSJH", "NETFLUX", "AREA_MM2"]


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


@dataclass(frozen=True)
class Plain:
    """The embedded tiles, read and measured without the scorecard."""

    vectors: np.ndarray
    harp: np.ndarray
    minutes: np.ndarray
    images: np.ndarray
    values: dict[str, np.ndarray]
    asked: np.ndarray


@pytest.fixture(scope="module")
def tiles(built: Path) -> Plain:
    folder, reader = built / "embeddings/tiny", ShardReader(built / "shards/tiny")
    info = read_embedding(folder)
    table = read_metadata(folder, info)
    rows = np.array(table["row"])
    images = reader.images(rows)
    values = measured_here(images, reader.pixel_cm[rows])
    _, chosen = queries_of(source := read_archive(folder, 50_000), "all", 40)
    times = [np.datetime64(time.replace(".", "-")[:10] + "T" + time[11:19])
             for time in table["t_rec"].to_pylist()]  # fmt: skip
    minutes = (np.array(times) - times[0]) / np.timedelta64(1, "m")
    return Plain(np.concatenate(list(read_vectors(folder, info))), np.array(table["harpnum"]),
                 minutes, images, values, source.places[chosen])  # fmt: skip


def measured_here(images: np.ndarray, pixel_cm: np.ndarray | float) -> dict[str, np.ndarray]:
    pixel = torch.as_tensor(pixel_cm, dtype=torch.float64)
    found = measure_images(torch.from_numpy(images), CHANNELS, pixel, MEASURED).double().numpy()
    return dict(zip(MEASURED, found.T, strict=True))


def cosine(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    """In float32, as distances are compared."""
    a, b = (each / np.linalg.norm(each.astype(float), axis=1, keepdims=True) for each in (one, two))
    return np.maximum(1 - a.astype(np.float32) @ b.astype(np.float32).T, 0)


def network(images: np.ndarray, side: int = 32) -> np.ndarray:
    """Rows in the range of configs/tiny.toml, averaged down."""
    size = images.shape[-1] // side
    x = np.arcsinh(images / 100) / np.arcsinh(30)
    x = x.reshape(*x.shape[:2], side, size, side, size).mean((3, 5)) if size > 1 else x
    return np.asarray(x.reshape(len(x), -1), np.float64)


def test_the_scorecard_is_what_comparing_all_with_all_gives(
    scored: dict[str, Any], tiles: Plain
) -> None:
    ask = tiles.asked
    assert scored["queries"] == {"split": "all", "tiles": 40, "groups": 3}
    assert scored["archive"] == {"tiles": len(tiles.harp), "of": len(tiles.harp), "groups": 3,
                                 "records": 4}  # fmt: skip
    pixel_rows = network(tiles.images)
    spaces = {"embedding": cosine(tiles.vectors[ask], tiles.vectors),
              "pixels": cdist(pixel_rows[ask], pixel_rows)}  # fmt: skip
    same = tiles.harp[ask][:, None] == tiles.harp[None]
    apart = np.abs(tiles.minutes[ask][:, None] - tiles.minutes[None])
    now = same & (apart < 6)
    for name, far in spaces.items():
        for protocol, closed in (("other_harp", same), ("other_time", now)):
            match = np.where(closed, np.inf, far).argmin(axis=1)
            for key, values in tiles.values.items():
                row = scored["physics"][protocol][name][key]
                pairs = np.stack([values[ask], values[match]])
                pairs = pairs[:, np.isfinite(pairs).all(axis=0)]
                assert row["n"] == pairs.shape[1] > 10, (name, protocol, key)
                assert row["pearson"]["value"] == pytest.approx(pearsonr(*pairs)[0], abs=1e-6)
                assert row["spearman"]["value"] == pytest.approx(spearmanr(*pairs)[0], abs=1e-6)
        # Rank of the own HARP at another time: only HARP 6060 has one.
        best = np.stack([np.where((tiles.harp == harp) & ~now, far, np.inf).min(axis=1)
                         for harp in np.unique(tiles.harp)], axis=1)  # fmt: skip
        own = best[np.arange(len(ask)), np.searchsorted(np.unique(tiles.harp), tiles.harp[ask])]
        rank = 1 + (best < own[:, None]).sum(axis=1)[np.isfinite(own)]
        row = scored["same_region"][name]
        assert row["recall_1"]["n"] == len(rank) == (tiles.harp[ask] == 6060).sum()
        assert row["recall_1"]["value"] == pytest.approx((rank == 1).mean())
        assert row["mean_rank"]["value"] == pytest.approx(rank.mean())
        assert row["recall_1"]["clusters"] == 1
        assert row["recall_1"]["low"] is None  # one HARP says nothing about others


def test_generated_queries_get_the_nearest_of_all(
    scored: dict[str, Any], tiles: Plain, built: Path
) -> None:
    cfg, layout = config(), Layout(built)
    run = trained_generator(layout, cfg)
    assert run is not None
    generator = Generator.load(run)
    images = fields_of(generator, cfg, 0, 40)
    card = read_embedding(built / "embeddings/tiny").encoder
    encoder = FieldEncoder.load(layout.runs / card["run"], card["orbit"], card["digest"])
    match = cosine(encoder.vectors(images), tiles.vectors).argmin(axis=1)
    mine = measured_here(images, generator.pixel_cm)
    rows = scored["generated"]["physics"]["embedding"]
    for key, values in tiles.values.items():
        pairs = np.stack([mine[key], values[match]])
        pairs = pairs[:, np.isfinite(pairs).all(axis=0)]
        assert rows[key]["n"] == pairs.shape[1]
        if len(np.unique(pairs[1])) > 1:
            assert rows[key]["pearson"]["value"] == pytest.approx(pearsonr(*pairs)[0], abs=1e-5)
        assert abs(rows[key]["pearson_shuffled"] or 0) < 0.2


def test_what_the_scorecard_knows_of_the_bundled_records(
    scored: dict[str, Any], built: Path
) -> None:
    rows = scored["same_region"]
    assert set(rows) == {"embedding", "pixels", "keywords", "magnitudes", "chance"}
    # Only 6060 has another time, and its pixels are nearly the same 12 minutes later.
    assert rows["pixels"]["recall_1"]["value"] > 0.9
    assert rows["keywords"]["recall_1"]["value"] > 0.6
    assert rows["chance"]["recall_1"]["value"] < 0.6
    assert rows["embedding"]["recall_5"]["value"] == 1  # of three HARPs
    # Tilt changes with a quarter turn, the sign of the net flux with polarity.
    assert "NETFLUX" in scored["keywords_used"]
    assert "|NETFLUX|" in scored["magnitudes_used"]
    assert not {"NETFLUX", "TILT", "|TILT|"} & set(scored["magnitudes_used"])
    for name in ("MEANGAM", "TOTUSJH", "POLSEP", "|NETFLUX|"):
        assert name in scored["units"]
    # The index is flat: it compares every vector.
    assert scored["index"] == {"kind": "flat", "recall_5": 1.0, "worst_query": 1.0, "queries": 40,
                               "vectors": scored["archive"]["tiles"], "embeddings": 1}  # fmt: skip
    for row in scored["invariance"]["symmetries"].values():
        assert row["trained"]
        assert row["moved"] < 1e-3  # the orbit: the same vector to rounding
        assert row["top_1"]["value"] > 0.95
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
    # The pictures of a copied data root are still those of the first one.
    again = evaluate(config())
    assert "measured before" in capsys.readouterr().err
    assert again["physics"] == scored["physics"]
    path = inside / "evaluations/tiny/retrieval.json"
    gone = inside / "evaluations/tiny/gone.png"
    path.write_text(json.dumps({**json.loads(path.read_text()), "picture": str(gone)}))
    fresh = evaluate(config())
    assert "measured before" not in capsys.readouterr().err
    assert Path(fresh["picture"]).is_file()
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
    with pytest.raises(DataError, match="has pixels of 2915"):
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
