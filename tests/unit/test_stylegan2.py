"""StyleGAN2 as a whole: counts, shapes, architectures, truncation, noise."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from sunpipe.models.layers import width
from sunpipe.models.noise import SampleNoise
from sunpipe.models.ops import Dense, minibatch_std
from sunpipe.models.stylegan2 import Discriminator, Generator
from sunpipe.train_settings import ComputeSettings, ModelSettings

TINY = ModelSettings(
    z_dim=8, w_dim=8, mapping_layers=2, channel_base=64, channel_max=8, mbstd_group=2
)
ARCHITECTURES = ["skip", "residual", "orig"]


def parameters(network: torch.nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def on_meta(resolution: int, channels: int, **model: Any) -> tuple[Generator, Discriminator]:
    settings = ModelSettings(**model)
    with torch.device("meta"):
        return (
            Generator(resolution, channels, settings),
            Discriminator(resolution, channels, settings),
        )


def test_parameter_counts_at_1024_are_the_published_ones() -> None:
    g, d = on_meta(1024, 1)
    # G 30.4 M, D 29.0 M for one channel, from the layer formulas of arXiv:1912.04958
    assert parameters(g) == pytest.approx(30.36e6, rel=1e-3)
    assert parameters(d) == pytest.approx(29.01e6, rel=1e-3)
    assert g.num_ws == 18


@pytest.mark.parametrize(("resolution", "least"), [(2048, 1), (4096, 1), (4096, 32)])
def test_sizes_beyond_1024(resolution: int, least: int) -> None:
    g, d = on_meta(resolution, 3, channel_min=least)
    settings = ModelSettings(channel_min=least)
    assert width(resolution, settings) == max(32768 // resolution, least)
    image = g(torch.randn(2, 512, device="meta"))
    assert image.shape == (2, 3, resolution, resolution)
    assert d(image).shape == (2,)
    assert g.num_ws == 2 * len(g.synthesis.sizes) == len(g.synthesis.blocks) * 2


@pytest.mark.parametrize("resolution", [8, 16, 64])
@pytest.mark.parametrize("channels", [1, 3, 10])
def test_shapes(resolution: int, channels: int) -> None:
    g, d = Generator(resolution, channels, TINY), Discriminator(resolution, channels, TINY)
    image = g(torch.randn(4, 8))
    assert image.shape == (4, channels, resolution, resolution)
    logits, features = d.features(image)
    assert torch.equal(logits, d(image))
    assert logits.shape == (4,)
    torch.testing.assert_close(d.out(features)[:, 0], logits)


@pytest.mark.parametrize("g_architecture", ARCHITECTURES)
@pytest.mark.parametrize("d_architecture", ARCHITECTURES)
def test_every_parameter_of_every_architecture_learns(
    g_architecture: Any, d_architecture: Any
) -> None:
    model = replace(TINY, g_architecture=g_architecture, d_architecture=d_architecture)
    g, d = Generator(16, 2, model), Discriminator(16, 2, model)
    d(g(torch.randn(4, 8))).sum().backward()
    without = [name for name, p in [*g.named_parameters(), *d.named_parameters()]
               if p.grad is None or (not p.grad.any() and name != "out.bias")]  # fmt: skip
    assert without == []
    assert g.num_ws == 6  # 5 convolutions and the last share of the image
    images = [name for name in g.state_dict() if name.endswith("to_image.weight")]
    assert len(images) == (3 if g_architecture == "skip" else 1)


@pytest.mark.parametrize("resolution", [0, 4, 48, 100])
def test_other_sizes_are_refused(resolution: int) -> None:
    with pytest.raises(ValueError, match="power of two"):
        Generator(resolution, 1, TINY)


def test_parameters_are_named_by_resolution() -> None:
    """A larger network has all the blocks of a smaller one but its outermost layers."""
    small, large = Generator(16, 1, TINY), Generator(32, 1, TINY)
    assert set(small.state_dict()) < set(large.state_dict())
    small_d, large_d = Discriminator(16, 1, TINY), Discriminator(32, 1, TINY)
    assert {name for name in small_d.state_dict() if name not in large_d.state_dict()} == {
        "blocks.16.from_image.weight", "blocks.16.from_image.bias",
    }  # fmt: skip


def test_learning_rate_multiplier_scales_the_update_only() -> None:
    torch.manual_seed(0)
    layer = Dense(1000, 500, lr_multiplier=0.01)
    out = layer(torch.randn(50, 1000))
    assert float(out.detach().std()) == pytest.approx(1.0, rel=0.05)


def test_minibatch_std_sees_identical_samples() -> None:
    same = torch.randn(1, 3, 4, 4).expand(4, -1, -1, -1)
    assert float(minibatch_std(same, 4)[:, -1].max()) == pytest.approx(1e-4, rel=1e-3)
    varied = minibatch_std(torch.randn(6, 3, 4, 4), 4)  # 4 does not divide 6: groups of 3
    assert varied.shape == (6, 4, 4, 4)
    assert float(varied[:, -1].min()) > 0.3


def noisy(resolution: int = 16) -> Generator:
    torch.manual_seed(0)
    g = Generator(resolution, 1, TINY)
    g.mapping.w_avg.copy_(torch.randn(8))
    for name, parameter in g.named_parameters():
        if name.endswith("noise_strength"):
            torch.nn.init.constant_(parameter, 1.0)
    return g


def test_truncation_reaches_the_layers_asked_for() -> None:
    g, z = noisy(), torch.randn(3, 8)
    w = g.mapping(z)
    torch.testing.assert_close(g.mapping(z, psi=0.0), g.mapping.w_avg.expand(3, 8))
    w_plus = g.broadcast(w)
    assert g.truncate(w_plus, 1.0) is w_plus
    half = g.truncate(w_plus, 0.5, psi_layers=2)
    assert torch.equal(half[:, 2:], w_plus[:, 2:])
    torch.testing.assert_close(half[:, 1], g.mapping.w_avg + 0.5 * (w - g.mapping.w_avg))
    truncated = g.synthesis(g.broadcast(g.mapping(z, 0.7)), "const")
    torch.testing.assert_close(g(z, 0.7, "const"), truncated)
    assert not torch.equal(g(z, 0.7, "const"), g(z, 0.7, "const", psi_layers=2))


def test_noise_is_stored_drawn_or_the_samples_own() -> None:
    g, z = noisy(), torch.randn(3, 8)
    assert torch.equal(g(z, noise="const"), g(z, noise="const"))
    assert not torch.equal(g(z, noise="random"), g(z, noise="random"))
    torch.manual_seed(5)
    drawn = g(z, noise="random")
    torch.manual_seed(5)
    assert torch.equal(drawn, g(z, noise="random"))
    seeds = (1, 2, 3)
    whole = g(z, noise=SampleNoise(seeds))
    assert not torch.equal(whole, g(z, noise="none"))
    torch.testing.assert_close(whole[1:2], g(z[1:2], noise=SampleNoise(seeds[1:2])))
    with pytest.raises(ValueError, match="noise"):
        g(z, noise="maybe")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="batch of 3"):
        g(z, noise=SampleNoise((1, 2)))


def test_each_layer_of_w_plus_has_a_say() -> None:
    g, z = noisy(), torch.randn(3, 8)
    w_plus = g.broadcast(g.mapping(z))
    plain = g.synthesis(w_plus, "none")
    for layer in range(g.num_ws):
        moved = w_plus.clone()
        moved[:, layer] += 1.0
        assert not torch.equal(g.synthesis(moved, "none"), plain), layer


def test_clamp_bounds_what_the_layers_put_out() -> None:
    torch.manual_seed(0)
    model = replace(TINY, conv_clamp=0.5, g_architecture="orig")
    g = Generator(16, 1, model)
    assert float(g(torch.randn(64, 8)).detach().abs().max()) == 0.5


def test_memory_format_changes_nothing_but_rounding() -> None:
    torch.manual_seed(0)
    g = Generator(16, 2, TINY).double()
    other = Generator(16, 2, TINY, ComputeSettings(channels_last=False)).double()
    other.load_state_dict(g.state_dict())
    z = torch.randn(2, 8).double()
    torch.testing.assert_close(g(z, noise="const"), other(z, noise="const"))


@pytest.mark.parametrize("channels", [1, 3])
def test_features_of_the_largest_block_stay_channels_last(channels: int) -> None:
    """With one channel the image itself is in either format."""
    d, seen = Discriminator(32, channels, TINY), []
    d.blocks["32"].conv.register_forward_hook(lambda _, given, made: seen.extend((*given, made)))
    d(torch.randn(2, channels, 32, 32))
    assert all(x.is_contiguous(memory_format=torch.channels_last) for x in seen)
    assert not any(x.is_contiguous() for x in seen)
