"""The pixels that count in a batch of images, as one flat list."""

from __future__ import annotations

from functools import cached_property

import torch

Tensor = torch.Tensor


class Region:
    """The pixels of a mask, image after image, with their neighbours.

    All quantities are sums over such a list. Working on it, not on the images,
    leaves out the pixels that do not count (five of six in HARP 377) and keeps
    NaN out of every derivative, forward and backward.

    Parameters
    ----------
    mask : Tensor, (B, H, W) bool
        The P pixels that count; images of at least 3 x 3.
    valid : Tensor, (B, H, W) bool
        Pixels that hold a value; a derivative needs four valid neighbours.
    """

    def __init__(self, mask: Tensor, valid: Tensor) -> None:
        self.mask = mask
        self.valid = valid
        self.height, self.width = mask.shape[1:]

    @cached_property
    def index(self) -> Tensor:
        """Places in the flattened batch, (P,)."""
        return self.mask.flatten().nonzero()[:, 0]

    @cached_property
    def lengths(self) -> Tensor:
        """Number of pixels of each image, (B,)."""
        return self.mask.sum(dim=(1, 2))

    @cached_property
    def column(self) -> Tensor:
        """Place along x, (P,)."""
        return self.index % self.width

    @cached_property
    def row(self) -> Tensor:
        """Place along y, (P,)."""
        return self.index // self.width % self.height

    @cached_property
    def on_frame(self) -> Tensor:
        """Whether the pixel lies on the outer one-pixel frame, (P,)."""
        frame = torch.ones_like(self.mask)
        frame[:, 1:-1, 1:-1] = False
        return self.gather(frame)

    @cached_property
    def inner(self) -> Tensor:
        """Whether all four neighbours exist and are valid, (P,)."""
        valid = self.valid
        whole = torch.zeros_like(valid)
        whole[:, 1:-1, 1:-1] = (
            valid[:, 1:-1, :-2] & valid[:, 1:-1, 2:] & valid[:, :-2, 1:-1] & valid[:, 2:, 1:-1]
        )
        return self.gather(whole)

    @cached_property
    def _neighbours(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Places of the pixels to the east, west, south and north; of any pixel on the frame."""
        inner = torch.where(self.on_frame, self.width + 1, self.index)
        return inner - 1, inner + 1, inner - self.width, inner + self.width

    def gather(self, image: Tensor) -> Tensor:
        """Values of an image in the pixels, (B, H, W) -> (P,)."""
        return image.flatten().index_select(0, self.index)

    def sides(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Values to the east, west, south and north; without meaning outside `inner`."""
        flat = image.flatten()
        east, west, south, north = (flat.index_select(0, place) for place in self._neighbours)
        return east, west, south, north

    def differences(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Central differences along x and y, per pixel; without meaning outside `inner`."""
        east, west, south, north = self.sides(image)
        return 0.5 * (west - east), 0.5 * (north - south)

    def sum(self, values: Tensor, where: Tensor | None = None) -> Tensor:
        """Sum over each image, in float64; NaN where no pixel counts. (P,) -> (B,).

        Parameters
        ----------
        values : Tensor, (P,)
        where : Tensor, (P,) bool, optional
            Pixels to add; all when missing.
        """
        if where is not None:
            values = torch.where(where, values, 0.0)
        return torch.where(self.count(where) > 0, self._reduce(values), torch.nan)

    def mean(self, values: Tensor, where: Tensor | None = None) -> Tensor:
        """Mean over each image, in float64; NaN where no pixel counts. (P,) -> (B,)."""
        return self.sum(values, where) / self.count(where)

    def count(self, where: Tensor | None = None) -> Tensor:
        """Number of pixels of each image, (B,)."""
        return self.lengths if where is None else self._reduce(where).long()

    def _reduce(self, values: Tensor) -> Tensor:
        if len(self.mask) == 1:
            return values.sum(dtype=torch.float64)[None]
        return torch.segment_reduce(values.double(), "sum", lengths=self.lengths, initial=0.0)
