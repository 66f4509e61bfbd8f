"""DiffAugment: differentiable augmentation of real and generated images.

Zhao et al. 2020 (arXiv:2006.10738, section 3 and the settings published with
it). What a translation uncovers and a cutout covers is filled with what 0 G or
0 DN/s is in network range: quiet Sun for a field, dark sky for an intensity.
Colour is for intensities alone: a field in gauss has no brightness to change.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from sunpipe.train.chance import Chance

Tensor = torch.Tensor
Fill = float | tuple[float, ...]
Strength = Tensor | float | None
INTENSITIES = ("DN/s",)
SHIFT, HOLE = 0.125, 0.5  # shares of the side


class _Shift(torch.autograd.Function):
    """Whole-pixel shifts; the adjoint is the opposite shift with 0 for fill.

    One copy per sample, in both directions: an index per pixel costs several
    times the memory traffic, and scatters in the backward pass.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, down: list[int], right: list[int], fill: Tensor) -> Tensor:
        ctx.back = [-dy for dy in down], [-dx for dx in right]
        height, width = x.shape[2:]
        out = torch.empty_like(x)  # of the same memory format
        out.copy_(fill)
        for new, old, dy, dx in zip(out, x, down, right, strict=True):
            new[:, max(dy, 0) : height + min(dy, 0), max(dx, 0) : width + min(dx, 0)] = old[
                :, max(-dy, 0) : height - max(dy, 0), max(-dx, 0) : width - max(dx, 0)
            ]
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        return _Shift.apply(gradient, *ctx.back, gradient.new_zeros(())), None, None, None


def shift(x: Tensor, down: Sequence[int], right: Sequence[int], fill: Tensor) -> Tensor:
    """Move each image by whole pixels, no further than its size; `fill` where nothing was.

    Parameters
    ----------
    x : Tensor, (B, C, H, W)
    down, right : B whole numbers each
        Rows and columns that the content moves by, towards larger indices.
    fill : Tensor, () or (C, 1, 1)
    """
    return _Shift.apply(x, list(down), list(right), fill)


def _each(numbers: Tensor) -> Tensor:
    """(B,) to (B, 1, 1, 1)."""
    return numbers[:, None, None, None]


def hole(
    x: Tensor, row: Tensor, column: Tensor, size: tuple[int, int], fill: Tensor,
    chosen: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Cover a rectangle of `size`, centred on each image's (`row`, `column`), with `fill`.

    Parameters
    ----------
    x : Tensor, (B, C, H, W)
    row, column : Tensor of int64, (B,)
    size : tuple of int
        Height and width.
    fill : Tensor, () or (C, 1, 1)
    chosen : Tensor of bool, (B,), optional
        Images to cover; all when missing.
    """
    inside = []
    for length, centre, side in zip(x.shape[2:], (row, column), size, strict=True):
        place = torch.arange(length, device=x.device)[None]
        first = centre[:, None] - side // 2
        inside.append((place >= first) & (place < first + side))
    rows, columns = inside
    if chosen is not None:
        rows = rows & chosen[:, None]
    return torch.where((rows[:, :, None] & columns[:, None, :])[:, None], fill.to(x.dtype), x)


@dataclass(frozen=True)
class Draw:
    """Random numbers of one operation, and which samples it is applied to (None: all)."""

    chance: Chance
    name: str
    chosen: Tensor | None

    def uniform(self, low: float, high: float, neutral: float, like: Tensor) -> Tensor:
        """One number per sample, (B, 1, 1, 1); `neutral` for those not chosen."""
        drawn = low + (high - low) * self.chance.uniform(self.name)
        if self.chosen is not None:
            drawn = torch.where(self.chosen, drawn, neutral)
        return _each(drawn.to(like.dtype))


def _translation(x: Tensor, fill: Tensor, draw: Draw) -> Tensor:
    # On the host, where copies are started: read back from a device they would wait for it.
    here = Chance(draw.chance.seeds, torch.device("cpu"))
    reach = [int(length * SHIFT + 0.5) for length in x.shape[2:]]
    down, right = (
        here.integers(f"{draw.name}.{axis}", -most, most + 1).tolist()
        for axis, most in zip("yx", reach, strict=True)
    )
    moved = shift(x, down, right, fill)
    return moved if draw.chosen is None else torch.where(_each(draw.chosen), moved, x)


def _cutout(x: Tensor, fill: Tensor, draw: Draw) -> Tensor:
    height, width = x.shape[2:]
    tall, wide = int(height * HOLE + 0.5), int(width * HOLE + 0.5)
    row = draw.chance.integers(f"{draw.name}.y", 0, height + 1 - tall % 2)
    column = draw.chance.integers(f"{draw.name}.x", 0, width + 1 - wide % 2)
    return hole(x, row, column, (tall, wide), fill, draw.chosen)


def _brightness(x: Tensor, fill: Tensor, draw: Draw) -> Tensor:
    return x + draw.uniform(-0.5, 0.5, 0.0, x)


def _saturation(x: Tensor, fill: Tensor, draw: Draw) -> Tensor:
    if x.shape[1] == 1:
        return x
    return torch.lerp(x.mean(dim=1, keepdim=True), x, draw.uniform(0.0, 2.0, 1.0, x))


def _contrast(x: Tensor, fill: Tensor, draw: Draw) -> Tensor:
    middle = x.mean(dim=(1, 2, 3), keepdim=True)
    return torch.lerp(middle, x, draw.uniform(0.5, 1.5, 1.0, x))


Operation = Callable[[Tensor, Tensor, Draw], Tensor]
POLICIES: dict[str, dict[str, Operation]] = {
    "translation": {"translation": _translation},
    "cutout": {"cutout": _cutout},
    "color": {"brightness": _brightness, "saturation": _saturation, "contrast": _contrast},
}


def check_policy(policy: Sequence[str], units: Sequence[str]) -> None:
    """Refuse unknown augmentations, and ``color`` for what is not an intensity.

    Parameters
    ----------
    policy : sequence of str
    units : sequence of str
        Of the channels, as in ``dataset.json``.

    Raises
    ------
    ValueError
        Names the augmentation, or the channel and its unit.
    """
    if unknown := [name for name in policy if name not in POLICIES]:
        raise ValueError(f"unknown augmentation {', '.join(unknown)}; known: {', '.join(POLICIES)}")
    if "color" in policy and policy[0] != "color":
        raise ValueError("color must come first: after the others it would change their fill")
    for place, unit in enumerate(units):
        if "color" in policy and unit not in INTENSITIES:
            raise ValueError(
                f"color is for intensities: channel {place + 1} of {len(units)} is in {unit}, and a"
                " field of both signs has no brightness"
            )


@functools.lru_cache(maxsize=16)
def _fill(fill: Fill, device: torch.device, dtype: torch.dtype) -> Tensor:
    """`fill` as a tensor () or (C, 1, 1), copied to the device once."""
    shape = () if isinstance(fill, float | int) else (len(fill), 1, 1)
    return torch.tensor(fill, dtype=dtype).reshape(shape).to(device)


def augment(
    images: Tensor, policy: Sequence[str], fill: Fill, chance: Chance, p: Strength = None
) -> Tensor:
    """Augment each image at random; differentiable in the images, any number of times.

    Parameters
    ----------
    images : Tensor, (B, C, H, W)
        Network range, any float type, which is kept.
    policy : sequence of str
        In this order: ``translation`` by whole pixels up to an eighth of the side;
        ``cutout`` of half the side, its centre anywhere in the image; ``color``,
        that is brightness + U(-0.5, 0.5), saturation times U(0, 2) about the mean
        of the channels, contrast times U(0.5, 1.5) about the mean of the image.
    fill : float or tuple of float
        What 0 G or 0 DN/s is in network range, or one number per channel
        (`NormalizeSettings.zero`).
    chance : Chance
        Of these B samples; a sample's augmentation depends on it alone.
    p : Tensor () or float, optional
        Probability of each operation, one draw per sample and operation; always
        applied when missing. A tensor on a device is not waited for.
    """
    if len(chance) != len(images):
        raise ValueError(f"chance for {len(chance)} samples, {len(images)} images")
    if isinstance(fill, tuple) and len(fill) != images.shape[1]:
        raise ValueError(f"fill lists {len(fill)} channels, the images have {images.shape[1]}")
    filling = _fill(fill, images.device, images.dtype)
    for place, word in enumerate(policy):
        for operation, apply in POLICIES[word].items():
            name = f"augment.{place}.{operation}"
            chosen = None if p is None else chance.uniform(f"{name}.chosen") < p
            images = apply(images, filling, Draw(chance, name, chosen))
    return images
