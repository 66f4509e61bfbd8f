"""Backbones by name: the project's own residual network, or one of timm's.

All take (B, channels, resolution, resolution) and give (B, dim). Nothing is ever
downloaded: weights come from a safetensors file of this disk, or there are none.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from sunpipe.models.encoder import Encoder
from sunpipe.models.torchvision_ops import declare_operators

Tensor = torch.Tensor
RESIDUAL = "residual"
TIMM = "timm:"


def make_backbone(
    name: str, channels: int, resolution: int, width: int, dim: int, weights: Path | None = None
) -> nn.Module:
    """Make a backbone, with random weights or those of a file.

    Parameters
    ----------
    name : str
        ``residual``, or ``timm:`` and a model of timm (``timm:resnet18``).
    channels, resolution : int
        Of the dataset.
    width, dim : int
        First and last stage of ``residual``; timm's models have their own.
    weights : Path, optional
        safetensors of this very network, as a run of ``sunpipe ssl`` keeps them; for
        a timm model also those that timm publishes for it, whose first layer is then
        adapted to the channels.

    Returns
    -------
    nn.Module
        With attributes `channels`, `resolution` and `dim`.

    Raises
    ------
    ValueError
        A name, size or file that does not fit; the message says what does.
    """
    if name == RESIDUAL:
        network: nn.Module = Encoder(channels, resolution, width, dim)
    elif name.startswith(TIMM):
        network = TimmBackbone(name.removeprefix(TIMM), channels, resolution)
    else:
        raise ValueError(f"unknown backbone {name!r}: {RESIDUAL}, or {TIMM} and a model of timm")
    if weights is None:
        return network
    found = _read(weights)
    if _fits(network, found):
        network.load_state_dict(found)
        return network
    if isinstance(network, TimmBackbone):
        return TimmBackbone(network.name, channels, resolution, weights)
    raise ValueError(f"{weights} holds weights of another network than {name}")


def _read(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise ValueError(f"cannot read weights from {path} as safetensors ({error})") from None


def _fits(network: nn.Module, found: dict[str, Tensor]) -> bool:
    wanted = network.state_dict()
    return wanted.keys() == found.keys() and all(
        wanted[name].shape == found[name].shape for name in wanted
    )


class TimmBackbone(nn.Module):
    """A model of timm without its classifier: the pooled features.

    Parameters
    ----------
    name : str
        Of timm's registry.
    channels, resolution : int
        Of the dataset. Transformers are made for the resolution; convolutions take
        any that their strides leave something of.
    weights : Path, optional
        safetensors as timm publishes them for this model.
    """

    def __init__(
        self, name: str, channels: int, resolution: int, weights: Path | None = None
    ) -> None:
        super().__init__()
        declare_operators()
        try:
            import timm
        except ModuleNotFoundError as error:
            raise ValueError(
                f"backbone {TIMM}{name} needs the package {error.name}; install sunpipe[ssl]"
            ) from None
        if name not in timm.list_models():
            close = ", ".join(timm.list_models(f"*{name.split('_')[0]}*")[:5])
            raise ValueError(
                f"timm has no model {name!r}" + (f"; it has {close}, ..." if close else "")
            )
        self.name, self.channels, self.resolution = name, channels, resolution
        options: dict[str, Any] = {"in_chans": channels, "num_classes": 0}
        if weights is not None:
            options |= {"pretrained": True, "pretrained_cfg_overlay": {"file": str(weights)}}
        try:
            self.network = _create(name, resolution, options)
        except (RuntimeError, KeyError, AssertionError, ValueError) as error:
            said = str(error).strip().splitlines()
            what = f" with {weights}" if weights else ""
            raise ValueError(f"timm cannot make {name}{what}: {said[0] if said else error!r}"
                             ) from None  # fmt: skip
        self.dim = self._measure()

    def _measure(self) -> int:
        """Length of the features; refuses a size that the network leaves nothing of."""
        self.network.eval()
        shape = (1, self.channels, self.resolution, self.resolution)
        try:
            with torch.no_grad():
                found = self.network(torch.zeros(shape))
        except (RuntimeError, AssertionError, ValueError) as error:
            said = str(error).strip().splitlines()
            raise ValueError(
                f"timm's {self.name} does not take {self.resolution} x {self.resolution} pixels"
                f" ({said[0] if said else error!r})"
            ) from None
        finally:
            self.network.train()
        if found.ndim != 2 or not found.shape[1]:
            raise ValueError(f"timm's {self.name} gives no feature vector; take another backbone")
        return int(found.shape[1])

    def forward(self, x: Tensor) -> Tensor:
        """Normalised fields to features; other shapes are refused with a ValueError."""
        wanted = (self.channels, self.resolution, self.resolution)
        if tuple(x.shape[1:]) != wanted:
            raise ValueError(f"the encoder takes (B, {wanted}), not {tuple(x.shape)}")
        features: Tensor = self.network(x)
        return features


def _create(name: str, resolution: int, options: dict[str, Any]) -> nn.Module:
    """With the image size where the model has one; others do not know the word."""
    import timm

    try:
        return timm.create_model(name, img_size=resolution, **options)
    except TypeError as error:
        if "img_size" not in str(error):
            raise ValueError(str(error)) from None
    return timm.create_model(name, **options)
