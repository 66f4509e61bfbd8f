"""Array parts, the notes beside vectors, and the correlation of queries with matches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import pearsonr, spearmanr

from sunpipe.config import to_dict
from sunpipe.embed.correlation import correlation, pearson
from sunpipe.embed.encoder import EncoderCard, FieldEncoder, encoder_run
from sunpipe.embed.signed_maps import signed_map
from sunpipe.embed.store import part_note, read_embedding, read_metadata, read_vectors, write_part
from sunpipe.errors import DataError, UsageError
from sunpipe.files import write_json
from sunpipe.models.backbone import make_backbone
from sunpipe.normalize_settings import NormalizeSettings
from sunpipe.parts import parse_part, share
from sunpipe.paths import Layout
from sunpipe.physics.channels import apply_symmetry, orbit
from tests.unit.index_fake import make

SYMMETRIES = ("flip_horizontal", "flip_vertical", "rotate90", "reverse_polarity")


def test_part_option() -> None:
    assert parse_part("1/1") == (1, 1)
    assert parse_part(" 3/4 ") == (3, 4)
    for text in ("0/4", "5/4", "1", "1/0", "a/b", "-1/4", "1/4/2", "", "1.5/2", "१/2"):
        with pytest.raises(UsageError, match="write I/N"):
            parse_part(text)


@pytest.mark.parametrize("shards", [0, 1, 3, 7, 20])
@pytest.mark.parametrize("parts", [1, 2, 5, 30])
def test_parts_cover_every_shard_once(shards: int, parts: int) -> None:
    shares = [share(range(shards), (index, parts)) for index in range(1, parts + 1)]
    assert sorted(shard for found in shares for shard in found) == list(range(shards))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_notes_tell_stale_from_fresh(tmp_path: Path) -> None:
    made = {"encoder": "a", "dataset": "b", "splits": ["train"]}
    write_part(tmp_path, 3, np.ones((2, 4), np.float32), made)
    assert part_note(tmp_path, 3, made) is not None
    assert part_note(tmp_path, 2, made) is None
    for key, value in (("encoder", "z"), ("dataset", "z"), ("splits", ["test", "train"])):
        assert part_note(tmp_path, 3, {**made, key: value}) is None
    (tmp_path / "embedding-00003.npy").write_bytes(b"cut")
    assert part_note(tmp_path, 3, made) is None
    write_part(tmp_path, 3, np.ones((2, 4), np.float32), made)
    (tmp_path / "embedding-00003.json").write_text("{")
    assert part_note(tmp_path, 3, made) is None


def test_rows_and_vectors_stay_together(tmp_path: Path) -> None:
    info, vectors = make(tmp_path, [3, 4])
    table = read_metadata(tmp_path, info)
    assert len(table) == info.count == 7
    assert np.array_equal(np.concatenate(list(read_vectors(tmp_path, info))), vectors)
    (tmp_path / "metadata.parquet").write_bytes(b"x")
    with pytest.raises(DataError, match="altered"):
        read_metadata(tmp_path, info)
    (tmp_path / "embedding.json").write_text('{"schema": 1}')
    with pytest.raises(DataError, match="not an embedding's"):
        read_embedding(tmp_path)


def test_correlation_equals_scipy() -> None:
    random = np.random.default_rng(0)
    x = random.lognormal(50, 1, 300)  # fluxes: 1e21 and more
    y = x * random.lognormal(0, 0.5, 300)
    y[5], x[9] = np.nan, np.inf
    found = correlation(x, y, shuffles=200, seed=1)
    both = np.isfinite(x) & np.isfinite(y)
    assert found["n"] == 298
    assert found["pearson"] == pytest.approx(pearsonr(x[both], y[both]).statistic)
    assert found["spearman"] == pytest.approx(spearmanr(x[both], y[both]).statistic)
    assert abs(found["pearson_shuffled"]) < 0.05
    assert found["spearman_shuffled_p95"] < 0.2 < found["spearman"]
    assert correlation(x, y, 200, 1) == found


def test_correlation_of_nothing_is_none_not_nan() -> None:
    nan = np.full(5, np.nan)
    assert correlation(nan, nan, 10, 0)["pearson"] is None
    assert correlation(np.ones(5), np.arange(5.0), 10, 0)["pearson"] is None
    assert correlation(np.arange(2.0), np.arange(2.0), 10, 0)["spearman"] is None
    assert correlation(np.zeros(0), np.zeros(0), 10, 0)["n"] == 0
    assert pearson(np.array([1e300, -1e300]), np.array([1.0, -1.0])) == pytest.approx(1)


@pytest.mark.parametrize(
    ("channels", "names", "count"),
    [
        (("Br", "Bt", "Bp"), SYMMETRIES, 16),
        (("Bp", "magnetogram", "Br", "Bt"), SYMMETRIES, 16),
        (("Br",), SYMMETRIES, 16),
        (("171", "193"), SYMMETRIES[:3], 8),
    ],
)
def test_a_chain_of_symmetries_in_one_step(
    channels: tuple[str, ...], names: tuple[str, ...], count: int
) -> None:
    x = torch.randn(3, len(channels), 6, 6)
    ways = orbit(channels, names)
    assert len(ways) == count
    for way in ways:
        wanted = x
        for name in way:
            wanted = apply_symmetry(wanted, channels, name)
        assert torch.equal(signed_map(channels, way)(x), wanted), way


@pytest.mark.parametrize(
    ("channels", "names", "normalize"),
    [
        (("Br", "Bt", "Bp"), SYMMETRIES, {}),
        (("Br", "Bt", "Bp"), SYMMETRIES, {"scale": (100.0, 30.0, 60.0)}),
        (("magnetogram",), SYMMETRIES, {}),
        (("171", "193"), SYMMETRIES[:3], {"limit": (900.0, 2000.0), "zero": -1.0}),
    ],
)
def test_orbit_vectors_are_the_same_under_every_symmetry(
    channels: tuple[str, ...], names: tuple[str, ...], normalize: dict[str, Any]
) -> None:
    torch.manual_seed(1)
    network = make_backbone("residual", len(channels), 16, 4, 8).eval()
    settings = to_dict(NormalizeSettings(**normalize))
    card = EncoderCard("r", 0, "d", list(channels), [], 16, 8, settings, list(names), True)
    encoder = FieldEncoder(card, network, torch.device("cpu"), orbit(channels, names))
    fields = torch.randn(4, len(channels), 16, 16) * 300
    wanted = encoder.vectors(fields)
    counts = (fields / 0.2).round().clamp(-(2**15), 2**15 - 1).to(torch.int16)
    np.testing.assert_allclose(encoder.stored_vectors(counts.numpy(), 0.2),
                               encoder.vectors(counts * 0.2), rtol=1e-4, atol=1e-5)  # fmt: skip
    assert wanted.std(axis=0).min() > 0
    alone = FieldEncoder(card, network, torch.device("cpu"), [()]).vectors(fields)
    turned = FieldEncoder(card, network, torch.device("cpu"), [()]).vectors(
        apply_symmetry(fields, channels, "rotate90")
    )
    assert abs(turned - alone).max() > 1e-3 * abs(alone).max()  # the network itself is not
    for name in names:
        found = encoder.vectors(apply_symmetry(fields, channels, name))
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5 * abs(wanted).max())


def card_of(**more: Any) -> EncoderCard:
    settings = to_dict(NormalizeSettings())
    return EncoderCard("r", 0, "d", ["Br"], ["Gauss"], 16, 8, settings, [], False, **more)


def test_an_encoder_refuses_other_units_and_another_scale() -> None:
    def encoder(pixel_cm: float | None) -> FieldEncoder:
        return FieldEncoder(card_of(pixel_cm=pixel_cm), torch.nn.Identity(), torch.device("cpu"),
                            [()])  # fmt: skip

    known, old = encoder(7.3e7), encoder(None)
    known.check(["Br"], 16, "it", ["Gauss"], 7.35e7)
    known.check(["Br"], 16, "it")
    old.check(["Br"], 16, "it", ["Gauss"], 1.8e7)
    with pytest.raises(DataError, match="takes Gauss, but it is in Tesla"):
        known.check(["Br"], 16, "it", ["Tesla"], 7.3e7)
    with pytest.raises(DataError, match=r"it has pixels of 182\.5 km, the encoder of r was made"):
        known.check(["Br"], 16, "it", ["Gauss"], 1.825e7)


def test_a_failed_run_is_not_taken_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    layout = Layout(tmp_path)
    run = layout.runs / "00000-a-ssl"
    (run / "checkpoints/kimg-000001.000").mkdir(parents=True)
    (run / "checkpoints/kimg-000001.000/COMPLETE").touch()
    for state, said in (("done", ""), ("running", "00000-a-ssl is running, not done")):
        write_json(run / "status.json", {"state": state})
        assert encoder_run(layout, "a") == run
        assert said in capsys.readouterr().err
    write_json(run / "status.json", {"state": "failed", "reason": "the encoder collapsed"})
    with pytest.raises(DataError, match="00000-a-ssl failed: the encoder collapsed; continue it"):
        encoder_run(layout, "a")
