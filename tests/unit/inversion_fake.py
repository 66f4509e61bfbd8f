"""A tiny StyleGAN2 to invert, its configuration and its cloud."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sunpipe.config import load_config
from sunpipe.latent import cloud as clouds
from sunpipe.latent import inverter as inverters
from sunpipe.latent.generator import Generator
from sunpipe.models import stylegan2
from sunpipe.normalize_settings import NormalizeSettings
from sunpipe.paths import Layout
from sunpipe.train_settings import ModelSettings, TrainSettings

SIDE, PIXEL = 16, 7e7
CHANNELS = ["Br", "Bt", "Bp"]
NAMES = '["USFLUX", "NETFLUX", "POLSEP", "MEANGAM", "AREA_MM2"]'


def tiny(digest: str = "a" * 64, channels: tuple[str, ...] = ("Br", "Bt", "Bp")) -> Generator:
    """A StyleGAN2 with random weights whose fields are a few hundred gauss."""
    model = ModelSettings(z_dim=6, w_dim=6, mapping_layers=2, channel_base=256, channel_max=16)
    settings = TrainSettings(
        model=model, normalize=NormalizeSettings(kind="linear", scale=500.0, limit=500.0)
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        network = stylegan2.Generator(SIDE, len(channels), model).eval().requires_grad_(False)
    return Generator(network, settings, "00000-tiny", digest, list(channels),
                     ["Gauss"] * len(channels), SIDE, PIXEL, 1.0)  # fmt: skip


def config(*more: str):
    return load_config(
        None, ("name=tiny", "dataset=tiny", f"sample.quantities={NAMES}", "sample.count=96",
               "invert.encoder_kimg=0.64", "invert.steps=120", "invert.starts=3", *more)
    )  # fmt: skip


def shrink(monkeypatch: pytest.MonkeyPatch) -> None:
    """One thread, few patches."""
    torch.set_num_threads(1)
    monkeypatch.setattr(clouds, "SHOWN", 64)
    monkeypatch.setattr(clouds, "DRAWN", 512)
    monkeypatch.setattr(inverters, "HELD_OUT", 64)


def the_cloud(generator: Generator, layout: Layout | None = None) -> clouds.Cloud:
    return clouds.make_cloud(generator, layout or Layout(Path("/nowhere")), config())
