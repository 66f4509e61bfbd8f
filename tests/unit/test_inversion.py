"""From a patch back to its latent, with a tiny StyleGAN2 that is really inverted."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from sunpipe.config import load_config
from sunpipe.errors import DataError, Stopped, UsageError
from sunpipe.files import read_json
from sunpipe.fits import VectorRecord, read_vector
from sunpipe.invert_settings import InvertSettings
from sunpipe.latent import cloud as clouds
from sunpipe.latent import inversion, inverter_train, optimise, target
from sunpipe.latent import inverter as inverters
from sunpipe.latent.generator import Generator
from sunpipe.latent.invert_patch import field_errors, invert_patch, keyword_errors, pose
from sunpipe.latent.misfit import FieldMisfit, KeywordMisfit, charbonnier, measured, quiet_noise
from sunpipe.latent.sample import sample
from sunpipe.latent.space import Space
from sunpipe.latent.start import from_file
from sunpipe.latent.starts import make_starts, nearest
from sunpipe.lock import exclusive
from sunpipe.models import stylegan2
from sunpipe.normalize_settings import NormalizeSettings
from sunpipe.paths import Layout
from sunpipe.shards.cut import cut, reduce_field
from sunpipe.shards.schema import read_info
from sunpipe.shards.tiles import check_scale, kept_tiles
from sunpipe.train_settings import ModelSettings, TrainSettings
from tests.unit.shards_fake import write_dataset

SIDE, PIXEL = 16, 7e7
CHANNELS = ["Br", "Bt", "Bp"]
NAMES = '["USFLUX", "NETFLUX", "POLSEP", "MEANGAM", "AREA_MM2"]'
RECORD = "hmi.sharp_cea_720s[377][2011.02.15_02:00:00_TAI]"


def tiny(digest: str = "a" * 64, channels: tuple[str, ...] = ("Br", "Bt", "Bp")) -> Generator:
    """A StyleGAN2 with random weights whose fields are a few hundred gauss."""
    model = ModelSettings(z_dim=6, w_dim=6, mapping_layers=2, channel_base=256, channel_max=16)
    settings = TrainSettings(
        model=model, normalize=NormalizeSettings(kind="linear", scale=500.0, limit=500.0)
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        network = stylegan2.Generator(SIDE, len(channels), model).eval().requires_grad_(False)
    return Generator(network, settings, "00000-tiny", digest, list(channels),
                     ["Gauss"] * len(channels), SIDE, PIXEL, 1.0)  # fmt: skip


def config(*more: str):
    return load_config(
        None, ("name=tiny", "dataset=tiny", f"sample.quantities={NAMES}", "sample.count=96",
               "invert.encoder_kimg=0.64", "invert.steps=120", "invert.starts=3", *more)
    )  # fmt: skip


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    monkeypatch.setattr(clouds, "SHOWN", 64)
    monkeypatch.setattr(clouds, "DRAWN", 512)
    monkeypatch.setattr(inverters, "HELD_OUT", 64)


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


def the_cloud(generator: Generator, layout: Layout | None = None) -> clouds.Cloud:
    return clouds.make_cloud(generator, layout or Layout(Path("/nowhere")), config())


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


def test_the_cloud_is_round_in_its_own_coordinates(root: Path) -> None:
    generator = tiny()
    cloud = the_cloud(generator)
    w = generator.map(generator.sample_z(2000, 9))
    u = cloud.to_u(w)
    torch.testing.assert_close(torch.cov(u.T), torch.eye(cloud.dim), atol=0.15, rtol=0)
    torch.testing.assert_close(cloud.to_w(u), w, atol=1e-4, rtol=1e-4)
    assert clouds.length(u) == pytest.approx(1, abs=0.1)
    assert "AREA_MM2" in cloud.spread
    assert "AREA_MM2" not in cloud.names  # a count has no gradient
    mostly, half = np.arange(101.0), np.arange(101.0)
    mostly[:50], half[:51] = np.nan, np.nan
    columns = np.stack([np.arange(101.0), np.ones(101), half, mostly], axis=1)
    assert clouds.spreads(["a", "b", "c", "d"], columns) == {
        "a": pytest.approx(34), "b": None, "c": None, "d": pytest.approx(17),
    }  # fmt: skip
    for value in (1.0, 0.1):
        with pytest.raises(DataError, match="same w"):
            clouds.axes_of(np.full((50, 4), np.float32(value), np.float64))


def test_an_axis_has_one_sense_whatever_the_eigensolver(monkeypatch: pytest.MonkeyPatch) -> None:
    source = np.random.default_rng(1)
    w = source.standard_normal((400, 8)) @ source.standard_normal((8, 8))
    centre, axes = clouds.axes_of(w)
    u = (w - centre) @ (axes / np.square(axes).sum(axis=0))
    np.testing.assert_allclose(np.cov(u.T), np.eye(8), atol=1e-9)
    solve = np.linalg.eigh

    def flipped(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        values, vectors = solve(matrix)
        return values, vectors * np.array([-1, 1] * 4)

    monkeypatch.setattr(np.linalg, "eigh", flipped)
    np.testing.assert_array_equal(clouds.axes_of(w)[1], axes)


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


def test_encoder_stops_resumes_and_knows_its_generator(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    generator, folder, cfg = tiny(), root / "latents", config()
    cloud = the_cloud(generator)
    _, kept, whole = inverter_train.get_inverter(root / "other", generator, cloud, cfg)
    pairs = inverters.Pairs(generator, cloud, "const", 1.0, cfg.seed)
    torch.manual_seed(1)
    untrained = inverters.held_out(inverters.Inverter(3, SIDE, cloud.dim), pairs)
    assert whole["held_out"]["misfit"] < 0.95 * untrained["misfit"]
    assert whole["held_out"]["rms_centre_g"] == pytest.approx(untrained["rms_centre_g"])
    # another machine may find the same cloud with axes that point or turn otherwise
    turned = replace(cloud, axes=-cloud.axes.flip(1))
    network, found, _ = inverter_train.get_inverter(root / "other", generator, turned, cfg)
    assert found.w is turned.w
    torch.testing.assert_close(found.axes, kept.axes, rtol=0, atol=0)
    pairs = replace(pairs, cloud=found)
    assert inverters.held_out(network, pairs) == pytest.approx(whole["held_out"])
    pairs = replace(pairs, cloud=turned)
    assert inverters.held_out(network, pairs)["misfit"] > 1.1 * whole["held_out"]["misfit"]
    calls = iter(range(1000))

    def poll() -> None:
        if next(calls) == 7:
            raise Stopped("stopped")

    with pytest.raises(Stopped):
        inverter_train.get_inverter(folder, generator, cloud, cfg, poll)
    assert (folder / "inverter/partial.safetensors").exists()
    # what continues elsewhere continues in the axes that it began in
    *_, about = inverter_train.get_inverter(folder, generator, turned, cfg)
    assert "continues at 0.224 kimg" in capsys.readouterr().err
    assert about["sha256"] == whole["sha256"]
    assert not (folder / "inverter/partial.safetensors").exists()
    inverter_train.get_inverter(folder, generator, cloud, cfg)
    assert "training" not in capsys.readouterr().err
    wanted = inverter_train.identity(tiny("b" * 64), cfg)
    why = inverter_train.why_not(folder / "inverter", wanted)
    assert why is not None
    assert "another generator" in why
    (folder / "inverter/inverter.safetensors").write_bytes(b"x")
    wanted = inverter_train.identity(generator, cfg)
    assert inverter_train.why_not(folder / "inverter", wanted) == "its file is damaged"


def test_who_comes_while_another_trains_waits_and_takes_what_that_made(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    generator, cfg = tiny(), config("invert.encoder_kimg=0.064")
    cloud, trained, folder = the_cloud(generator), root / "other/inverter", root / "inverter"
    monkeypatch.setattr(inverter_train, "WAIT_S", 0.0)
    *_, about = inverter_train.get_inverter(root / "other", generator, cloud, cfg)
    with exclusive(trained / ".lock", "training"):  # what is ready needs no lock
        inverter_train.get_inverter(root / "other", generator, cloud, cfg)
    capsys.readouterr()
    looks = iter(range(10))
    with ExitStack() as other:
        other.enter_context(exclusive(folder / ".lock", "training"))

        def poll() -> None:
            look = next(looks)
            if look == 1:
                raise Stopped("stopped")
            if look == 4:
                for name in ("inverter.safetensors", "inverter.json"):
                    (folder / name).write_bytes((trained / name).read_bytes())
                other.close()

        with pytest.raises(Stopped):  # a wait can be stopped
            inverter_train.get_inverter(root, generator, cloud, cfg, poll)
        *_, taken = inverter_train.get_inverter(root, generator, cloud, cfg, poll)
    assert taken == about
    told = capsys.readouterr().err
    assert told.count("waiting: another process trains") == 2
    assert "training an inversion encoder" not in told
    with pytest.raises(DataError, match="with other settings; run again"):
        inverter_train._read(folder, {**about["identity"], "seed": 9})


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
