"""``directions fit`` and ``traverse`` with an analytic generator whose truth is known."""

import hashlib
import json
import shutil

import h5py
import numpy as np
import pyarrow.parquet as pq
import pytest

from sunpipe.config import load_config
from sunpipe.errors import ConfigError, DataError, UsageError
from sunpipe.files import sha256
from sunpipe.latent import assemble as stage
from sunpipe.latent import sample as sampling
from sunpipe.latent.by_amount import Asked, plan, traverse
from sunpipe.latent.directions import LEAKAGE, read_directions, write_directions
from sunpipe.latent.show import print_tables, summary
from tests.unit.latent_fake import LAYER_OF, FakeGenerator, install

QUANTITIES = '["USFLUX", "TOTUSJH", "POLSEP", "NETFLUX"]'


def config(*overrides):
    return load_config(
        None, ("name=fake", "sample.count=400", f"sample.quantities={QUANTITIES}",
               f"directions.quantities={QUANTITIES}", "directions.traverse_count=12",
               "directions.bootstrap=5", "directions.components=2", *overrides)
    )  # fmt: skip


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """A data root with samples and directions of the fake generator. Do not write to it."""
    root = tmp_path_factory.mktemp("fake") / "root"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SUNPIPE_ROOT", str(root))
        install(patch, root, FakeGenerator())
        sampling.sample(config())
        result = stage.fit(config())
    return root, result


@pytest.fixture
def fake(fitted, root, monkeypatch):
    """A writable copy of `fitted` as the current data root, and its generator."""
    shutil.copytree(fitted[0], root, dirs_exist_ok=True)
    return install(monkeypatch, root, FakeGenerator())


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch):
    """One picture, by `fitted`, is enough: the others would take seconds each."""
    monkeypatch.setattr("sunpipe.latent.leakage_picture.picture", lambda rows, path: None)


def test_directions_find_the_planted_ones(fitted):
    directions = read_directions(fitted[0] / "latents/fake")
    planted = {"POLSEP": 1, "NETFLUX": 3}
    for name, dim in planted.items():
        sign = -1 if name == "NETFLUX" else 1  # a stronger negative pole lowers the net flux
        assert sign * directions.vectors[name][dim] > 0.95, name
    for name, vector in directions.vectors.items():
        assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-6), name
    # what USFLUX and TOTUSJH share (w0) is gone from the conditional direction of TOTUSJH
    plain, free = directions.vector("TOTUSJH"), directions.vector("TOTUSJH", conditional=True)
    for other in ("USFLUX", "POLSEP", "NETFLUX"):
        assert abs(free @ directions.vectors[f"{other}|normal"]) < 1e-5
    assert plain @ free > 0


def test_what_is_written_about_a_direction(fitted):
    about = read_directions(fitted[0] / "latents/fake").about
    assert about["generator"] == "f" * 64
    assert about["left_out"] == {}
    for name, found in about["quantities"].items():
        assert found["sign"] == 1, name
        accuracy = found["accuracy"]
        assert accuracy["random_extremes"] < accuracy["extremes"]
        assert accuracy["extremes_count"] == pytest.approx(60, abs=25)
        curve = found["calibration"]["plain"]
        assert curve["steps"] == [-3, -2, -1, 0, 1, 2, 3]
        assert found["bootstrap_angle_deg"]["replicates"] == 5
        assert 0 <= found["bootstrap_angle_deg"]["median"] < 40
        assert found["natural_std"] > 0
        assert found["sigma"]["plain"] == pytest.approx(1, abs=0.15)  # w is standard normal
        assert found["effort"]["plain"] == pytest.approx(1, abs=0.1)
    flux = about["quantities"]["USFLUX"]
    assert flux["unit"] == "Mx"
    assert flux["accuracy"]["extremes"] > 0.9
    assert flux["accuracy"]["middle"] > 0.6
    assert flux["ridge"]["cosine"] > 0.9
    assert flux["ridge"]["r2"] > 0.8
    assert flux["calibration"]["plain"]["monotone"]
    assert flux["response"]["plain"] > 3 * flux["response"]["random"] / 2


def test_leakage_table(fitted):
    rows = pq.read_table(fitted[0] / "latents/fake/leakage.parquet").to_pylist()
    assert tuple(rows[0]) == LEAKAGE
    assert len(rows) == 2 * 4 * 4
    found = {(row["target"], row["quantity"], row["conditional"]): row for row in rows}
    own = found["USFLUX", "USFLUX", False]
    assert own["slope"] == own["low"] == own["high"] == 1
    drag = found["TOTUSJH", "USFLUX", False]
    freed = found["TOTUSJH", "USFLUX", True]
    assert drag["low"] <= drag["slope"] <= drag["high"]
    assert abs(freed["slope"]) < abs(drag["slope"]) / 2
    assert drag["unit"] == "Mx per G^2/m"
    assert (fitted[0] / "latents/fake/leakage.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_components_are_published_walked_and_read(fitted):
    directions = read_directions(fitted[0] / "latents/fake")
    first, second = directions.about["components"]
    assert (first["name"], second["name"]) == ("PC1", "PC2")
    assert first["sigma"] >= second["sigma"] > 0
    assert set(first["quantities"]) == set(first["response"]) == set(directions.quantities)
    samples = sampling.read_samples(fitted[0] / "latents/fake/samples.h5")
    along = samples.w @ directions.vectors["PC1"]
    assert along.std() == pytest.approx(first["sigma"], rel=0.01)
    found = first["quantities"]["POLSEP"]["pearson"]
    assert found == pytest.approx(np.corrcoef(along, samples.column("POLSEP"))[0, 1], abs=1e-6)
    walk = directions.walk("PC1")
    assert walk.sigma == pytest.approx(first["sigma"], rel=1e-6)
    slopes = [np.polyfit(walk.steps, row, 1)[0] for row in walk.column("POLSEP")]
    natural = directions.quantities["POLSEP"]["natural_std"]
    assert first["response"]["POLSEP"] == pytest.approx(np.median(slopes) / natural, abs=0.1)


def test_every_learner_is_judged(fitted):
    for name, about in read_directions(fitted[0] / "latents/fake").quantities.items():
        assert about["learner"] == "svm"
        assert about["svm"]["accuracy_extremes"] == about["accuracy"]["extremes"]
        for key in ("svr", "ridge", "ridge_ranks", "component"):
            assert 0 <= about[key]["accuracy_extremes"] <= 1, (name, key)
        assert about["svr"]["cosine"] > 0.8
        assert about["component"]["name"] in ("PC1", "PC2")


def test_walks_are_kept_for_the_report(fitted):
    directions = read_directions(fitted[0] / "latents/fake")
    walk = directions.walk("USFLUX", "conditional")
    assert walk.values.shape == (12, 7, 4)
    assert walk.images.shape == (3, 7, 3, 32, 32)
    assert walk.channels == ["Bp", "Br", "Bt"]
    assert walk.pixel_cm == 1e8
    fake, samples = FakeGenerator(), sampling.read_samples(fitted[0] / "latents/fake/samples.h5")
    import torch

    base = fake.fields(torch.from_numpy(samples.w[walk.rows[:1]])).numpy()
    np.testing.assert_allclose(walk.images[0, 3], base[0], rtol=1e-5, atol=1e-3)
    assert directions.walk("random", "random").values.shape == (12, 7, 4)
    with pytest.raises(DataError, match="no usable walk"):
        directions.walk("MEANGAM")


def test_no_base_of_a_walk_was_trained_on(fitted):
    directions = read_directions(fitted[0] / "latents/fake")
    from sunpipe.latent.labels import held_out

    assert held_out(400, 0.3, 0)[directions.walk("USFLUX").rows].all()


def test_json_face(fitted):
    result = json.loads(json.dumps(fitted[1], allow_nan=False))
    assert result["complete"]
    assert not result["skipped"]
    assert set(result["quantities"]) == {"USFLUX", "TOTUSJH", "POLSEP", "NETFLUX"}
    worst = result["quantities"]["TOTUSJH"]["worst_leak"]
    assert worst["plain"]["quantity"] == "USFLUX"


def digests(folder):
    names = ("directions.safetensors", "leakage.parquet", "traverse.h5")
    return {name: sha256(folder / name) for name in names}


@pytest.mark.parametrize("count", [2, 9])
def test_parts_in_any_order_give_the_same_files(fitted, root, monkeypatch, count):
    install(monkeypatch, root, FakeGenerator())
    sampling.sample(config())
    folder = root / "latents/fake"
    for part in range(count, 1, -1):
        result = stage.fit(config(), (part, count))
        assert not result["complete"]
        assert result["waiting_for"]
        assert not (folder / "directions.json").exists()
    result = stage.fit(config(), (1, count))
    assert result["complete"]
    assert digests(folder) == digests(fitted[0] / "latents/fake")
    assert not (folder / "directions-parts").exists()
    assert stage.fit(config(), (2, count))["skipped"]


def test_an_interrupted_fit_continues(fitted, root, monkeypatch):
    fake = install(monkeypatch, root, FakeGenerator())
    sampling.sample(config())
    honest, fake.calls = fake.fields, 0

    def failing(w, noise="const"):
        if fake.calls == 6:  # 12 bases x 7 steps in batches of 64: two per walk, two walks each
            raise KeyboardInterrupt
        return honest(w, noise)

    monkeypatch.setattr(fake, "fields", failing)
    with pytest.raises(KeyboardInterrupt):
        stage.fit(config())
    folder = root / "latents/fake"
    assert [path.name for path in folder.glob("directions-parts/*/*")] == ["USFLUX.h5"]
    monkeypatch.setattr(fake, "fields", honest)
    assert stage.fit(config())["complete"]
    assert fake.calls == 6 + 2 * (2 * 3 + 2 + 1)  # two components, and the control
    assert digests(folder) == digests(fitted[0] / "latents/fake")


@pytest.mark.parametrize("damage", [b"not this", None])
def test_a_damaged_part_is_made_again(fitted, root, monkeypatch, capsys, damage):
    install(monkeypatch, root, FakeGenerator())
    sampling.sample(config())
    assert not stage.fit(config(), (1, 2))["complete"]
    folder = root / "latents/fake"
    victim = next(folder.glob("directions-parts/*/USFLUX.h5"))
    content = victim.read_bytes()
    victim.write_bytes(content[: len(content) // 2] if damage is None else damage)
    waiting = stage.fit(config(), (2, 2))  # the other task: not its quantity
    assert not waiting["complete"]
    assert waiting["waiting_for"] == ["USFLUX"]
    assert "USFLUX is fitted again" in capsys.readouterr().err
    assert stage.fit(config(), (1, 2))["complete"]
    assert digests(folder) == digests(fitted[0] / "latents/fake")


def test_two_tasks_that_both_publish_do_no_harm(fake, root, monkeypatch):
    folder = root / "latents/fake"
    (folder / "directions.json").unlink()
    real = stage.write_directions

    def racing(*args):
        real(*args)
        shutil.rmtree(folder / "directions-parts")  # the other task was faster
        real(*args)

    monkeypatch.setattr(stage, "write_directions", racing)
    assert stage.fit(config())["complete"]
    read_directions(folder)


def test_up_to_date_is_cheap(fake, capsys):
    assert stage.fit(config())["skipped"]
    assert fake.calls == 0
    assert "up to date" in capsys.readouterr().err
    assert stage.fit(config("directions.reach=2"))["skipped"]  # no matter for the fit


def test_changed_settings_fit_again_and_name_the_key(fake, capsys):
    assert not stage.fit(config("directions.svm_c=0.1"))["skipped"]
    assert "another settings.svm_c" in capsys.readouterr().err


def test_solvers_agree(fake, root):
    newton = read_directions(root / "latents/fake").vectors
    stage.fit(config("directions.solver=sklearn"))
    sklearn = read_directions(root / "latents/fake").vectors
    for name, vector in newton.items():
        assert vector @ sklearn[name] > 0.9999, name


@pytest.mark.parametrize("victim", ["directions.safetensors", "leakage.parquet", "traverse.h5"])
def test_altered_files_are_refused_and_made_again(fake, root, victim):
    path = root / "latents/fake" / victim
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(DataError, match="not the file that was published"):
        read_directions(root / "latents/fake")
    assert not stage.fit(config())["skipped"]
    path.unlink()
    with pytest.raises(DataError, match="is missing"):
        read_directions(root / "latents/fake")


def test_another_generator_is_refused_by_name(fake, root, monkeypatch):
    other = hashlib.sha256(b"other").hexdigest()
    install(monkeypatch, root, FakeGenerator(digest=other))
    with pytest.raises(DataError, match="drawn from another generator"):
        stage.fit(config())
    with pytest.raises(DataError, match=r"directions of generator 00000-fake \(ffffffffffff\)"):
        traverse(config(), Asked("USFLUX", "1e20Mx"))


def test_undefined_and_constant_quantities_are_left_out(root, monkeypatch, capsys):
    install(monkeypatch, root, FakeGenerator(positive=True))
    names = 'sample.quantities=["USFLUX", "POLSEP", "FLUXIMB"]'
    asked = config(names, 'directions.quantities=["USFLUX", "POLSEP", "FLUXIMB"]')
    sampling.sample(asked)
    result = stage.fit(asked)
    assert list(result["quantities"]) == ["USFLUX"]
    assert result["left_out"]["POLSEP"] == "undefined for every sample"
    assert "the same value (1)" in result["left_out"]["FLUXIMB"]
    assert "POLSEP is left out" in capsys.readouterr().err
    directions = read_directions(root / "latents/fake")
    assert set(directions.vectors) == {"USFLUX", "USFLUX|normal", "PC1", "PC2"}
    with pytest.raises(DataError, match="the only quantity"):
        directions.vector("USFLUX", conditional=True)
    with pytest.raises(DataError, match="no direction for POLSEP: undefined"):
        directions.vector("POLSEP")
    with pytest.raises(DataError, match=r"add it to directions\.quantities"):
        directions.vector("MEANGAM")
    nothing = config(names, 'directions.quantities=["POLSEP", "FLUXIMB"]')
    with pytest.raises(DataError, match=r"no direction can be fitted: POLSEP: .*; FLUXIMB: "):
        stage.fit(nothing)


def test_too_few_samples_and_unmeasured_quantities(fake, root):
    with pytest.raises(DataError, match=r"MEANGAM not measured.*sample.quantities"):
        stage.fit(config('directions.quantities=["MEANGAM"]'))
    sampling.sample(config("sample.count=12"))
    with pytest.raises(DataError, match=r"to learn 8 dimensions from; raise sample\.count"):
        stage.fit(config("sample.count=12"))


@pytest.mark.parametrize("by", ["5e20Mx", "-8e20 Mx"])
@pytest.mark.parametrize("seed", [0, 3])
def test_traverse_changes_what_is_measured_by_what_was_asked(fake, root, by, seed):
    result = traverse(config(), Asked("USFLUX", by, seed))
    assert result["reached"]
    assert result["measured"] == pytest.approx(result["asked"], rel=0.05)
    assert result["after"] - result["before"] == pytest.approx(result["measured"])
    assert set(result["others"]) == {"TOTUSJH", "POLSEP", "NETFLUX"}
    other = result["others"]["POLSEP"]
    assert other["unit"] == "Mm"
    assert other["change"] == pytest.approx(other["after"] - other["before"])
    folder = root / "latents/fake" / f"traverse-USFLUX-by{result['asked']:+g}-seed{seed}"
    assert (folder / "strip.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert json.loads((folder / "traverse.json").read_text())["measured"] == result["measured"]
    with h5py.File(folder / "walk.h5") as file:
        assert file["path"].shape == (5, 8)
        values = file["USFLUX/plain/values"][0, :, 0]
    np.testing.assert_allclose(values[[0, -1]], [result["before"], result["after"]], rtol=1e-5)


def test_traverse_says_where_the_manifold_ends(fake, capsys):
    result = traverse(config(), Asked("USFLUX", "1e24Mx"))
    assert not result["reached"]
    assert result["measured"] < result["asked"]
    assert "where the sampled latents end" in result["reason"]
    assert "reached +" in capsys.readouterr().err
    shorter = traverse(config("directions.reach=1.5"), Asked("USFLUX", "1e24Mx"))
    assert shorter["step"] < result["step"]


@pytest.mark.parametrize("by", ["2e20Mx", "-8e20Mx"])
@pytest.mark.parametrize("conditional", [False, True])
def test_a_direction_that_lowers_its_quantity_is_walked_back(fake, root, by, conditional):
    folder = root / "latents/fake"
    directions = read_directions(folder)
    about = {key: value for key, value in directions.about.items() if key != "files"}
    flux = about["quantities"]["USFLUX"]
    flux["response"] = {kind: -abs(value) for kind, value in flux["response"].items()}
    flux["sign"] = -1
    turned = {key: -vector if key.startswith("USFLUX") else vector
              for key, vector in directions.vectors.items()}  # fmt: skip
    write_directions(folder, about, turned, directions.leakage(), [])
    assert read_directions(folder).sign("USFLUX", "conditional") == -1
    assert read_directions(folder).sign("POLSEP") == 1
    result = traverse(config(), Asked("USFLUX", by, conditional=conditional))
    assert result["reached"]
    assert result["measured"] == pytest.approx(result["asked"], rel=0.05)
    assert np.sign(result["step"]) == -np.sign(result["asked"])


def test_conditional_traverse_keeps_the_others_more_still(fake, tmp_path):
    plain = traverse(config(), Asked("TOTUSJH", "5"))
    free = traverse(config(), Asked("TOTUSJH", "5", conditional=True, out=tmp_path / "o"))
    assert plain["reached"]
    assert free["reached"]
    drag = [abs(each["others"]["USFLUX"]["change"]) for each in (plain, free)]
    assert drag[1] < drag[0]
    assert (tmp_path / "o/strip.png").exists()


def test_traverse_refuses_before_it_works(fake):
    with pytest.raises(UsageError, match="USFLUX is measured in Mx, not G"):
        traverse(config(), Asked("USFLUX", "1e21G"))
    with pytest.raises(DataError, match="no direction for MEANGAM"):
        traverse(config(), Asked("MEANGAM", "1deg"))
    assert fake.calls == 0
    assert plan(config(), Asked("USFLUX", "1e21Mx"))["unit"] == "Mx"


def test_undefined_start_is_one_line(fake, monkeypatch):
    monkeypatch.setattr(fake, "fields", lambda w, noise: FakeGenerator(positive=True).fields(w))
    with pytest.raises(DataError, match="POLSEP is undefined for this latent; try another --seed"):
        traverse(config(), Asked("POLSEP", "1Mm"))


def planted(name, space):
    """Where the fake generator listens, as a flat place in the space."""
    dim = {"POLSEP": 1, "NETFLUX": 3}[name]
    return dim if space != "w_plus" else LAYER_OF[dim] * 8 + dim


@pytest.mark.parametrize(
    "asked",
    [("space=z",), ("space=w_plus",), ("space=w_plus", "layers=[0, 1, 3]", "metric=euclidean")],
)
def test_directions_in_other_spaces(root, monkeypatch, asked):
    install(monkeypatch, root, FakeGenerator())
    names = '["POLSEP", "NETFLUX", "TOTUSJH"]'
    cfg = config(
        f"sample.styles={2 if 'w_plus' in asked[0] else 1}", "sample.psi=0.8",
        f"directions.quantities={names}", *[f"directions.{each}" for each in asked],
    )  # fmt: skip
    sampling.sample(cfg)
    shown = stage.fit(cfg)
    directions = read_directions(root / "latents/fake")
    space = directions.space
    assert (space.name, space.psi, space.num_ws) == (asked[0][6:], 0.8, 4)
    dims = 32 if space.name == "w_plus" else 8
    for name, sign in (("POLSEP", 1), ("NETFLUX", -1)):
        vector = directions.vectors[name]
        assert vector.shape == (dims,)
        assert np.argmax(np.abs(vector)) == planted(name, space.name)
        assert sign * vector[planted(name, space.name)] > 0.5
        assert directions.sign(name) == 1
    reach = directions.walk("POLSEP").column("POLSEP")
    assert (np.diff(np.median(reach, axis=0)) > 0).all()
    tables = {name: row["layers"] for name, row in shown["quantities"].items()}
    if space.name == "z":
        assert tables["POLSEP"] == []
        return
    assert [row["layer"] for row in tables["POLSEP"]] == list(space.layers or range(4))
    for name, layer in (("POLSEP", 0), ("NETFLUX", 1)):
        best = max(tables[name], key=lambda row: row["extremes"])
        assert best["layer"] == layer
        assert best["extremes"] > 0.9
    if space.layers:
        for name, vector in directions.vectors.items():
            assert not vector.reshape(4, 8)[2].any(), name


@pytest.mark.parametrize("learner", ["svr", "ridge"])
def test_another_learner_is_walked(fake, root, learner):
    before = read_directions(root / "latents/fake")
    assert not stage.fit(config(f"directions.learner={learner}"))["skipped"]
    after = read_directions(root / "latents/fake")
    for name in ("POLSEP", "NETFLUX", "USFLUX"):
        normals = [each.vectors[f"{name}|normal"] for each in (before, after)]
        assert 0.9 < normals[0] @ normals[1] < 0.99999, name
        assert after.sign(name) == 1


def test_a_space_needs_its_samples(fake, root):
    with pytest.raises(DataError, match=r"two styles each; run sunpipe sample with sample.styles"):
        stage.fit(config("directions.space=w_plus"))
    with pytest.raises(ConfigError, match="no layer 7; the generator has 4"):
        stage.fit(config("directions.space=w_plus", "directions.layers=[0, 7]"))
    sampling.sample(config("sample.styles=2"))
    with pytest.raises(DataError, match="one style each"):
        stage.fit(config("sample.styles=2"))


def test_no_names_mean_all_that_was_measured(fake, root):
    result = stage.fit(config("directions.quantities=[]", "directions.bootstrap=0"))
    assert set(result["quantities"]) == {"USFLUX", "TOTUSJH", "POLSEP", "NETFLUX"}


def test_tables_for_people(fitted, capsys):
    print_tables(summary(fitted[0] / "latents/fake"))
    shown = capsys.readouterr().out
    assert "400 samples, space w" in shown
    rows = [line for line in shown.splitlines() if line.split()[:1] == ["TOTUSJH"]]
    assert len(rows) == 2
    assert "USFLUX" in rows[1]  # the worst leak
    components = shown[shown.index("Principal components") :].splitlines()
    assert [line.split()[0] for line in components if line.startswith(" PC")] == ["PC1", "PC2"]
    assert max(map(len, shown.splitlines())) <= 132


def test_missing_directions_are_one_line(cli):
    for args in (("directions", "show"), ("traverse", "--quantity", "USFLUX", "--by", "1e21Mx")):
        done = cli(*args)
        assert done.returncode == 1
        assert "run sunpipe directions fit first" in done.stderr
        assert "Traceback" not in done.stderr
