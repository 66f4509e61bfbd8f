"""From a patch back to its latent, with a tiny StyleGAN2 that is really inverted."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from sunpipe.errors import DataError, UsageError
from sunpipe.files import read_json
from sunpipe.fits import VectorRecord, read_vector
from sunpipe.invert_settings import InvertSettings
from sunpipe.latent import cloud as clouds
from sunpipe.latent import inversion, optimise, target
from sunpipe.latent import inverter as inverters
from sunpipe.latent.generator import Generator
from sunpipe.latent.invert_patch import field_errors, invert_patch, keyword_errors, pose
from sunpipe.latent.misfit import FieldMisfit, KeywordMisfit, charbonnier, measured, quiet_noise
from sunpipe.latent.sample import sample
from sunpipe.latent.space import Space
from sunpipe.latent.start import from_file
from sunpipe.latent.starts import make_starts, nearest
from sunpipe.paths import Layout
from sunpipe.shards.cut import cut, reduce_field
from sunpipe.shards.schema import read_info
from sunpipe.shards.tiles import check_scale, kept_tiles
from tests.unit.inversion_fake import CHANNELS, PIXEL, SIDE, config, shrink, the_cloud, tiny
from tests.unit.shards_fake import write_dataset

RECORD = "hmi.sharp_cea_720s[377][2011.02.15_02:00:00_TAI]"


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    shrink(monkeypatch)


@pytest.fixture
def place(root: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    """A data root with a dataset of two records and a run that loads the tiny generator."""
    (root / "runs" / "00000-tiny").mkdir(parents=True)
    monkeypatch.setattr(Generator, "load", lambda folder, device=None: tiny())
    layout = Layout(root)
    write_dataset(layout.shards("tiny"), count=8, side=SIDE)
    path = layout.shards("tiny") / "records.parquet"
    table = pq.read_table(path)
    extra = {
        "record": [RECORD] * 5 + [RECORD.replace("377", "378")] * 3,
        "tile_y": [0, 0, 0, 16, 16, 0, 0, 0], "tile_x": [0, 16, 32, 0, 16, 0, 16, 32],
        "flux_mx": [1e21, 3e21, 2e21, 9e20, 1e20, 1e21, 2e21, 3e21],
    }  # fmt: skip
    for name, values in extra.items():
        table = table.append_column(name, pa.array(values))
    pq.write_table(table, path)
    return layout


def test_misfit_is_robust_masked_and_falls_at_all_scales() -> None:
    x = torch.tensor([1e-4, 1.0, 1e4], dtype=torch.float64)
    exact = torch.tensor([5e-9, 2**0.5 - 1, 1e4 - 1 + 5e-5], dtype=torch.float64)
    torch.testing.assert_close(charbonnier(x), exact, rtol=1e-8, atol=0)
    fields = 300 * torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    mask = torch.ones(1, 1, 16, 16)
    mask[..., :5, :3] = 0
    misfit = FieldMisfit(fields, mask, quiet_noise(CHANNELS))
    assert misfit(fields).item() == 0
    spoilt = torch.where(mask > 0, fields, 1e6)
    assert misfit(spoilt).item() == 0  # what is not valid does not count
    one, other = fields.clone(), fields.clone()
    one[0, 0, 8, 8] += 1e4
    other[0, 0, 8, 8] += 1e5
    # far above the noise the cost grows with the error, not with its square
    assert 8 < (misfit(other) / misfit(one)).item() < 12
    # an offset of all pixels costs more than the same error of alternating sign
    signs = 1 - 2 * ((torch.arange(16)[:, None] + torch.arange(16)) % 2)
    assert misfit(fields + 50).item() > 1.5 * misfit(fields + 50 * signs).item()
    with pytest.raises(DataError, match="inversion weighs Br, Bt, Bp"):
        quiet_noise(["Br", "193"])


def test_keywords_pull_with_the_gradient_and_leave_out_what_has_none() -> None:
    generator = tiny()
    fields = generator.fields(generator.map(generator.sample_z(3, 1)))
    names = ["USFLUX", "NETFLUX", "POLSEP", "TILT"]
    mask = torch.ones(1, 1, SIDE, SIDE)
    wanted = measured(fields[:1], mask, CHANNELS, PIXEL, names)
    spread = torch.tensor([1e20, 1e20, 1.0, 10.0], dtype=torch.float64)
    keyword = KeywordMisfit(wanted, spread, names, CHANNELS, mask, PIXEL)
    cost, pull = keyword.pull(fields)
    assert cost[0] == 0
    assert cost[1] > 0
    leaf = fields.double().requires_grad_(True)
    keyword.costs(leaf)[1].sum().backward()
    assert leaf.grad is not None
    torch.testing.assert_close(pull[1].double(), leaf.grad[1], rtol=1e-4, atol=1e-8)
    # one polarity only: no separation, no gradient of it, but the flux still pulls
    alone = fields.clone()
    alone[1, 0] = alone[1, 0].abs() + 250
    cost, pull = keyword.pull(alone)
    assert pull.isfinite().all()
    assert pull[1].abs().sum() > 0
    assert cost[1].isfinite()
    # the angle of a line comes round after half a turn
    turned = replace(keyword, wanted=wanted + torch.tensor([0.0, 0, 0, 179.0]))
    assert turned.differences(fields)[0, 3].item() == pytest.approx(0.1, abs=1e-3)


def test_nothing_is_won_by_an_undefined_quantity() -> None:
    names, mask = ["USFLUX"], torch.ones(1, 1, SIDE, SIDE)
    wanted = torch.tensor([[1e21]], dtype=torch.float64)
    keyword = KeywordMisfit(wanted, torch.tensor([1e20]).double(), names, CHANNELS, mask, PIXEL)
    cost, pull = keyword.pull(torch.zeros(1, 3, SIDE, SIDE))
    assert cost.item() == pytest.approx(10**0.5 - 1)
    assert not pull.any()


def test_samples_are_used_when_they_are_of_this_generator(
    place: Layout, capsys: pytest.CaptureFixture[str]
) -> None:
    sample(config())
    cloud = the_cloud(tiny(), place)
    assert cloud.source == "samples.h5"
    assert len(cloud.w) == 96
    assert the_cloud(tiny("b" * 64), place).source == "drawn"
    assert "another generator" in capsys.readouterr().err


def test_ramp() -> None:
    rates = [optimise.ramp(step, 200) for step in range(200)]
    assert rates[0] < 0.1
    assert rates[10] == rates[149] == 1
    assert rates[-1] < 0.01


@pytest.mark.parametrize("space", ["w", "w_plus"])
def test_a_generated_patch_is_inverted_to_itself(space: str, root: Path) -> None:
    generator = tiny()
    cloud = the_cloud(generator)
    settings = InvertSettings(space=space, starts=2, steps=80, lr=0.1, prior=1e-4)
    network = inverters.Inverter(3, SIDE, cloud.dim).eval()  # any will do: the nearest leads
    w = generator.map(generator.sample_z(1, 4321))
    fields = generator.fields(w)[0].numpy()
    problem = pose(generator, cloud, "const", fields, np.ones((SIDE, SIDE), bool), settings)
    found = invert_patch(problem, network, settings, seed=0)
    strength = float(np.std(fields))
    for errors in found.errors.values():
        assert errors["rms_g"] < 0.03 * strength
        assert errors["correlation"] > 0.999
    assert abs(found.keywords["USFLUX"]["difference_std"]) < 0.05
    assert not found.keywords["AREA_MM2"]["aimed_at"]
    chosen = found.starts[found.chosen]
    assert chosen["chosen"]
    assert chosen["after"]["total"] == min(row["after"]["total"] for row in found.starts)
    assert all(row["after"]["total"] <= row["before"]["total"] for row in found.starts)
    if space == "w":
        assert found.w.shape == (6,)
        apart = clouds.length(cloud.to_u(torch.from_numpy(found.w)) - cloud.to_u(w[0]))
        assert apart < 0.1
        again = invert_patch(problem, network, settings, seed=0)
        assert again.w.tobytes() == found.w.tobytes()
        assert again.starts == found.starts
    else:
        assert found.w.shape == (generator.num_ws, 6)


def test_a_start_that_is_no_number_spoils_no_other(root: Path) -> None:
    generator = tiny()
    cloud = the_cloud(generator)
    settings = InvertSettings(steps=10)
    fields = generator.fields(generator.map(generator.sample_z(1, 3)))[0].numpy()
    problem = pose(generator, cloud, "const", fields, np.ones((SIDE, SIDE), bool), settings)
    starts = torch.zeros(2, cloud.dim)
    alone = optimise.optimise(problem.criterion, starts[:1], settings, lambda: None)
    starts[1] = torch.nan
    both = optimise.optimise(problem.criterion, starts, settings, lambda: None)
    assert both.dropped == [0, 10]
    torch.testing.assert_close(both.u[0], alone.u[0])
    with pytest.raises(DataError, match="no start"):
        optimise.optimise(problem.criterion, starts[1:], settings, lambda: None)


def test_starts_are_the_encoders_the_nearest_and_others(root: Path) -> None:
    generator = tiny()
    cloud = the_cloud(generator)
    network = inverters.Inverter(3, SIDE, cloud.dim).eval()
    fields = generator.fields(cloud.w[17:18])
    field = FieldMisfit(fields, torch.ones_like(fields[:, :1]), quiet_noise(CHANNELS))
    assert nearest(generator, cloud, field, "const") == 17
    names, starts = make_starts(fields, network, cloud, 17, 4, 0)
    assert names == ["encoder", "sample 17", "encoder moved 1", "sample 17 moved 1"]
    torch.testing.assert_close(starts[1], cloud.to_u(cloud.w[17]))
    assert 0.1 < (starts[3] - starts[1]).std().item() < 1.5
    _, layered = make_starts(fields, network, cloud, 17, 4, 0, layers=5)
    assert layered.shape == (4, 5, cloud.dim)
    with pytest.raises(DataError, match="from 16 pixels"):
        inverters.Inverter(3, 8, 4)
    assert inverters.Inverter(3, 256, 4).factor == 4


def test_invert_writes_what_a_walk_begins_with(place: Layout) -> None:
    asked = target.Wanted(record=RECORD)
    plan = inversion.plan(config("invert.steps=8"), asked)
    assert plan["tile"] == [0, 16]  # the most flux
    assert plan["inversion_encoder"].startswith("will be trained")
    assert not Path(plan["out"]).exists()
    result = inversion.invert(config("invert.steps=8"), asked)
    folder = Path(plan["out"])
    assert {path.name for path in folder.iterdir()} == {
        "inversion.h5", "inversion.json", "picture.png",
        *(f"reproduced.{name}.fits" for name in CHANNELS),
    }  # fmt: skip
    with h5py.File(folder / "inversion.h5") as file:
        found_w = file["w"][:]
        assert found_w.shape == (6,)
        assert file.attrs["generator"] == "a" * 64
        assert file.attrs["record"] == RECORD
        assert list(file.attrs["tile"]) == [0, 16]
        shown = tiny().fields(torch.from_numpy(found_w)[None])[0].numpy()
        np.testing.assert_allclose(file["reproduced"][:], shown, atol=0.05)
        real, mask = file["real"][:], file["mask"][:]
    start = from_file(tiny(), Space("w", tiny().num_ws, 6), folder / "inversion.h5")
    np.testing.assert_array_equal(start.x.astype(np.float32), found_w)
    again = read_vector(*(folder / f"reproduced.{name}.fits" for name in CHANNELS))
    np.testing.assert_allclose(again.fields, shown, atol=0.05)
    assert again.header["TELESCOP"] == "SYNTHETIC"
    assert again.pixel_cm == pytest.approx(PIXEL)
    errors = field_errors(real, shown, mask, CHANNELS)
    kept = read_json(folder / "inversion.json")
    for name in CHANNELS:
        assert kept["errors"][name]["rms_g"] == pytest.approx(errors[name]["rms_g"], rel=1e-3)
    same = inversion.invert(config("invert.steps=8"), asked)
    assert same["skipped"]
    assert same["keywords"] == result["keywords"]
    layered = inversion.plan(config("invert.steps=8", "invert.space=w_plus"), asked)
    assert layered["out"] != plan["out"]  # each space its own folder
    (folder / "traverse-USFLUX").mkdir()  # a walk that was written there
    assert inversion.invert(config("invert.steps=8"), asked)["skipped"]
    for ask in (inversion.plan, inversion.invert):
        with pytest.raises(DataError, match="with it traverse-USFLUX, which would be removed"):
            ask(config("invert.steps=9"), asked)
    (folder / "traverse-USFLUX").rmdir()
    other = inversion.invert(config("invert.steps=8", "invert.space=w_plus"), asked, folder)
    assert not other["skipped"]
    assert read_json(folder / "inversion.json")["space"] == "w_plus"
    tile = inversion.plan(config(), target.Wanted(record=RECORD, tile=(16, 0)))
    assert tile["out"] != plan["out"]


def test_what_cannot_be_inverted_is_one_line(place: Layout, tmp_path: Path) -> None:
    cfg = config()
    with pytest.raises(UsageError, match="one of --record"):
        target.Wanted()
    with pytest.raises(DataError, match=r"did you mean hmi.sharp_cea_720s\[377\]"):
        inversion.plan(cfg, target.Wanted(record=RECORD.replace("02:00", "02:12")))
    with pytest.raises(DataError, match="has no tile at 1 2; --tile takes 0 0, 0 16"):
        inversion.plan(cfg, target.Wanted(record=RECORD, tile=(1, 2)))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/paper.tex").write_text("x")
    with pytest.raises(DataError, match="holds no inversion"):
        inversion.plan(cfg, target.Wanted(record=RECORD), tmp_path / "mine")
    with pytest.raises(DataError, match="is no folder"):
        inversion.plan(cfg, target.Wanted(record=RECORD), tmp_path / "mine/paper.tex")
    odd = tiny(channels=("Br", "Bt"))
    with pytest.raises(DataError, match="it was trained with"):
        target.find_target(place, "tiny", odd, target.Wanted(record=RECORD))
    far = tiny()
    far.pixel_cm *= 2
    with pytest.raises(DataError, match="ask one of the same scale"):
        target.find_target(place, "tiny", far, target.Wanted(record=RECORD))


def test_fits_files_are_cut_as_the_dataset(place: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    info = asdict(read_info(place.shards("tiny")))
    rules = {"dtype": "int16", "min_flux_mx": 5e19, "flux_floor_g": 100.0}
    info |= {"tile": 32, "stride": 16, "reduce": 2, "channels": ["Bp", "Br", "Bt"], "scale": 0.2}
    info["settings"] = rules
    source = np.random.default_rng(0)
    fields = 200 * source.standard_normal((3, 40, 60))
    fields[:, :, :30] *= 0.01  # too weak to be kept
    found = VectorRecord(fields, {}, RECORD, 377, "2011.02.15_02:00:00_TAI", PIXEL / 2)
    tiles = kept_tiles(found, info)
    assert all(x + 32 > 30 for _, x in tiles.corners)
    assert [0, 0] not in tiles.corners
    y, x = tiles.corners[0]
    means, mask = reduce_field(cut(fields, (y, x), 32), 2)
    np.testing.assert_array_equal(
        tiles.images[0], np.rint(means[[2, 0, 1]] / 0.2).astype(np.float32) * np.float32(0.2)
    )
    np.testing.assert_array_equal(tiles.masks[0], mask)
    with pytest.raises(DataError, match="no tile that the dataset tiny would keep"):
        kept_tiles(replace(found, fields=0.01 * fields), info)
    with pytest.raises(DataError, match="channels 193"):
        kept_tiles(found, {**info, "channels": ["193"]})
    with pytest.raises(DataError, match="pixels of"):
        check_scale(1.0, 1.03, "this", "that")
    monkeypatch.setattr("sunpipe.fits.read_vector", lambda *paths: replace(found, pixel_cm=PIXEL))
    paths = (Path("Br"), Path("Bt"), Path("Bp"))
    picked = target.find_target(place, "tiny", tiny(), target.Wanted(fits=paths))
    assert picked.fields.shape == (3, SIDE, SIDE)
    assert picked.split is None


def test_errors_are_those_of_the_valid_pixels() -> None:
    real = np.zeros((3, 2, 2), np.float32)
    shown = np.array([[[3, -4], [0, 99]]] * 3, np.float32)
    mask = np.array([[True, True], [False, False]])
    found = field_errors(real, shown, mask, CHANNELS)["Br"]
    assert found == {"rms_g": pytest.approx(12.5**0.5), "median_g": 3.5, "correlation": None}
    spread = {"TILT": 10.0, "USFLUX": None}
    cloud = clouds.Cloud(torch.zeros(1), torch.ones(1, 1), torch.zeros(1, 1), spread, "drawn")
    values = keyword_errors(
        torch.tensor([89.0, 1.0]), torch.tensor([-89.0, torch.nan]), cloud, ["TILT"]
    )
    assert values["TILT"]["difference"] == pytest.approx(2)
    assert values["TILT"]["difference_std"] == pytest.approx(0.2)
    assert values["USFLUX"]["difference"] is None
