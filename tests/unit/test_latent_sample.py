"""``samples.h5`` and the job that makes it, with an analytic generator."""

import json
import os
import signal
import weakref

import h5py
import numpy as np
import pytest

from sunpipe.config import load_config
from sunpipe.errors import ConfigError, DataError, Stopped
from sunpipe.latent import sample as stage
from sunpipe.latent.draw import crossovers
from sunpipe.latent.samples import read_recipe, read_samples, write_parts
from tests.unit.latent_fake import FakeGenerator, install

NAMES = '["USFLUX", "NETFLUX", "POLSEP", "TOTUSJH"]'


def config(*overrides):
    return load_config(
        None, ("name=fake", "sample.count=90", "sample.batch=8", f"sample.quantities={NAMES}",
               *overrides)
    )  # fmt: skip


@pytest.fixture
def fake(root, monkeypatch):
    monkeypatch.setattr(stage, "PART_SAMPLES", 32)
    return install(monkeypatch, root, FakeGenerator())


@pytest.fixture
def whole(fake, root):
    """The samples of an uninterrupted job, and their path."""
    result = stage.sample(config())
    path = root / "latents/fake/samples.h5"
    assert result["samples"] == str(path)
    return path


def same(left, right):
    for name in ("w", "z", "values"):
        np.testing.assert_array_equal(getattr(left, name), getattr(right, name))
    assert left.recipe == right.recipe


def test_samples_hold_what_was_drawn_and_measured(whole, fake):
    with h5py.File(whole) as file:
        assert file["w"].shape == (90, 8)
        assert file["w"].dtype == np.float32
        assert file["quantities/USFLUX"].dtype == np.float64
        assert file["quantities/USFLUX"].attrs["unit"] == "Mx"
        for key in ("schema", "run", "generator", "psi", "noise", "seed", "pixel_cm", "normalize"):
            assert key in file.attrs
        assert json.loads(file.attrs["normalize"])["kind"] == "asinh"
    samples = read_samples(whole)
    assert samples.units == ["Mx", "Mx", "Mm", "G^2/m"]
    np.testing.assert_array_equal(samples.z[5], fake.sample_z(1, 0, 5)[0])
    # the planted relations: flux with w0, separation with w1
    assert np.corrcoef(samples.w[:, 0], np.log(samples.column("USFLUX")))[0, 1] > 0.9
    assert np.corrcoef(samples.w[:, 1], samples.column("POLSEP"))[0, 1] > 0.9
    assert not (whole.parent / "samples-parts").exists()


def test_channels_are_put_in_the_order_of_the_physics(whole, fake):
    import torch

    from sunpipe.physics import measure

    samples = read_samples(whole)
    fields = fake.fields(torch.from_numpy(samples.w[:1]))[:, [1, 2, 0]]
    flux = measure(fields, fake.pixel_cm, names=["USFLUX"])["USFLUX"]
    assert samples.column("USFLUX")[0] == pytest.approx(float(flux), rel=1e-6)


@pytest.mark.parametrize("fault", ["interrupt", "sigterm"])
def test_a_stopped_job_continues_to_the_same_samples(whole, fake, root, monkeypatch, fault):
    uninterrupted = read_samples(whole)
    whole.unlink()
    honest = fake.fields
    fake.calls = 0

    def failing(w, noise="const"):
        if fake.calls == 6:
            if fault == "interrupt":
                raise KeyboardInterrupt
            os.kill(os.getpid(), signal.SIGTERM)
        return honest(w, noise)

    monkeypatch.setattr(fake, "fields", failing)
    with pytest.raises(KeyboardInterrupt if fault == "interrupt" else Stopped):
        stage.sample(config())
    assert not whole.exists()
    assert len(list(whole.parent.glob("samples-parts/*/part-*.h5"))) == 1
    assert not list(whole.parent.rglob(".tmp-*"))
    assert stage.plan(config())["finished_parts"] == 1
    monkeypatch.setattr(fake, "fields", honest)
    fake.calls = 0
    stage.sample(config())
    assert fake.calls == 12 - 4  # the batches of the first part were not made again
    same(read_samples(whole), uninterrupted)


def test_up_to_date_is_said_and_nothing_is_made(whole, fake, capsys):
    fake.calls = 0
    result = stage.sample(config())
    assert result["skipped"]
    assert fake.calls == 0
    assert "up to date" in capsys.readouterr().err


@pytest.mark.parametrize("change", ["sample.psi=0.5", "sample.count=40", "seed=3"])
def test_changed_settings_make_them_again_and_name_the_key(whole, fake, capsys, change):
    assert not stage.sample(config(change))["skipped"]
    assert f"another {change.split('=')[0].split('.')[-1]}" in capsys.readouterr().err


def test_another_generator_makes_them_again(whole, root, monkeypatch, capsys):
    install(monkeypatch, root, FakeGenerator(digest="e" * 64))
    stage.sample(config())
    assert "another generator" in capsys.readouterr().err
    assert read_recipe(whole)["generator"] == "e" * 64


def test_damaged_samples_are_named_and_made_again(whole, capsys):
    content = whole.read_bytes()
    whole.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match="run sunpipe sample"):
        read_samples(whole)
    assert not stage.sample(config())["skipped"]
    assert len(read_samples(whole)) == 90


def test_a_damaged_part_is_made_again(fake, root, monkeypatch):
    real = stage.draw

    def dying(generator, look, recipe, rows, poll):
        if rows.start >= 64:
            raise KeyboardInterrupt
        return real(generator, look, recipe, rows, poll)

    monkeypatch.setattr(stage, "draw", dying)
    with pytest.raises(KeyboardInterrupt):
        stage.sample(config())
    parts = sorted(root.glob("latents/fake/samples-parts/*/*.h5"))
    assert len(parts) == 2
    parts[0].write_bytes(b"not hdf5")
    monkeypatch.setattr(stage, "draw", real)
    assert stage.sample(config())["count"] == 90


def test_undefined_values_are_counted_not_hidden(root, monkeypatch):
    install(monkeypatch, root, FakeGenerator(positive=True))
    found = stage.sample(config("sample.count=16"))["quantities"]["POLSEP"]
    assert found == {"unit": "Mm", "median": None, "p16": None, "p84": None, "undefined": 16}


def test_missing_component_is_named(fake, root):
    fake.channels = ["Br", "Bt", "Bx"]
    with pytest.raises(ConfigError, match="images of Br, Bt, Bx do not give USFLUX"):
        stage.sample(config())


@pytest.mark.parametrize("count", [2, 5])
def test_parts_in_any_order_give_the_same_samples(whole, fake, root, count):
    uninterrupted = read_samples(whole)
    whole.unlink()
    for part in range(count, 1, -1):
        result = stage.sample(config(), (part, count))
        assert not result["complete"]
        assert "part-00000000.h5" in result["waiting_for"]
        assert not whole.exists()
    result = stage.sample(config(), (1, count))
    assert result["complete"]
    assert result["quantities"]["USFLUX"]["undefined"] == 0
    same(read_samples(whole), uninterrupted)
    assert not (whole.parent / "samples-parts").exists()
    fake.calls = 0
    assert stage.sample(config(), (2, count))["skipped"]
    assert fake.calls == 0


def test_the_task_that_comes_late_is_done(whole, fake, root, monkeypatch):
    """Two tasks see the last block; the other one has joined and cleaned up."""
    whole.unlink()
    real = stage.write_parts

    def racing(path, parts, count):
        monkeypatch.setattr(stage, "write_parts", real)
        assert stage.sample(config(), (2, 9))["complete"]  # the other task
        real(path, parts, count)

    monkeypatch.setattr(stage, "write_parts", racing)
    assert stage.sample(config())["complete"]
    assert len(read_samples(whole)) == 90


def test_joining_holds_one_block(whole, monkeypatch, root):
    """The blocks are appended one after the other."""
    whole.unlink()
    live, most = set(), []
    real = stage.read_samples

    def counting(path):
        part = real(path)
        weakref.finalize(part, live.discard, path)
        live.add(path)
        most.append(len(live))
        return part

    monkeypatch.setattr(stage, "read_samples", counting)
    stage.sample(config())
    assert len(most) == 3
    assert max(most) <= 2  # the one being written, and the next


def test_samples_of_two_styles(fake, root):
    stage.sample(config("sample.styles=2", "sample.psi=0.7"))
    path = root / "latents/fake/samples.h5"
    samples = read_samples(path)
    assert samples.w.shape == (90, 4, 8)
    with h5py.File(path) as file:
        np.testing.assert_array_equal(file["w"], file["w_plus"][:, 0])
        assert file["z2"].shape == (90, 8)
    assert set(samples.crossover.tolist()) == {1, 2, 3}
    for row in (0, 41, 89):
        first, second = (0.7 * samples.z[row], 0.7 * samples.z2[row])
        for layer in range(4):
            truth = second if layer >= samples.crossover[row] else first
            np.testing.assert_array_equal(samples.w[row, layer], truth.astype(np.float32))
    np.testing.assert_array_equal(samples.z2[5], fake.sample_z(1, 0, 5, "z2")[0])
    # the flux listens to layer 3, the separation to layer 0
    flux, apart = np.log(samples.column("USFLUX")), samples.column("POLSEP")
    assert np.corrcoef(samples.w[:, 3, 0], flux)[0, 1] > 0.9
    assert np.corrcoef(samples.w[:, 0, 1], apart)[0, 1] > 0.9
    assert not stage.sample(config("sample.psi=0.7"))["skipped"]  # one style: made again


def test_crossovers_are_those_of_training_in_every_sample(fake):
    found = crossovers(14, 4000, seed=3)
    np.testing.assert_array_equal(found[100:200], crossovers(14, 100, 3, start=100))
    counts = np.bincount(found, minlength=14)
    assert counts[0] == 0
    assert (abs(counts[1:] - 4000 / 13) < 5 * np.sqrt(4000 / 13)).all()


def test_parts_with_a_gap_are_refused(whole):
    samples = read_samples(whole)
    with pytest.raises(DataError, match="samples 90 to 0 are missing"):
        write_parts(whole.parent / "x.h5", [samples, samples], 180)
    with pytest.raises(DataError, match="samples 90 to 91 are missing"):
        write_parts(whole.parent / "x.h5", [samples], 91)
    assert not (whole.parent / "x.h5").exists()


def test_no_run_is_one_line(cli):
    done = cli("sample", "--json")
    assert done.returncode == 1
    assert "run sunpipe train first" in done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
