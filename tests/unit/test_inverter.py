"""The cloud of latents and the encoder that answers in it."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from sunpipe.errors import DataError, Stopped
from sunpipe.latent import cloud as clouds
from sunpipe.latent import inverter as inverters
from sunpipe.latent import inverter_train
from sunpipe.lock import exclusive
from tests.unit.inversion_fake import SIDE, config, shrink, the_cloud, tiny


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    shrink(monkeypatch)


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
