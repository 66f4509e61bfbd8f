"""Features of a fixed random convolutional network: nothing to train, nothing to download.

Networks with random weights rank generators much as trained ones do, without a
bias towards photographs (arXiv:2208.09218; arXiv:2002.09797, section 3.2). Here
every scale is looked at by itself, because fine structure is what fails first.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import nn

Tensor = torch.Tensor
WIDTH = 16  # filters per scale; few, since a covariance of d features wants many more images than d
SLOPE = 0.2
COARSEST = 8  # pixels; below it a 3 x 3 filter sees nothing but edges
KEY = 0xFEA7  # part of the seed; another one makes other distances


def filters(channels: int, width: int, level: int) -> Tensor:
    """Weights (`width`, `channels`, 3, 3) of one level, the same on every machine.

    Of variance ``2 / ((1 + slope^2) fan_in)`` (He et al. 2015, eq. 15). The sum
    over the pixels of every other filter is 0, so that half of the features see
    structure only and no offset.
    """
    source = np.random.default_rng([KEY, channels, width, level])
    weight = source.standard_normal((width, channels, 3, 3))
    weight[::2] -= weight[::2].mean(axis=(2, 3), keepdims=True)
    weight[::2] *= math.sqrt(9 / 8)  # what taking out the mean took of the variance
    weight *= math.sqrt(2 / ((1 + SLOPE**2) * channels * 9))
    return torch.from_numpy(weight.astype(np.float32))


class RandomFeatures(nn.Module):
    """Images (B, C, H, W) in network range to features (B, `dim`).

    At each scale a 3 x 3 convolution sees the image at that scale beside the
    responses of the scale before; mean and standard deviation of each response
    over the image are the features; then both are halved by averaging.

    Parameters
    ----------
    channels : int
        Of the images.
    resolution : int
        H = W; scales go from there to 8 pixels.
    width : int
        Filters per scale.

    Raises
    ------
    ValueError
        Images under 8 pixels.
    """

    def __init__(self, channels: int, resolution: int, width: int = WIDTH) -> None:
        super().__init__()
        if resolution < COARSEST:
            raise ValueError(f"random features need {COARSEST} pixels, not {resolution}")
        self.channels, self.resolution = channels, resolution
        self.levels = int(math.log2(resolution / COARSEST)) + 1
        self.dim = 2 * width * self.levels
        for level in range(self.levels):
            inputs = channels + (width if level else 0)
            self.register_buffer(f"filter{level}", filters(inputs, width, level), persistent=False)

    @torch.no_grad()
    def forward(self, image: Tensor) -> Tensor:
        """Features, float32."""
        wanted = (self.channels, self.resolution, self.resolution)
        if tuple(image.shape[1:]) != wanted:
            raise ValueError(f"the images must be (B, {wanted}), not {tuple(image.shape)}")
        image = image.float()
        found, seen = [], image
        for level in range(self.levels):
            padded = nn.functional.pad(seen, (1, 1, 1, 1), mode="reflect")
            # TF32 would make the distances of one device differ from those of another
            with torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
                response = nn.functional.conv2d(padded, getattr(self, f"filter{level}"))
            response = nn.functional.leaky_relu(response, SLOPE)
            spread, mean = torch.var_mean(response, dim=(2, 3), correction=0)
            found += [mean, spread.sqrt()]
            image = nn.functional.avg_pool2d(image, 2)
            seen = torch.cat([image, nn.functional.avg_pool2d(response, 2)], dim=1)
        return torch.cat(found, dim=1)
