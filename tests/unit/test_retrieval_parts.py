"""Recall of an index, invariance of answers, and datasets that are no vector magnetograms."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist

from sunpipe.errors import DataError
from sunpipe.evaluate import retrieval_measured
from sunpipe.evaluate.retrieval_baselines import pixels
from sunpipe.evaluate.retrieval_invariance import invariance, overlap, top_rows
from sunpipe.evaluate.retrieval_measured import measured, units
from sunpipe.evaluate.retrieval_nearest import askers
from sunpipe.evaluate.retrieval_recall import index_recall
from sunpipe.index import nearest
from sunpipe.index.build import build
from sunpipe.index.grow import grow
from sunpipe.index.store import load_index
from sunpipe.normalize_settings import NormalizeSettings
from sunpipe.physics.measurable import measurable
from tests.unit.index_fake import make
from tests.unit.retrieval_fake import archive


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_recall_is_measured_against_all_vectors(
    tmp_path: Path, metric: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, vectors = make(tmp_path / "e", [30, 30, 40])
    build(tmp_path / "e", tmp_path / "i", metric=metric)
    index = load_index(tmp_path / "i")
    good = index_recall(tmp_path / "e", index, vectors[:20], 10)
    assert (good["recall_10"], good["worst_query"], good["vectors"]) == (1.0, 1.0, 100)
    whole = nearest.nearest_tiles

    def lossy(index: Any, vectors: Any, k: int, allowed: Any) -> Any:
        far, rows = whole(index, vectors, k + 2, allowed)  # loses the two nearest,
        return 0 * far[:, 2:], rows[:, 2:]  # and lies about distances

    monkeypatch.setattr(nearest, "nearest_tiles", lossy)
    bad = index_recall(tmp_path / "e", index, vectors[:20], 10)
    assert bad["recall_10"] == pytest.approx(0.8, abs=1e-9)
    make(tmp_path / "other", [30, 30, 40], seed=1)
    assert "left_out" in index_recall(tmp_path / "other", index, vectors[:20], 10)


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_recall_of_an_index_that_has_grown(
    tmp_path: Path, metric: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, first = make(tmp_path / "first", [30, 30])
    _, second = make(tmp_path / "second", [30, 30, 20, 50], seed=1)  # 70 of the 130 are new
    build(tmp_path / "first", tmp_path / "i", metric=metric)
    grow(tmp_path / "i", tmp_path / "second")
    index = load_index(tmp_path / "i")
    held = np.concatenate([first, second[60:]])
    for folder, asking in (("first", first), ("second", second[60:])):
        row = index_recall(tmp_path / folder, index, asking[:20], 10)
        assert (row["recall_10"], row["vectors"], row["embeddings"]) == (1.0, 130, 2)
    far = cdist(first[:20], held, metric)
    mine, whole = np.argsort(far, axis=1)[:, :10], nearest.nearest_tiles

    def only_first(index: Any, vectors: Any, k: int, allowed: Any) -> Any:
        return whole(index, vectors, k, allowed & (np.arange(len(allowed)) < len(first)))

    # An index that answers from its first embedding only misses what is in the second.
    monkeypatch.setattr(nearest, "nearest_tiles", only_first)
    row = index_recall(tmp_path / "first", index, first[:20], 10)
    assert row["recall_10"] == pytest.approx((mine < len(first)).mean(), abs=1e-9)
    assert row["recall_10"] < 0.7


def test_the_best_tiles_of_other_harps() -> None:
    source = archive(6, dim=3)
    asked = askers(source, np.arange(0, len(source), 7))
    query = source.vectors[::7]
    rows = top_rows(source, asked, query, "euclidean", 5)
    far = np.linalg.norm(query[:, None] - source.vectors[None], axis=2)
    far[asked.group[:, None] == source.group[None]] = np.inf
    np.testing.assert_array_equal(rows, np.argsort(far, axis=1)[:, :5])
    few = top_rows(archive(2, tiles=1, hours=(0.0,)), askers(source, np.array([0])),
                   source.vectors[:1, :1].repeat(6, 1), "euclidean", 4)  # fmt: skip
    assert (few[0] >= 0).sum() == 1
    np.testing.assert_array_equal(overlap(rows, rows), 1)
    half = np.where(np.arange(5) < 2, rows, 10**6)
    np.testing.assert_allclose(overlap(rows, half), 0.4)
    np.testing.assert_array_equal(overlap(rows, rows[:, ::-1]), 1)


def test_an_invariant_encoder_keeps_its_answers_and_pixels_do_not() -> None:
    deal = np.random.default_rng(0)
    fields = (300 * deal.normal(size=(72, 3, 8, 8))).astype(np.float32)
    view = NormalizeSettings("asinh", 100.0, 3000.0, 0.0)

    def total(x: Any) -> np.ndarray:
        squares = np.asarray(x, np.float32) ** 2
        horizontal = squares[:, 1:].sum(axis=1)
        return np.stack([squares[:, 0].mean((1, 2)), horizontal.mean((1, 2)),
                         (squares[:, 0] * horizontal).mean((1, 2)) ** 0.5], axis=1)  # fmt: skip

    card = SimpleNamespace(channels=["Br", "Bt", "Bp"], units=["Gauss"] * 3,
                           symmetries=["rotate90"])  # fmt: skip
    for name, vectors in (("sums", total), ("pixels", lambda x: pixels(x, view))):
        source = archive(6, vectors=np.asarray(vectors(torch.from_numpy(fields))))
        chosen = np.arange(0, 72, 3)
        found = invariance(
            source, askers(source, chosen), lambda rows, c=chosen: fields[c[rows]],
            SimpleNamespace(card=card, vectors=vectors), "euclidean", 5, 100, 0,  # type: ignore[arg-type]
        )  # fmt: skip
        assert [row["trained"] for row in found.values()] == [False, False, True, False]
        for row in found.values():
            if name == "sums":
                assert row["moved"] < 1e-5
                assert row["top_1"]["value"] == row["top_5"]["value"] == 1
            else:
                assert row["moved"] > 0.5
                assert row["top_1"]["value"] < 0.6


@pytest.mark.parametrize(
    ("channels", "some"), [(["magnetogram"], "USFLUXL"), (["193", "211"], "LOGI211")]
)
def test_other_channels_are_measured_by_what_they_give(
    tmp_path: Path, channels: list[str], some: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retrieval_measured, "dataset_id", lambda info: info.name)
    deal = np.random.default_rng(0)
    fields = (400 * deal.random((5, len(channels), 32, 32)) + 50).astype(np.float32)
    reader: Any = SimpleNamespace(
        images=lambda rows: fields[rows], pixel_cm=np.full(5, 1e8), folder=tmp_path,
        info=SimpleNamespace(channels=channels, resolution=32, name="other"),
    )  # fmt: skip
    names = list(measurable(channels))
    assert some in names
    found = measured(tmp_path / "out", reader, np.array([4, 0, 1]), names, lambda: None)
    assert found.shape == (3, len(names))
    assert np.isfinite(found[:, names.index(some)]).all()
    assert units([some, f"|{some}|"])[f"|{some}|"] == units([some])[some]
    fields[1] = np.nan
    with pytest.raises(DataError, match="not finite"):
        measured(tmp_path / "bad", reader, np.array([4, 0, 1]), names, lambda: None)


def test_intensities_have_no_polarity_to_reverse() -> None:
    deal = np.random.default_rng(0)
    fields = deal.random((72, 1, 8, 8)).astype(np.float32)
    source = archive(6, vectors=fields.mean((1, 2, 3))[:, None])
    card = SimpleNamespace(channels=["193"], units=["DN/s"], symmetries=[])
    encoder: Any = SimpleNamespace(
        card=card, vectors=lambda x: np.asarray(x).mean((1, 2, 3))[:, None]
    )
    found = invariance(source, askers(source, np.arange(72)), lambda rows: fields[rows], encoder,
                       "euclidean", 3, 100, 0)  # fmt: skip
    assert set(found) == {"flip_horizontal", "flip_vertical", "rotate90"}
