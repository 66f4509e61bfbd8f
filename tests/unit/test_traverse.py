"""``traverse`` with an analytic generator: goals, starts, conditions, and what is written."""

import csv
import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from sunpipe.config import load_config
from sunpipe.errors import ConfigError, DataError, UsageError
from sunpipe.fits import read_vector
from sunpipe.hdf5 import new_hdf5
from sunpipe.latent import assemble as stage
from sunpipe.latent import sample as sampling
from sunpipe.latent import walk_files
from sunpipe.latent.by_amount import Asked, plan, traverse
from sunpipe.latent.directions import read_directions, write_directions
from sunpipe.latent.space import Space
from sunpipe.latent.start import from_file
from sunpipe.physics.record import measure_files
from tests.unit.latent_fake import DIMS, FakeGenerator, install

QUANTITIES = '["USFLUX", "TOTUSJH", "POLSEP", "NETFLUX"]'


def config(*overrides):
    return load_config(
        None, ("name=fake", "sample.count=400", f"sample.quantities={QUANTITIES}",
               f"directions.quantities={QUANTITIES}", "directions.traverse_count=4",
               "directions.bootstrap=0", *overrides)
    )  # fmt: skip


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """A data root with samples and directions, and a component beside them. Do not write to it."""
    root = tmp_path_factory.mktemp("walks") / "root"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SUNPIPE_ROOT", str(root))
        install(patch, root, FakeGenerator())
        sampling.sample(config())
        stage.fit(config())
    return root


@pytest.fixture
def fake(fitted, root, monkeypatch):
    """A writable copy of `fitted` as the current data root, and its generator; no pictures."""
    monkeypatch.setattr(walk_files, "draw_strip", lambda walk, path, *rest: path.touch())
    shutil.copytree(fitted, root, dirs_exist_ok=True)
    return install(monkeypatch, root, FakeGenerator())


def test_a_walk_to_a_value(fake):
    start = traverse(config(), Asked("USFLUX", "1e20Mx"))["before"]
    goal = 1.3 * start
    result = traverse(config(), Asked("USFLUX", to=f"{goal}Mx"))
    assert result["reached"]
    assert result["after"] - start == pytest.approx(goal - start, rel=0.05)
    assert result["asked"] == pytest.approx(goal - start)
    assert result["to"] == goal
    with pytest.raises(UsageError, match="has this value already"):
        traverse(config(), Asked("USFLUX", to=repr(start)))
    with pytest.raises(UsageError, match="--to 'x' is not a number"):
        traverse(config(), Asked("USFLUX", to="x"))


def test_held_quantities_stay_where_a_plain_walk_moves_them(fake):
    plain = traverse(config(), Asked("TOTUSJH", "3", path="straight"))
    result = traverse(config(), Asked("TOTUSJH", "3", hold=("USFLUX", "POLSEP")))
    assert result["reached"]
    assert result["way"] == "held"
    assert result["measured"] == pytest.approx(3, rel=0.05)
    for name, held in result["held"].items():
        assert held["held"], name
        assert abs(held["drift_std"]) <= held["tolerance_std"] == 0.1
        assert held["after"] - held["before"] == held["drift"]
    dragged = abs(plain["others"]["USFLUX"]["change"])
    assert abs(result["held"]["USFLUX"]["drift"]) < dragged / 2


def test_a_hold_that_cannot_be_says_why(fake):
    result = traverse(config(), Asked("USFLUX", "3e21Mx", hold=("NETFLUX", "TOTUSJH", "POLSEP"),
                                      hold_tolerance=1e-4))  # fmt: skip
    assert not result["reached"]
    assert result["reason"]
    assert all(abs(held["drift_std"]) <= 1e-4 for held in result["held"].values())


def test_against_some_others(fake):
    directions = read_directions(sampling.samples_path(stage.Layout.current(), "fake").parent)
    result = traverse(config(), Asked("TOTUSJH", "3", against=("USFLUX",)))
    assert result["reached"]
    with h5py.File(result["walk"]) as file:
        moved = np.asarray(file["path"][-1] - file["path"][0], float)
        assert "TOTUSJH/against" in file
    assert abs(moved @ directions.vectors["USFLUX|normal"]) < 1e-4 * np.linalg.norm(moved)
    both = traverse(config(), Asked("TOTUSJH", "1", against=("USFLUX", "POLSEP", "NETFLUX")))
    alike = traverse(config(), Asked("TOTUSJH", "1", conditional=True))
    assert both["step"] == pytest.approx(alike["step"], rel=1e-3)
    with pytest.raises(DataError, match="no direction for MEANGAM"):
        traverse(config(), Asked("TOTUSJH", "1", against=("MEANGAM",)))


LAYERED = ("name=layered", "sample.styles=2", "directions.space=w_plus", "directions.layers=[0, 3]",
           "sample.count=200", "directions.learner=ridge")  # fmt: skip


@pytest.fixture(scope="module")
def layered(tmp_path_factory):
    """Directions that may move two of four layers; samples vary in all of them."""
    root = tmp_path_factory.mktemp("layered") / "root"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SUNPIPE_ROOT", str(root))
        (root / "runs/00000-layered").mkdir(parents=True)
        install(patch, root, FakeGenerator())
        sampling.sample(config(*LAYERED))
        stage.fit(config(*LAYERED))
    return root


@pytest.mark.parametrize(
    "way",
    [{"path": "bent"}, {"hold": ("NETFLUX",), "hold_tolerance": 0.5}, {"against": ("POLSEP",)}],
)
def test_layers_that_may_not_move_stay(layered, monkeypatch, tmp_path, way):
    monkeypatch.setenv("SUNPIPE_ROOT", str(layered))
    install(monkeypatch, layered, FakeGenerator())
    monkeypatch.setattr(walk_files, "draw_strip", lambda walk, path, *rest: path.touch())
    result = traverse(config(*LAYERED), Asked("USFLUX", "3e20Mx", out=tmp_path / "o", **way))
    with h5py.File(result["walk"]) as file:
        moved = np.ptp(file["path"][:], axis=0)
    assert moved[3].max() > 1e-3  # the layer that rules the flux
    np.testing.assert_array_equal(moved[[1, 2]], 0)


def test_a_component_by_standard_deviations(fake, root):
    folder = root / "latents/fake"
    directions = read_directions(folder)
    about = {key: value for key, value in directions.about.items() if key != "files"}
    vectors = {**directions.vectors, "PC2": np.eye(DIMS)[1]}
    write_directions(folder, about, vectors, directions.leakage(), [directions.walk("USFLUX")])
    result = traverse(config(), Asked(None, "2", component=2))
    assert result["reached"]
    assert (result["step"], result["unit"], result["quantity"]) == (2, "std", None)
    assert result["others"]["POLSEP"]["change"] > 0  # the second dimension is the separation
    with h5py.File(result["walk"]) as file:
        assert file["PC2/plain/values"].shape == (1, 5, 4)
    far = traverse(config(), Asked(None, "20", component=2))
    assert not far["reached"]
    assert far["step"] < 8
    known = sum(key.startswith("PC") for key in vectors)
    with pytest.raises(DataError, match=f"no component 77: directions holds {known}"):
        traverse(config(), Asked(None, "2", component=77))
    with pytest.raises(UsageError, match="measured in std, not Mx"):
        traverse(config(), Asked(None, "2Mx", component=2))


def test_a_walk_goes_on_from_where_another_ended(fake):
    first = traverse(config(), Asked("USFLUX", "4e20Mx", seed=3))
    second = traverse(config(), Asked("USFLUX", "-4e20Mx", start=Path(first["walk"])))
    assert second["before"] == pytest.approx(first["after"], rel=1e-5)
    assert second["after"] == pytest.approx(first["before"], rel=0.02)
    assert (second["from"], second["seed"]) == (first["walk"], None)


def latent_file(path, w, generator="f" * 64, **more):
    with new_hdf5(path) as file:
        file.attrs["generator"] = generator
        for name, value in {"w": w, **more}.items():
            file[name] = value
    return path


def test_a_walk_that_is_there_is_not_made_again(fake, capsys):
    asked = Asked("USFLUX", "4e20Mx", fits=True, frames=3)
    first = traverse(config(), asked)
    shown, calls = capsys.readouterr().err, fake.calls
    again = traverse(config(), asked)
    assert fake.calls == calls
    assert again == {**first, "skipped": True}
    told = capsys.readouterr().err
    assert "is up to date" in told
    assert all(line in told for line in shown.splitlines() if "USFLUX" in line)
    assert plan(config(), asked)["exists"]
    folder = Path(first["walk"]).parent
    assert len(list(folder.glob("*.fits"))) == 9
    fewer = traverse(config("directions.reach=3"), replace(asked, fits=False))
    assert not fewer["skipped"]
    assert {path.name.split(".")[0] for path in folder.glob("*.fits")} == {"before", "after"}


def test_a_folder_with_other_things_is_not_replaced(fake, tmp_path):
    asked = Asked("USFLUX", "4e20Mx", out=tmp_path / "o")
    (tmp_path / "o").mkdir()
    (tmp_path / "o/thesis.tex").write_text("")
    for work in (traverse, plan):
        with pytest.raises(DataError, match="holds no walk; give another --out"):
            work(config(), asked)
    (tmp_path / "o/thesis.tex").rename(tmp_path / "thesis.tex")
    done = traverse(config(), asked)
    (tmp_path / "thesis.tex").rename(tmp_path / "o/thesis.tex")
    calls = fake.calls
    with pytest.raises(DataError, match=r"also holds thesis\.tex"):
        traverse(config(), replace(asked, by="5e20Mx"))
    (tmp_path / "o/thesis.tex").unlink()
    with pytest.raises(UsageError, match="which is replaced"):
        traverse(config(), replace(asked, start=Path(done["walk"])))
    assert fake.calls == calls


def test_a_walk_that_fails_leaves_the_one_before(fake, tmp_path, monkeypatch):
    out = tmp_path / "o"
    first = traverse(config(), Asked("USFLUX", "4e20Mx", out=out))
    before = {path.name: path.read_bytes() for path in out.iterdir()}

    def full(*_args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(walk_files, "write_latents", full)
    with pytest.raises(OSError, match="No space"):
        traverse(config(), Asked("USFLUX", "-4e20Mx", out=out))
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir() if path.name != "root"] == ["o"]
    assert traverse(config(), Asked("USFLUX", "4e20Mx", out=out))["walk"] == first["walk"]


def test_walks_that_differ_have_folders_that_differ(fake, tmp_path):
    starts = [latent_file(tmp_path / name / "walk.h5", np.full(DIMS, at, np.float32))
              for at, name in enumerate(("a", "b/a", "c/a"))]  # fmt: skip
    asked = Asked("USFLUX", "4e20Mx", hold=("POLSEP",))
    each = [asked, replace(asked, hold_tolerance=0.2), replace(asked, path="bent"),
            replace(asked, hold=(), path="bent"), replace(asked, hold=()),
            replace(asked, by="4.00000001e20Mx"),
            *(replace(asked, start=start) for start in starts)]  # fmt: skip
    assert len({plan(config(), one)["out"] for one in each}) == len(each)
    far = latent_file(tmp_path / ("d" * 240) / "walk.h5", np.zeros(DIMS, np.float32))
    assert len(Path(plan(config(), replace(asked, start=far))["out"]).name) < 100


def test_a_plan_checks_what_the_walk_would(fake, root, tmp_path):
    with pytest.raises(UsageError, match="there is no such file"):
        plan(config(), Asked("USFLUX", "4e20Mx", start=tmp_path / "no.h5"))
    other = latent_file(tmp_path / "x.h5", np.zeros(DIMS), "e" * 64)
    with pytest.raises(DataError, match="belongs to generator eeee"):
        plan(config(), Asked("USFLUX", "4e20Mx", start=other))
    fake.digest = "d" * 64
    with pytest.raises(DataError, match="holds directions of generator"):
        plan(config(), Asked("USFLUX", "4e20Mx"))


@pytest.mark.parametrize("change", ["sample.styles=2", "sample.psi=0.5"])
def test_directions_of_other_samples_are_refused(fake, root, change):
    (root / "latents/fake/samples.h5").unlink()
    sampling.sample(config(change, "sample.count=8"))
    calls = fake.calls
    for work in (plan, traverse):
        with pytest.raises(DataError, match=r"other samples than samples\.h5 holds now"):
            work(config(change), Asked("USFLUX", "4e20Mx"))
    assert fake.calls == calls


def test_latent_files_of_others(fake, tmp_path):
    w = np.random.default_rng(5).standard_normal(DIMS).astype(np.float32)
    forms = [w, w[None], np.tile(w, (4, 1)), np.tile(w, (1, 4, 1))]
    flat, layered = Space("w", 4, DIMS), Space("w_plus", 4, DIMS)
    for number, form in enumerate(forms):
        path = latent_file(tmp_path / f"{number}.h5", form)
        np.testing.assert_array_equal(from_file(fake, flat, path).x, w)
        np.testing.assert_array_equal(from_file(fake, layered, path).x, np.tile(w, 4))
    with pytest.raises(DataError, match="need a start that was drawn in z"):
        from_file(fake, Space("z", 4, DIMS), path)


def test_latent_files_that_cannot_be_walked_from(fake, tmp_path):
    w = np.zeros(DIMS, np.float32)
    empty = tmp_path / "no.h5"
    with new_hdf5(empty) as file:
        file["z"] = w
    (tmp_path / "text.h5").write_text("w")
    layers = np.random.default_rng(0).standard_normal((4, DIMS))
    faults = {
        latent_file(tmp_path / "a.h5", w, "e" * 64): "belongs to generator eeeeeeeeeeee, not to",
        latent_file(tmp_path / "b.h5", w[:5]): r"holds w of shape \(5,\)",
        latent_file(tmp_path / "c.h5", layers): "another w for every layer",
        latent_file(tmp_path / "d.h5", w + np.nan): "not finite",
        empty: "no latent file",
        tmp_path / "text.h5": "cannot be read as a latent file",
    }
    for path, line in faults.items():
        with pytest.raises(DataError, match=line):
            traverse(config(), Asked("USFLUX", "1e20Mx", start=path))
    with pytest.raises(UsageError, match="there is no such file"):
        traverse(config(), Asked("USFLUX", "1e20Mx", start=tmp_path / "missing.h5"))


@pytest.fixture(scope="module")
def written(fitted, tmp_path_factory):
    """One walk with everything that can be written."""
    folder = tmp_path_factory.mktemp("written")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SUNPIPE_ROOT", str(fitted))
        install(patch, fitted, FakeGenerator())
        asked = Asked("USFLUX", "4e20Mx", 3, frames=4, fits=True, out=folder / "o",
                      movie=folder / "walk.gif")  # fmt: skip
        return folder, traverse(config(), asked)


def test_the_table_has_every_quantity_at_every_frame(written):
    folder, result = written
    assert (folder / "o/strip.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    rows = list(csv.DictReader((folder / "o/table.csv").read_text().splitlines()))
    assert len(rows) == 4
    assert list(rows[0]) == ["frame", "step", "USFLUX [Mx]", "TOTUSJH [G^2/m]", "POLSEP [Mm]",
                             "NETFLUX [Mx]"]  # fmt: skip
    assert float(rows[0]["USFLUX [Mx]"]) == pytest.approx(result["before"], rel=1e-5)
    assert float(rows[-1]["USFLUX [Mx]"]) == pytest.approx(result["after"], rel=1e-5)
    assert float(rows[-1]["step"]) == pytest.approx(result["step"])
    told = json.loads((folder / "o/traverse.json").read_text())
    assert told["measured"] == result["measured"]
    assert told["fits"] == result["fits"]


@pytest.mark.filterwarnings("ignore::astropy.utils.exceptions.AstropyWarning")
def test_fits_say_that_they_are_generated_and_measure_the_same(written):
    from astropy.io import fits
    from astropy.wcs import WCS

    folder, result = written
    assert len(result["fits"]) == 4 * 3
    last = [folder / f"o/frame03.{name}.fits" for name in ("Br", "Bt", "Bp")]
    with fits.open(last[0], checksum=True) as units:
        header, data = units[0].header, units[0].data
        assert (header["TELESCOP"], header["INSTRUME"]) == ("SYNTHETIC", "STYLEGAN2")
        assert header["BUNIT"] == "Mx/cm^2"
        assert header["SEED"] == 3
        assert header["GENHASH"] == "f" * 64
        assert header["USFLUX"] == pytest.approx(result["after"], rel=1e-5)
        assert any("Not an observation" in line for line in header["HISTORY"])
        assert WCS(header).wcs.ctype[0] == "CRLN-CEA"
        assert data.shape == (32, 32)
    record = read_vector(*last)
    assert record.pixel_cm == pytest.approx(1e8, rel=1e-9)
    assert record.record == "gen.00000-fake[4][1993.01.01_00:00:00_TAI]"
    found = measure_files(last, convention="physical")["keywords"]
    assert found["USFLUX"] == pytest.approx(result["after"], rel=1e-5)


def test_a_movie_of_the_walk(written, fake, tmp_path, monkeypatch):
    from PIL import Image

    with Image.open(written[0] / "walk.gif") as movie:
        assert movie.n_frames > 30
        assert min(movie.size) > 200
    monkeypatch.setattr(walk_files, "MOVIE_FRAMES", 3)
    asked = Asked("USFLUX", "4e20Mx", movie=tmp_path / "walk.mp4")
    traverse(config(), asked)
    assert (tmp_path / "walk.mp4").read_bytes()[4:8] == b"ftyp"
    assert plan(config(), asked)["exists"]
    (tmp_path / "walk.mp4").write_bytes(b"of another walk")
    assert not plan(config(), asked)["exists"]


def test_a_movie_that_cannot_be_made_is_refused_first(fake, monkeypatch, tmp_path):
    with pytest.raises(UsageError, match=r"ends in \.gif or \.mp4"):
        traverse(config(), Asked("USFLUX", "1e20Mx", movie=tmp_path / "walk.avi"))
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(ConfigError, match=r"pip install 'sunpipe\[video\]'"):
        traverse(config(), Asked("USFLUX", "1e20Mx", movie=tmp_path / "walk.mp4"))
    assert fake.calls == 0


def test_where_straight_ends_the_walk_bends(fake, capsys):
    """The net flux of this generator falls with the fourth dimension alone, but not for ever."""
    asked = Asked("TOTUSJH", "40", seed=1)
    straight = traverse(config("directions.reach=1"), replace(asked, path="straight"))
    found = traverse(config("directions.reach=1"), asked)
    assert not straight["reached"]
    assert "going on by local responses" in capsys.readouterr().err
    assert found["measured"] >= straight["measured"]


def test_plans_name_the_goal(fake):
    told = plan(config(), Asked("USFLUX", to="3e21Mx", hold=("POLSEP",)))
    assert told["to"] == 3e21
    assert told["out"].endswith("traverse-USFLUX-to3e+21-seed0-hold-POLSEP-within0.1")
    with pytest.raises(DataError, match="--hold MEANGAM: it was not measured"):
        plan(config(), Asked("USFLUX", "1e21", hold=("MEANGAM",)))
    assert fake.calls == 0


def command(*args):
    """Run ``sunpipe traverse`` in this process."""
    from sunpipe.cli import group

    sets = ("name=fake", "sample.count=400", f"sample.quantities={QUANTITIES}")
    options = [part for each in sets for part in ("-s", each)]
    group().main(["traverse", *args, *options], prog_name="sunpipe", standalone_mode=False)


def test_the_command(fake, capsys, tmp_path):
    command("--quantity", "USFLUX", "--by=-2e20Mx", "--hold", "POLSEP", "--hold-tolerance", "0.2",
            "--out", str(tmp_path / "o"), "--json")  # fmt: skip
    told = capsys.readouterr()
    result = json.loads(told.out)
    assert result["reached"]
    assert result["held"]["POLSEP"]["tolerance_std"] == 0.2
    assert "> USFLUX" in told.err
    assert (tmp_path / "o/traverse.json").is_file()
    command("--quantity", "USFLUX", "--to", "2e21Mx", "--dry-run", "--json")
    assert json.loads(capsys.readouterr().out)["to"] == 2e21
    with pytest.raises(UsageError, match="say how far"):
        command("--quantity", "USFLUX")
