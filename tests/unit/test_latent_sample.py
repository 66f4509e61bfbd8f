"""``samples.h5`` and the job that makes it, with an analytic generator."""

import json
import os
import signal

import h5py
import numpy as np
import pytest

from sunpipe.config import load_config
from sunpipe.errors import DataError, Stopped
from sunpipe.latent import sample as stage
from sunpipe.latent.samples import join, read_recipe, read_samples
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
    with pytest.raises(DataError, match="images of Br, Bt, Bx do not give"):
        stage.sample(config())


def test_join_refuses_a_gap(whole):
    samples = read_samples(whole)
    with pytest.raises(DataError, match="are missing"):
        join([samples, samples], samples.recipe)


def test_no_run_is_one_line(cli):
    done = cli("sample", "--json")
    assert done.returncode == 1
    assert "run sunpipe train first" in done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
