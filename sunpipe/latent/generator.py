"""A trained generator that speaks gauss: z, w and decoded fields."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import TypeAdapter

from sunpipe import checkpoint
from sunpipe.errors import DataError
from sunpipe.files import read_json, sha256
from sunpipe.models import stylegan2
from sunpipe.run import network_identity
from sunpipe.shards.normalize import decode
from sunpipe.shards.order import generator_seed
from sunpipe.stage import log
from sunpipe.train_settings import TrainSettings

Noise = Literal["const", "none"]


@dataclass
class Generator:
    """G_ema of one run.

    Attributes
    ----------
    run : str
        Name of the run folder.
    digest : str
        SHA-256 of the weights file: what directions and samples are tied to.
    channels, units : list of str
    resolution : int
    pixel_cm : float
        Side of a generated pixel on the Sun, cm.
    kimg : float
        Images the discriminator had seen, in thousands.
    """

    network: stylegan2.Generator
    settings: TrainSettings
    run: str
    digest: str
    channels: list[str]
    units: list[str]
    resolution: int
    pixel_cm: float
    kimg: float

    @classmethod
    def load(cls, run_folder: Path, device: str | torch.device | None = None) -> Generator:
        """Load the newest whole checkpoint of a run.

        Raises
        ------
        DataError
            No usable checkpoint, or the folder belongs to another kind of run.
        """
        run_folder = Path(run_folder)
        config: dict[str, Any] = read_json(run_folder / "config.json")
        if "train" not in config:
            raise DataError(
                f"{run_folder} is not a StyleGAN2 run; give the folder of sunpipe train"
            )
        path = checkpoint.newest(run_folder / "checkpoints", log)
        if path is None:
            raise DataError(f"{run_folder} has no complete checkpoint; run sunpipe train first")
        state = checkpoint.load_state(path)
        checkpoint.check_made_of(path, state, network_identity(config))
        settings = TypeAdapter(TrainSettings).validate_python(config["train"])
        data = config["data"]
        network = stylegan2.Generator(data["resolution"], len(data["channels"]), settings.model)
        network.load_state_dict(checkpoint.load_tensors(path, "G_ema"))
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        network.to(device).eval().requires_grad_(False)
        return cls(
            network=network, settings=settings, run=run_folder.name,
            digest=sha256(path / "G_ema.safetensors"), channels=data["channels"],
            units=data["units"], resolution=data["resolution"], pixel_cm=data["pixel_cm"],
            kimg=state["nimg"] / 1000,
        )  # fmt: skip

    @property
    def z_dim(self) -> int:
        """Size of z."""
        return self.settings.model.z_dim

    @property
    def w_dim(self) -> int:
        """Size of w."""
        return self.settings.model.w_dim

    @property
    def num_ws(self) -> int:
        """Layers that take a w."""
        return self.network.num_ws

    @property
    def normalize(self) -> Any:
        """The normalisation the network was trained with."""
        return self.settings.normalize

    @property
    def w_avg(self) -> torch.Tensor:
        """Mean of w, shape (w_dim,)."""
        return self.network.mapping.w_avg

    @property
    def device(self) -> torch.device:
        """Where the network lives."""
        return self.w_avg.device

    def sample_z(self, count: int, seed: int, start: int = 0, purpose: str = "z") -> torch.Tensor:
        """Latents number `start` to ``start + count - 1``: each pure in (seed, number, purpose).

        Returns
        -------
        Tensor, shape (count, z_dim)
        """
        rows = []
        for number in range(start, start + count):
            source = torch.Generator().manual_seed(generator_seed(seed, 0, number, purpose))
            rows.append(torch.randn(self.z_dim, generator=source))
        return torch.stack(rows)

    @torch.no_grad()
    def map(self, z: torch.Tensor, psi: float = 1.0) -> torch.Tensor:
        """Z (B, z_dim) to w (B, w_dim), truncated towards w_avg by `psi`."""
        return self.network.mapping(z.to(self.device), psi)

    @torch.no_grad()
    def fields(self, w: torch.Tensor, noise: Noise = "const") -> torch.Tensor:
        """Decoded fields in physical units.

        Parameters
        ----------
        w : Tensor, shape (B, w_dim) or (B, num_ws, w_dim)
        noise : {"const", "none"}
            The stored noise maps, or none; never random, so that a change of w
            is the only change.

        Returns
        -------
        Tensor, shape (B, C, H, H), gauss
        """
        w = w.to(self.device)
        w_plus = self.network.broadcast(w) if w.ndim == 2 else w
        image = self.network.synthesis(w_plus, noise)
        return decode(image, self.settings.normalize)
