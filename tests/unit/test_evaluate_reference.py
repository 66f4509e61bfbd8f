"""Reference and comparison on a dataset on disk: what is refused, gathered, ordered."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from sunpipe.errors import DataError, UsageError
from sunpipe.evaluate import METRICS, FeatureBlock, Reference, compare, metric
from sunpipe.evaluate.lens import Lens, common_view, spread_rows
from sunpipe.evaluate.reference import check_metrics, read_block
from sunpipe.shards.reader import ShardReader
from sunpipe.train_settings import MetricSettings
from tests.unit.shards_fake import write_dataset

SETTINGS = MetricSettings(count=80, batch=32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("shards") / "fake"
    write_dataset(path, count=130, side=16)
    return path


@pytest.fixture(scope="module")
def reader(folder: Path) -> ShardReader:
    return ShardReader(folder, splits=("train",))


@pytest.fixture(scope="module")
def reference(reader: ShardReader) -> Reference:
    return Reference.of(reader, SETTINGS)


def fields(reader: ShardReader) -> torch.Tensor:
    return torch.from_numpy(reader.images(reader.rows))


def test_real_images_are_at_no_distance_from_themselves(reference: Reference) -> None:
    found = compare(reference, reference.block)
    assert found["fd_random"] == pytest.approx(0, abs=1e-6)
    assert found["kid_random"] < 0  # unbiased: the common images count once more across
    for name in set(found) - {"fd_random", "kid_random"}:
        assert found[name] == pytest.approx(0, abs=1e-12), name


def test_names_are_flat_numbers_of_known_metrics(reference: Reference) -> None:
    found = compare(reference, reference.block)
    assert set(found) >= {"fd_random", "kid_random", "spectrum_db", "spectrum_db_k1", "w1_pixels",
                          "w1_usflux", "w1_imbalance"}  # fmt: skip
    for name, value in found.items():
        assert type(value) is float
        assert metric(name) in METRICS
    with pytest.raises(ValueError, match="no metric"):
        metric("fid50k")
    assert metric("spectrum_db_k4").unit == "dB"
    assert metric("spectrum_db_k4").signed


def test_ranks_and_batches_join_to_the_same_distances(
    reader: ShardReader, reference: Reference
) -> None:
    made = fields(reader)[:70] * 1.1
    whole = compare(reference, reference.features(made))
    parts = [reference.features(made[rank::3]) for rank in range(3)]
    joined = compare(reference, FeatureBlock.concat(parts))
    assert joined == pytest.approx(whole, rel=1e-4)
    rows = spread_rows(reader, SETTINGS.count)
    other = read_block(reference.lens, reader, rows[1::2], 32)
    mine = read_block(reference.lens, reader, rows[::2], 32)
    split = Reference.from_block(reference.lens, FeatureBlock.concat([mine, other]))
    assert len(split.block) == 80
    assert compare(split, reference.features(made)) == pytest.approx(whole, rel=1e-4)


def test_it_is_computed_alike_twice(reader: ShardReader, reference: Reference) -> None:
    made = fields(reader)[:64] + 30
    again = Reference.of(reader, SETTINGS)
    assert compare(again, again.features(made)) == compare(reference, reference.features(made))


def test_what_cannot_be_compared_is_refused(reader: ShardReader, reference: Reference) -> None:
    made = fields(reader)
    made[3, 1, 5, 5] = torch.nan
    made[9, 0, 0, 0] = torch.inf
    with pytest.raises(DataError, match="2 of 104 images hold NaN or infinity"):
        reference.features(made)
    with pytest.raises(DataError, match="63 generated images are too few"):
        compare(reference, reference.features(fields(reader)[:63]))
    with pytest.raises(DataError, match="40 real images are too few"):
        Reference.from_block(reference.lens, reference.block.take(slice(40)))
    with pytest.raises(DataError, match="too few"):
        Reference.of(ShardReader(reader.folder, splits=("test",)), SETTINGS)
    with pytest.raises(ValueError, match="fields must be"):
        reference.features(torch.zeros(2, 3, 32, 32))
    lacking = FeatureBlock({"random": reference.block["random"]})
    with pytest.raises(ValueError, match="different features"):
        compare(reference, lacking)
    same = fields(reader)[:1].repeat(64, 1, 1, 1)
    with pytest.raises(DataError, match="all the same"):
        Reference.from_block(reference.lens, reference.features(same))


def test_images_without_finite_features_are_left_out(
    reader: ShardReader, reference: Reference
) -> None:
    made = fields(reader)
    whole = reference.features(made)
    made[3, 1, 5, 5] = torch.nan
    made[9] = torch.inf
    made[11] = 1e38  # extreme, and a number
    block, left_out = reference.lens.finite_features(made)
    assert left_out == 2
    kept = np.delete(np.arange(len(made)), [3, 9])
    np.testing.assert_allclose(block["power"][:5], whole["power"][kept][:5], rtol=1e-6)
    assert np.isfinite(list(compare(reference, block).values())).all()
    nothing, all_of_them = reference.lens.finite_features(made[9:10])
    assert (len(nothing), all_of_them) == (0, 1)
    assert len(FeatureBlock.concat([nothing, block])) == 102


def test_a_share_of_no_images_joins_the_others(reader: ShardReader, reference: Reference) -> None:
    rows = spread_rows(reader, 70)
    shares = [read_block(reference.lens, reader, rows[rank::100], 32) for rank in range(100)]
    joined = FeatureBlock.concat(shares)
    assert [len(share) for share in shares[69:71]] == [1, 0]
    assert len(joined) == 70
    whole = compare(reference, read_block(reference.lens, reader, rows, 32))
    assert compare(reference, joined) == pytest.approx(whole, rel=1e-4)
    assert len(reference.features(fields(reader)[:0])) == 0


def test_metrics_that_cannot_be_taken_are_refused_beforehand(reader: ShardReader) -> None:
    few = ShardReader(reader.folder, splits=("test",))
    check_metrics(few, MetricSettings(kimg=0))
    check_metrics(reader, MetricSettings(kimg=1, count=10**6))
    with pytest.raises(UsageError, match=r"need 64 training images; dataset fake has 26"):
        check_metrics(few, MetricSettings(kimg=1))


def test_blocks_of_other_content_do_not_join() -> None:
    with pytest.raises(ValueError, match="different features"):
        FeatureBlock.concat([FeatureBlock({"a": np.zeros((2, 3))}),
                             FeatureBlock({"a": np.zeros((2, 4))})])  # fmt: skip
    with pytest.raises(ValueError, match="numbers of images"):
        FeatureBlock({"a": np.zeros((2, 3)), "b": np.zeros((3, 3))})
    with pytest.raises(ValueError, match="no block"):
        FeatureBlock.concat([])


def test_rows_are_spread_over_the_split(reader: ShardReader) -> None:
    rows = spread_rows(reader, 10)
    assert rows[0] == reader.rows[0]
    assert rows[-1] == reader.rows[-1]
    assert len(set(rows)) == 10
    assert set(rows) <= set(reader.rows)
    np.testing.assert_array_equal(spread_rows(reader, 1000), reader.rows)


def test_other_features_join_the_distances(reader: ShardReader) -> None:
    def brightness(x: torch.Tensor) -> np.ndarray:
        return x.abs().mean(dim=(2, 3)).numpy()

    reference = Reference.of(reader, SETTINGS, vectors={"encoder": brightness})
    near, far = (
        compare(reference, reference.features(fields(reader) * factor)) for factor in (1.02, 1.5)
    )
    assert near["fd_encoder"] < far["fd_encoder"]
    assert near["kid_encoder"] < far["kid_encoder"]


class Light:
    """The reader of a dataset, its channels as intensities."""

    def __init__(self, reader: ShardReader) -> None:
        self.reader, self.rows, self.pixel_cm = reader, reader.rows, reader.pixel_cm
        names = ["aia_171", "aia_193", "aia_211"]
        self.info = replace(reader.info, channels=names, units=["DN/s"] * 3)

    def __len__(self) -> int:
        return len(self.rows)

    def images(self, rows: np.ndarray) -> np.ndarray:
        return np.abs(self.reader.images(rows)) * np.float32([1, 10, 0.1]).reshape(3, 1, 1)


def test_intensities_have_their_own_scale_and_metrics(reader: ShardReader) -> None:
    light = Light(reader)
    view = common_view(light)  # type: ignore[arg-type]
    assert view.zero == (-1.0, -1.0, -1.0)
    scale = view.scale
    assert isinstance(scale, tuple)
    assert scale[1] == pytest.approx(10 * scale[0], rel=0.5)
    reference = Reference.of(light, SETTINGS)  # type: ignore[arg-type]
    assert "flux" not in reference.block
    images = torch.from_numpy(light.images(light.rows))
    images[:, 1] *= 1.5
    found = compare(reference, reference.features(images))
    assert "w1_usflux" not in found
    for label in ("mean", "median", "p99"):
        assert found[f"w1_{label}_aia_193"] > 5 * found[f"w1_{label}_aia_171"]
    assert metric("w1_p99_aia_193").unit == "std"


def test_a_lens_needs_pixels(reader: ShardReader) -> None:
    light = Light(reader)
    light.info = replace(light.info, resolution=4)
    with pytest.raises(DataError, match="4 x 4 pixels"):
        Lens.of(light)  # type: ignore[arg-type]


def test_batches_and_parts_of_them_do_not_matter(
    reader: ShardReader, reference: Reference, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = reader.rows[:20]
    one, many = (read_block(reference.lens, reader, rows, size) for size in (20, 7))
    monkeypatch.setattr("sunpipe.evaluate.lens.PIXELS_AT_ONCE", 3 * 16 * 16)
    parts = read_block(reference.lens, reader, rows, 20)
    for name in one.arrays:
        for other in (many, parts):
            np.testing.assert_allclose(one[name], other[name], rtol=1e-4, atol=1e-5, err_msg=name)
