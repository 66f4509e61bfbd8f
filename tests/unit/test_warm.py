"""Warm start: what is copied, what new resolutions start as, what is refused; Freeze-D."""

from __future__ import annotations

import copy
import json
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
from sunpipe.train.warm import WarmReport, find_source, frozen_names, layers, warm_start
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
        assert set(report.copied[name]) == set(state)
        assert all(torch.equal(state[key], value) for key, value in low[name].state_dict().items())
    image = torch.randn(4, 3, 16, 16, dtype=torch.float64)
    assert torch.equal(same["D"](image), low["D"](image))


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
        ({"z_dim": 12}, {}, r"another train\.model\.z_dim;"),
        ({"w_dim": 12}, {}, r"another train\.model\.w_dim;"),
        ({"mapping_layers": 3}, {}, r"another train\.model\.mapping_layers;"),
        ({"mapping_layers": 1}, {}, r"another train\.model\.mapping_layers;"),
        ({"mbstd_group": 2}, {}, r"another train\.model\.mbstd_group;"),
        ({"channel_max": 20}, {}, r"another train\.model\.channel_max: .* there and .* here"),
        (
            {"channel_base": 256},
            {},
            r"channel_base: .*16\.grow.* is \(24,\) there and \(16,\) here",
        ),
        (
            {"channel_base": 256, "channel_min": 17},
            {},
            r"channel_base, train\.model\.channel_min: ",
        ),
    ],
)
def test_what_does_not_fit_is_refused_by_name(
    tmp_path: Path, mine: dict[str, Any], data: dict[str, Any], words: str
) -> None:
    trained(tmp_path, 16, settings(), **data)
    with pytest.raises(DataError, match=words):
        started(tmp_path, 32, settings(**mine))


def test_widths_may_differ_where_only_new_layers_do(tmp_path: Path) -> None:
    """16 and 24 feature maps at 32 x 32, both 24 below: the old networks fit whole."""
    low = trained(tmp_path, 16, settings())
    high, report = started(tmp_path, 32, settings(channel_min=24))
    image = torch.randn(4, 3, 32, 32, dtype=torch.float64)
    torch.testing.assert_close(high["D"](image), low["D"](resampled(image, 16)))
    for name in ("G", "G_ema"):
        assert set(report.copied[name]) == set(low[name].state_dict())


@pytest.mark.parametrize("architecture", ["residual", "skip", "orig"])
def test_all_of_the_source_is_copied_but_the_layer_of_its_image(
    tmp_path: Path, architecture: Any
) -> None:
    model = settings(g_architecture=architecture, d_architecture=architecture)
    low = trained(tmp_path, 16, model)
    high, report = started(tmp_path, 32, model)
    left = {name: set(network.state_dict()) - set(report.copied[name])
            for name, network in low.items()}  # fmt: skip
    top = {"weight", "bias"} if architecture != "skip" else set()
    assert left["D"] == {f"blocks.16.from_image.{part}" for part in top}
    assert {key.rsplit(".", 1)[0] for key in left["G"]} == (
        {"synthesis.blocks.16.to_image", "synthesis.blocks.16.to_image.affine"} if top else set()
    )
    for name, network in high.items():
        state = network.state_dict()
        assert all(".32." in key for key in set(state) - set(report.copied[name]))
        assert all(torch.equal(state[key], low[name].state_dict()[key])
                   for key in report.copied[name])  # fmt: skip


@pytest.mark.parametrize("size", [16, 32])
@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("G", "mapping.layers.1.bias"), ("G_ema", "mapping.w_avg"), ("D", "out.bias"),
        ("G", "synthesis.blocks.8.refine.weight"), ("D", "blocks.16.conv.weight"),
    ],
)  # fmt: skip
def test_a_tensor_that_is_missing_or_too_many_is_refused(
    tmp_path: Path, name: str, key: str, size: int
) -> None:
    """Of a checkpoint that is not what its ``config.json`` says."""
    low = trained(tmp_path, 16, settings())
    folder = tmp_path / "runs/00000-low/checkpoints"
    for nimg, there in ((2000, "missing there and"), (3000, "there and missing here")):
        tensors = {stem: dict(network.state_dict()) for stem, network in low.items()}
        if nimg == 2000:
            del tensors[name][key]
        else:
            tensors[name][f"{key}.more"] = torch.zeros(2)
        checkpoint.save(folder, nimg, tensors, {}, keep=1)
        words = rf"00000-low does not fit: {key}.* of {name} is .*{there}"
        with pytest.raises(DataError, match=words):
            find_source(Layout(tmp_path), "low", config(size, settings()), print)
        (source,) = checkpoint.complete(folder)
        with pytest.raises(DataError, match=words):
            warm_start(networks(size, settings()), source)


@pytest.mark.parametrize(
    "key", ["data.resolution", "data.units", "train.normalize.scale", "train.model.channel_min"]
)
def test_a_source_of_another_version_lacks_a_key(tmp_path: Path, key: str) -> None:
    trained(tmp_path, 16, settings())
    path = tmp_path / "runs/00000-low/config.json"
    stored = json.loads(path.read_text())
    *outer, last = key.split(".")
    inner = stored
    for part in outer:
        inner = inner[part]
    del inner[last]
    write_json(path, stored)
    with pytest.raises(DataError, match=rf"config\.json has no {key}, as if by another version"):
        find_source(Layout(tmp_path), "low", config(16, settings()), print)


def test_a_higher_resolution_is_refused(tmp_path: Path) -> None:
    trained(tmp_path, 16, settings())
    with pytest.raises(DataError, match="has 16 x 16 pixels, this run 8 x 8"):
        started(tmp_path, 8, settings())


def test_another_normalisation_is_refused(tmp_path: Path) -> None:
    trained(tmp_path, 16, settings())
    mine = config(16, settings())
    mine["train"]["normalize"] = {**mine["train"]["normalize"], "scale": 123.0}
    with pytest.raises(DataError, match=r"another train\.normalize\.scale"):
        find_source(Layout(tmp_path), "low", mine, print)


def test_shapes_and_frozen_layers_are_refused_before_there_is_a_run(tmp_path: Path) -> None:
    trained(tmp_path, 16, settings())
    with pytest.raises(DataError, match=r"train\.model\.channel_max: .* of G is "):
        find_source(Layout(tmp_path), "low", config(32, settings(channel_max=16)), print)
    mine = config(32, settings())
    for count, refused in ((8, False), (9, True)):
        mine["train"]["warm"] = {"run": "low", "freeze_d": count}
        if not refused:
            find_source(Layout(tmp_path), "low", mine, print)
            continue
        with pytest.raises(ConfigError, match=r"train\.warm\.freeze_d=9: D has 9 layers"):
            find_source(Layout(tmp_path), "low", mine, print)
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["00000-low"]


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
    parameters = dict(network.named_parameters())
    assert len(frozen_names(network, 4)) == 7
    assert set(frozen_names(network, 12)) == set(parameters) - {"out.weight", "out.bias"}
    with pytest.raises(ConfigError, match=r"freeze_d=99: D has 13 layers"):
        frozen_names(network, 99)


def test_freeze_d_keeps_copied_layers_only() -> None:
    """A layer with one tensor that did not come from the source is trained, and does not count."""
    network = Discriminator(32, 3, settings())
    copied = {name for name, _ in network.named_parameters() if ".32." not in name}
    copied -= {"blocks.16.from_image.weight", "blocks.16.conv.bias"}
    assert frozen_names(network, 2, copied=copied) == (
        "blocks.16.shrink.weight", "blocks.16.shrink.bias", "blocks.16.shortcut.weight",
    )  # fmt: skip
    assert frozen_names(network, 1, resolution=8, copied=copied) == (
        "blocks.8.conv.weight", "blocks.8.conv.bias",
    )  # fmt: skip
    with pytest.raises(ConfigError, match=r"freeze_d=8: D has 8 layers"):
        frozen_names(network, 8, 16, copied=copied)


@pytest.mark.parametrize("size", [16, 32, 64])
@pytest.mark.parametrize("architecture", ["residual", "skip", "orig"])
def test_what_is_frozen_holds_the_numbers_of_the_source(
    tmp_path: Path, architecture: Any, size: int
) -> None:
    model = settings(d_architecture=architecture)
    low = trained(tmp_path, 16, model)["D"].state_dict()
    high, report = started(tmp_path, size, model)
    names = frozen_names(high["D"], 3, report.resolution, copied=report.copied["D"])
    assert names == frozen_names(high["D"], 3, report.resolution)
    assert len(names) >= 5
    assert all(torch.equal(high["D"].get_parameter(name), low[name]) for name in names)
