"""An analytic generator with the face of `sunpipe.latent.generator.Generator`.

Its bipole is ruled by the first dimensions of w, so that the truth is known:
flux grows with w0, the separation with w1, the twist with w2, the imbalance
with w3; the rest does nothing. In w_plus the layers of `LAYER_OF` rule them.
"""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from sunpipe.normalize_settings import NormalizeSettings

DIMS = 8
LAYER_OF = {0: 3, 1: 0, 2: 2, 3: 1}  # dimension of w to the layer it is taken from


class FakeGenerator:
    def __init__(self, digest: str = "f" * 64, dims: int = DIMS, positive: bool = False) -> None:
        self.digest, self.run = digest, "00000-fake"
        self.w_dim = self.z_dim = dims
        self.num_ws, self.resolution = 4, 32
        self.channels, self.units = ["Bp", "Br", "Bt"], ["G"] * 3  # not the order of `measure`
        self.pixel_cm, self.kimg = 1e8, 1.0
        self.normalize = NormalizeSettings()
        self.positive = positive
        self.calls = 0

    def sample_z(self, count: int, seed: int, start: int = 0, purpose: str = "z") -> torch.Tensor:
        rows = []
        for number in range(start, start + count):
            source = torch.Generator().manual_seed(
                (seed + 7919 * (purpose != "z")) * 1_000_003 + number
            )
            rows.append(torch.randn(self.z_dim, generator=source))
        return torch.stack(rows)

    def map(self, z: torch.Tensor, psi: float = 1.0) -> torch.Tensor:
        return z * psi

    def fields(self, w: torch.Tensor, noise: str = "const") -> torch.Tensor:
        self.calls += 1
        if w.ndim == 3:
            w = torch.stack([w[:, LAYER_OF.get(dim, 0), dim] for dim in range(w.shape[2])], 1)
        w = w.double()[:, :, None, None]
        axis = torch.arange(32, dtype=torch.float64) - 15.5
        y, x = axis[:, None], axis[None, :]
        apart = 6.0 + 1.5 * torch.tanh(w[:, 1])
        size = 1500.0 * torch.exp(0.15 * w[:, 0])
        west = torch.exp(-((x - apart) ** 2 + y**2) / 18)
        east = torch.exp(-((x + apart) ** 2 + y**2) / 18)
        br = size * (west - (0 if self.positive else torch.exp(0.1 * w[:, 3])) * east)
        twist = 0.3 * torch.exp(0.3 * w[:, 2])
        bp = -br * twist * y / 8
        bt = br * twist * torch.sin(x / math.pi)
        return torch.stack([bp, br, bt], dim=1).float()


def install(monkeypatch: pytest.MonkeyPatch, root: Path, fake: FakeGenerator) -> FakeGenerator:
    """Make the stages find `fake` where they look for a trained run."""
    from sunpipe.latent.generator import Generator

    (root / "runs" / "00000-fake").mkdir(parents=True, exist_ok=True)
    monkeypatch.setattr(Generator, "load", lambda folder, device=None: fake)
    return fake
