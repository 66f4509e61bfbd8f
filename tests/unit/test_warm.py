"""Warm start: what is copied, what new resolutions start as, what is refused; Freeze-D."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from sunpipe import checkpoint
from sunpipe.config import to_dict
from sunpipe.errors import ConfigError, DataError
from sunpipe.files import write_json
from sunpipe.models.filters import Resample
from sunpipe.models.stylegan2 import Discriminator, Generator
from sunpipe.paths import Layout
from sunpipe.train.grown import start_discriminator
from sunpipe.train.warm import (
    WarmReport,
    find_source,
    frozen_names,
    frozen_parameters,
    layers,
    trainable,
    warm_start,
)
from sunpipe.train_settings import ModelSettings, TrainSettings

CHANNELS = ("Br", "Bt", "Bp")


def settings(**changed: Any) -> ModelSettings:
    small = {"z_dim": 8, "w_dim": 8, "mapping_layers": 2, "channel_base": 512, "channel_max": 24}
    return ModelSettings(**{**small, **changed})


def networks(resolution: int, model: ModelSettings, channels: int = 3) -> dict[str, Any]:
    made = {"G": Generator(resolution, channels, model).double(),
            "D": Discriminator(resolution, channels, model).double()}  # fmt: skip
    return {**made, "G_ema": copy.deepcopy(made["G"])}


def config(resolution: int, model: ModelSettings, **data: Any) -> dict[str, Any]:
    train = to_dict(TrainSettings(model=model))
    described = {"channels": CHANNELS, "units": ("G",) * 3, "resolution": resolution}
    return {"train": train, "data": {**described, **data}}


def trained(root: Path, resolution: int, model: ModelSettings, **data: Any) -> dict[str, Any]:
    """A run with one checkpoint whose weights are none that a start would give."""
    torch.manual_seed(resolution)
    made = networks(resolution, model)
    for network in made.values():
        for tensor in network.state_dict().values():
            tensor.add_(0.3 * torch.randn_like(tensor))
    run = root / "runs/00000-low"
    write_json(run / "config.json", config(resolution, model, **data))
    tensors = {name: network.state_dict() for name, network in made.items()}
    checkpoint.save(run / "checkpoints", 1000, tensors, {}, keep=1)
    return made


def started(root: Path, resolution: int, model: ModelSettings) -> tuple[dict[str, Any], WarmReport]:
    source = find_source(Layout(root), "low", config(resolution, model), print)
    torch.manual_seed(0)
    made = networks(resolution, model)
    return made, warm_start(made, source)


def resampled(image: torch.Tensor, size: int) -> torch.Tensor:
    while image.shape[-1] != size:
        image = Resample("up" if size > image.shape[-1] else "down").double()(image)
    return image


@pytest.mark.parametrize("size", [32, 64])
@pytest.mark.parametrize("architecture", ["residual", "skip", "orig"])
def test_a_higher_resolution_changes_nothing_at_first(
    tmp_path: Path, architecture: Any, size: int
) -> None:
    model = settings(d_architecture=architecture)
    low = trained(tmp_path, 16, model)
    high, report = started(tmp_path, size, model)
    image = torch.randn(4, 3, size, size, dtype=torch.float64)
    torch.testing.assert_close(high["D"](image), low["D"](resampled(image, 16)))
    for name in ("G", "G_ema"):
        w = low[name].mapping(torch.randn(4, 8, dtype=torch.float64))
        images = [network.synthesis(network.broadcast(w), "const")
                  for network in (low[name], high[name])]  # fmt: skip
        assert images[0].std() > 0.1
        torch.testing.assert_close(images[1], resampled(images[0], size))
        torch.testing.assert_close(high[name].mapping.w_avg, low[name].mapping.w_avg)
    assert all(name.split(".")[2] in ("32", "64") for name in report.random["G"])
    assert "00000-low kimg-000001.000 (16 x 16): G " in str(report)


@pytest.mark.parametrize("architecture", ["residual", "skip", "orig"])
def test_every_new_layer_learns(tmp_path: Path, architecture: Any) -> None:
    model = settings(d_architecture=architecture)
    trained(tmp_path, 16, model)
    high, _ = started(tmp_path, 32, model)
    before = {name: copy.deepcopy(high[name].state_dict()) for name in ("G", "D")}
    both = [p for name in ("G", "D") for p in high[name].parameters()]
    optimiser = torch.optim.Adam(both, lr=0.002, betas=(0.0, 0.99))
    for _ in range(2):  # the second step reaches what is behind a layer of zeros
        fake = high["G"](torch.randn(4, 8, dtype=torch.float64))
        real = torch.randn(4, 3, 32, 32, dtype=torch.float64)
        optimiser.zero_grad()
        loss = nn.functional.softplus(high["D"](fake)) + nn.functional.softplus(-high["D"](real))
        loss.mean().backward()
        optimiser.step()
    for name in ("G", "D"):
        same = [key for key, _ in high[name].named_parameters()
                if torch.equal(high[name].state_dict()[key], before[name][key])]  # fmt: skip
        assert same == []


def test_the_same_resolution_is_copied_whole(tmp_path: Path) -> None:
    low = trained(tmp_path, 16, settings())
    same, report = started(tmp_path, 16, settings())
    for name, network in same.items():
        assert not report.random[name]
        assert not report.prepared[name]
        state = network.state_dict()
        assert all(torch.equal(state[key], value) for key, value in low[name].state_dict().items())


@pytest.mark.parametrize("architecture", ["residual", "orig"])
def test_where_only_the_top_makes_the_image_it_starts_at_random(
    tmp_path: Path, architecture: Any
) -> None:
    model = settings(g_architecture=architecture)
    trained(tmp_path, 16, model)
    _, report = started(tmp_path, 32, model)
    assert report.prepared["G"] == ()
    assert "synthesis.blocks.32.to_image.weight" in report.random["G"]


def test_too_few_feature_maps_for_the_image_start_at_random() -> None:
    model = settings(channel_base=128)
    low, high = Discriminator(16, 3, model), Discriminator(32, 3, model)
    before = copy.deepcopy(high.state_dict())
    assert start_discriminator(high.state_dict(), low.state_dict(), 16) == ()
    assert all(torch.equal(high.state_dict()[key], value) for key, value in before.items())


@pytest.mark.parametrize(
    ("mine", "data", "words"),
    [
        ({"g_architecture": "orig"}, {}, r"another train\.model\.g_architecture"),
        ({"d_architecture": "skip"}, {}, r"another train\.model\.d_architecture"),
        ({}, {"channels": ["Br"], "units": ["G"]}, r"another data\.channels, data\.units"),
        ({}, {"units": ["Mx", "G", "G"]}, r"another data\.units"),
        ({"channel_max": 16}, {}, r"G of 00000-low has other shapes \(.* there and .* here\)"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(
    tmp_path: Path, mine: dict[str, Any], data: dict[str, Any], words: str
) -> None:
    trained(tmp_path, 16, settings(), **data)
    with pytest.raises(DataError, match=words):
        started(tmp_path, 32, settings(**mine))


def test_a_higher_resolution_is_refused(tmp_path: Path) -> None:
    trained(tmp_path, 16, settings())
    with pytest.raises(DataError, match="has 16 x 16 pixels, this run 8 x 8"):
        started(tmp_path, 8, settings())


def test_another_normalisation_is_refused(tmp_path: Path) -> None:
    trained(tmp_path, 16, settings())
    mine = config(16, settings())
    mine["train"]["normalize"] = {**mine["train"]["normalize"], "clip": 1.5}
    with pytest.raises(DataError, match=r"another train\.normalize\.clip"):
        find_source(Layout(tmp_path), "low", mine, print)


def test_shapes_and_frozen_layers_are_refused_before_there_is_a_run(tmp_path: Path) -> None:
    trained(tmp_path, 16, settings())
    with pytest.raises(DataError, match=r"D of .*other shapes|G of .*other shapes"):
        find_source(Layout(tmp_path), "low", config(32, settings(channel_max=16)), print)
    mine = config(32, settings())
    for count, refused in ((8, False), (9, True)):
        mine["train"]["warm"] = {"run": "low", "freeze_d": count}
        if not refused:
            find_source(Layout(tmp_path), "low", mine, print)
            continue
        with pytest.raises(ConfigError, match=r"train\.warm\.freeze_d=9: D has 9 layers"):
            find_source(Layout(tmp_path), "low", mine, print)


def test_a_source_is_a_name_a_run_or_a_checkpoint(tmp_path: Path) -> None:
    trained(tmp_path, 16, settings())
    layout, mine = Layout(tmp_path), config(16, settings())
    run = tmp_path / "runs/00000-low"
    path = run / "checkpoints/kimg-000001.000"
    for given in ("low", "00000-low", str(run), str(path)):
        assert find_source(layout, given, mine, print) == path
    with pytest.raises(DataError, match="no run called 'other'"):
        find_source(layout, "other", mine, print)
    (path / "D.safetensors").write_bytes(b"")
    for given, words in ((str(path), "altered or cut short"), ("low", "no whole checkpoint")):
        with pytest.raises(DataError, match=words):
            find_source(layout, given, mine, print)
    write_json(run / "config.json", {"ssl": {}})
    checkpoint.save(run / "checkpoints", 2000, {}, {}, keep=1)
    with pytest.raises(DataError, match="not a run of sunpipe train"):
        find_source(layout, "low", mine, print)


def test_freeze_d_keeps_the_layers_nearest_to_the_image() -> None:
    network = Discriminator(32, 3, settings())
    assert frozen_names(network, 0) == ()
    assert frozen_names(network, 4) == (
        "blocks.32.from_image.weight", "blocks.32.from_image.bias", "blocks.32.conv.weight",
        "blocks.32.conv.bias", "blocks.32.shrink.weight", "blocks.32.shrink.bias",
        "blocks.32.shortcut.weight",
    )  # fmt: skip
    # new layers of a higher resolution do not count: they have nothing to keep
    assert frozen_names(network, 1, resolution=16) == (
        "blocks.16.conv.weight", "blocks.16.conv.bias",
    )  # fmt: skip
    assert [name for name, _ in layers(network)][-3:] == ["epilogue.conv", "epilogue.dense", "out"]
    everything = {name for name, _ in network.named_parameters()}
    assert set(trainable(network, 4)) == everything - set(frozen_names(network, 4))
    assert len(frozen_parameters(network, 4)) == 7
    assert all(parameter.shape for parameter in frozen_parameters(network, 4))
    with pytest.raises(ConfigError, match=r"freeze_d=99: D has 13 layers"):
        frozen_names(network, 99)
