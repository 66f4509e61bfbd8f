"""The random network: the same everywhere, and sensitive at every scale."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sunpipe.evaluate.random_features import SLOPE, RandomFeatures, filters

GOLDEN = -0.40598830580711365  # the last weight of the first level for three channels


def image(count: int = 3, channels: int = 2, side: int = 32) -> torch.Tensor:
    return torch.randn(count, channels, side, side, generator=torch.Generator().manual_seed(0))


def test_weights_are_fixed_for_ever() -> None:
    # numpy's generator promises its stream; a change here makes all older distances incomparable
    assert filters(3, 16, 0).flatten()[16 * 27 - 1].item() == pytest.approx(GOLDEN, rel=1e-6)
    assert torch.equal(filters(3, 16, 1), filters(3, 16, 1))
    assert not torch.equal(filters(3, 16, 0), filters(3, 16, 1))


def test_every_other_filter_sees_no_offset() -> None:
    sums = filters(3, 16, 0).sum(dim=(2, 3)).abs().amax(dim=1)
    assert float(sums[::2].max()) < 1e-6
    assert float(sums[1::2].min()) > 1e-3


def test_a_response_keeps_the_variance_of_its_input() -> None:
    weight = filters(16, 64, 1).double()
    x = torch.randn(8, 16, 32, 32, generator=torch.Generator().manual_seed(1)).double()
    y = torch.nn.functional.leaky_relu(torch.nn.functional.conv2d(x, weight), SLOPE)
    assert float(y.square().mean()) == pytest.approx(1, rel=0.1)


def test_features_are_means_and_spreads_of_responses() -> None:
    network, x = RandomFeatures(2, 32, width=4), image()
    found = network(x)
    assert found.shape == (3, network.dim) == (3, 2 * 4 * 3)
    padded = np.pad(x.double().numpy(), ((0, 0), (0, 0), (1, 1), (1, 1)), mode="reflect")
    weight = filters(2, 4, 0).double().numpy()
    response = sum(
        np.einsum("bchw,oc->bohw", padded[:, :, i : i + 32, j : j + 32], weight[:, :, i, j])
        for i in range(3) for j in range(3)
    )  # fmt: skip
    response = np.where(response > 0, response, SLOPE * response)
    np.testing.assert_allclose(found[:, :4], response.mean(axis=(2, 3)), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found[:, 4:8], response.std(axis=(2, 3)), rtol=1e-4)


def test_the_batch_does_not_matter() -> None:
    network, x = RandomFeatures(2, 32), image(5)
    torch.testing.assert_close(network(x)[3:4], network(x[3:4]), rtol=1e-5, atol=1e-6)


def test_other_images_are_refused() -> None:
    with pytest.raises(ValueError, match="8 pixels"):
        RandomFeatures(1, 4)
    with pytest.raises(ValueError, match="must be"):
        RandomFeatures(1, 32)(image())


def test_a_constant_image_has_no_spread() -> None:
    found = RandomFeatures(1, 16, width=4)(torch.full((1, 1, 16, 16), 0.5)).reshape(2, 2, 4)
    assert float(found[0, 1].abs().max()) < 1e-5
    assert torch.isfinite(found).all()
