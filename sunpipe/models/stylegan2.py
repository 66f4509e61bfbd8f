"""StyleGAN2: the generator, from z over w and w_plus to images.

Karras et al. 2020 (arXiv:1912.04958). Any power-of-two size from 8, any number
of channels. Latents are called z, w and w_plus (one w per layer).
"""

from __future__ import annotations

import torch
from torch import nn

from sunpipe.models.discriminator import Discriminator
from sunpipe.models.mapping import Mapping
from sunpipe.models.stripes import Stripes
from sunpipe.models.synthesis import NoiseChoice, Synthesis
from sunpipe.train_settings import ComputeSettings, ModelSettings

__all__ = ["Discriminator", "Generator"]


class Generator(nn.Module):
    """Mapping and synthesis.

    Parameters
    ----------
    resolution, channels : int
        Size of the image; they come from the shards.
    model : ModelSettings
    compute : ComputeSettings, optional
    stripes : Stripes, optional
        Ranks that share an image, from ``compute.stripes_from`` on; all must call together.
    """

    def __init__(
        self, resolution: int, channels: int, model: ModelSettings,
        compute: ComputeSettings = ComputeSettings(), stripes: Stripes | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.mapping = Mapping(model)
        self.synthesis = Synthesis(resolution, channels, model, compute, stripes)
        self.num_ws = self.synthesis.num_ws

    def broadcast(self, w: torch.Tensor) -> torch.Tensor:
        """(B, w_dim) to w_plus (B, num_ws, w_dim), the same w in every layer."""
        return w[:, None, :].expand(-1, self.num_ws, -1)

    def truncate(
        self, w_plus: torch.Tensor, psi: float, psi_layers: int | None = None
    ) -> torch.Tensor:
        """Pull the first `psi_layers` layers (all by default) towards w_avg by `psi`.

        Coarse layers alone keep the detail of each image: arXiv:1812.04948,
        appendix B.
        """
        if psi == 1.0:
            return w_plus
        layers = self.num_ws if psi_layers is None else psi_layers
        first = torch.lerp(self.mapping.w_avg, w_plus[:, :layers], psi)
        return torch.cat([first, w_plus[:, layers:]], dim=1)

    def forward(
        self, z: torch.Tensor, psi: float = 1.0, noise: NoiseChoice = "random",
        psi_layers: int | None = None,
    ) -> torch.Tensor:  # fmt: skip
        """Images (B, C, H, H) in network range from z (B, z_dim)."""
        w_plus = self.truncate(self.broadcast(self.mapping(z)), psi, psi_layers)
        return self.synthesis(w_plus, noise)
