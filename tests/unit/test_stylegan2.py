"""StyleGAN2 against its papers: counts, modulation, resampling, double backward."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from sunpipe.models.ops import Blur, Conv, Dense, ModulatedConv, minibatch_std
from sunpipe.models.stylegan2 import Discriminator, Generator
from sunpipe.train_settings import ModelSettings

TINY = ModelSettings(
    z_dim=8, w_dim=8, mapping_layers=2, channel_base=64, channel_max=8, mbstd_group=2
)


def parameters(network: torch.nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def test_parameter_counts_at_1024_are_the_published_ones() -> None:
    with torch.device("meta"):
        g, d = Generator(1024, 1, ModelSettings()), Discriminator(1024, 1, ModelSettings())
    # G 30.4 M, D 29.0 M for one channel, from the layer formulas of arXiv:1912.04958
    assert parameters(g) == pytest.approx(30.36e6, rel=1e-3)
    assert parameters(d) == pytest.approx(29.01e6, rel=1e-3)
    assert g.num_ws == 18


@pytest.mark.parametrize("resolution", [8, 16, 64])
@pytest.mark.parametrize("channels", [1, 3, 10])
def test_shapes(resolution: int, channels: int) -> None:
    g, d = Generator(resolution, channels, TINY), Discriminator(resolution, channels, TINY)
    image = g(torch.randn(4, 8))
    assert image.shape == (4, channels, resolution, resolution)
    assert d(image).shape == (4,)


@pytest.mark.parametrize("resolution", [0, 4, 48, 100])
def test_other_sizes_are_refused(resolution: int) -> None:
    with pytest.raises(ValueError, match="power of two"):
        Generator(resolution, 1, TINY)


@pytest.mark.parametrize("up", [False, True])
@pytest.mark.parametrize("demodulate", [False, True])
def test_modulated_conv_equals_per_sample_weights(up: bool, demodulate: bool) -> None:
    torch.manual_seed(0)
    layer = ModulatedConv(6, 5, 3, up=up, demodulate=demodulate).double()
    x, style = torch.randn(4, 6, 8, 8).double(), torch.randn(4, 6).double()
    expected = []
    for sample, s in zip(x, style, strict=True):
        weight = layer.weight * layer.gain * s[None, :, None, None]  # eq. 1
        if demodulate:
            weight = weight / (weight.square().sum((1, 2, 3), keepdim=True) + 1e-8).sqrt()  # eq. 3
        if up:
            # zero insertion, convolution, then the filter: no transposed convolution involved
            zeros = torch.zeros(1, 6, 17, 17, dtype=torch.double)
            zeros[:, :, 1:16:2, 1:16:2] = sample
            wide = F.conv2d(F.pad(zeros, (1, 1, 1, 1)), weight.flip(2, 3))
            taps = torch.tensor([1.0, 3.0, 3.0, 1.0]).double()
            kernel = (taps[:, None] * taps / 64 * 4).expand(5, 1, 4, 4)
            expected.append(F.conv2d(wide, kernel, padding=1, groups=5)[0])
        else:
            expected.append(F.conv2d(sample[None], weight, padding=1)[0])
    torch.testing.assert_close(layer(x, style), torch.stack(expected), rtol=1e-6, atol=1e-8)


def test_modulated_conv_is_twice_differentiable() -> None:
    torch.manual_seed(0)
    layer = ModulatedConv(2, 2, 3, up=True).double()
    x = torch.randn(2, 2, 4, 4, dtype=torch.double, requires_grad=True)
    style = torch.rand(2, 2, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradgradcheck(layer, (x, style))


def test_resampling_keeps_a_constant_inside() -> None:
    x = torch.full((1, 2, 8, 8), 3.0)
    up, down = Blur("up", gain=4.0)(x), Blur("down")(x)
    assert up.shape[2:] == (16, 16)
    assert down.shape[2:] == (4, 4)
    torch.testing.assert_close(up[:, :, 2:-2, 2:-2], torch.full((1, 2, 12, 12), 3.0))
    torch.testing.assert_close(down[:, :, 1:-1, 1:-1], torch.full((1, 2, 2, 2), 3.0))


def test_strided_convolution_halves_the_size() -> None:
    assert Conv(3, 4, 3, down=True)(torch.randn(2, 3, 16, 16)).shape == (2, 4, 8, 8)
    assert Conv(3, 4, 1, down=True)(torch.randn(2, 3, 16, 16)).shape == (2, 4, 8, 8)


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


def test_truncation_noise_and_mixing_inputs() -> None:
    torch.manual_seed(0)
    g = Generator(16, 1, TINY)
    g.mapping.w_avg.copy_(torch.randn(8))
    z = torch.randn(3, 8)
    torch.testing.assert_close(g.mapping(z, psi=0.0), g.mapping.w_avg.expand(3, 8))
    for layer in [g.synthesis.first, *g.synthesis.grow, *g.synthesis.refine]:
        torch.nn.init.constant_(layer.noise_strength, 1.0)
    assert torch.equal(g(z, noise="const"), g(z, noise="const"))
    assert not torch.equal(g(z, noise="random"), g(z, noise="random"))
    with pytest.raises(ValueError, match="noise"):
        g(z, noise="maybe")
    w_plus = g.broadcast(g.mapping(z)).clone()
    w_plus[:, -1] += 1.0  # only the last image layer changes: structure stays, values move
    assert not torch.equal(g.synthesis(w_plus, "none"), g(z, noise="none"))
