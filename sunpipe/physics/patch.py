"""One batch of patches and everything that several quantities share, computed once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch

from sunpipe.physics.derivatives import central
from sunpipe.physics.potential import jsoc_potential_field, potential_field

Tensor = torch.Tensor
MU0 = 1.2566370614e-6  # T m / A; 4 pi 1e-7
ZERO = 1e-3  # gauss; HMI stores steps of 0.01 G, so less than this is rounding noise


@dataclass(frozen=True)
class Patches:
    """A batch of vector magnetograms, all float64.

    Attributes
    ----------
    fields : Tensor, (B, 3, H, W)
        Br, Bt, Bp in gauss.
    pixel_cm : Tensor, (B,)
        Side of a pixel in cm.
    mask : Tensor, (B, H, W) bool
        Pixels that count and are finite in all components.
    metres_per_arcsec : Tensor, (B,)
        RSUN_REF / RSUN_OBS.
    jsoc : bool
        Convention: JSOC's published rules, or the physical ones.
    los, los_mask : Tensor, (B, H, W), or None
        Line-of-sight field in gauss, and the pixels that count in it.
    """

    fields: Tensor
    pixel_cm: Tensor
    mask: Tensor
    metres_per_arcsec: Tensor
    jsoc: bool
    los: Tensor | None = None
    los_mask: Tensor | None = None

    @property
    def bz(self) -> Tensor:
        """Upward component (B, H, W)."""
        return self.fields[:, 0]

    @property
    def bx(self) -> Tensor:
        """Westward component."""
        return self.fields[:, 2]

    @cached_property
    def by(self) -> Tensor:
        """Northward component; Bt points south."""
        return -self.fields[:, 1]

    @cached_property
    def bh(self) -> Tensor:
        """Horizontal field strength."""
        return torch.hypot(self.bx, self.by)

    @cached_property
    def strength(self) -> Tensor:
        """|B|."""
        return torch.hypot(self.bh, self.bz)

    @cached_property
    def metres(self) -> Tensor:
        """Side of a pixel in m, (B,)."""
        return self.pixel_cm / 100.0

    @cached_property
    def megametres(self) -> Tensor:
        """Side of a pixel in Mm, (B,)."""
        return self.pixel_cm / 1e8

    @cached_property
    def arcsec(self) -> Tensor:
        """Side of a pixel in arcsec at disk centre, (B,)."""
        return self.metres / self.metres_per_arcsec

    @cached_property
    def area_cm2(self) -> Tensor:
        """Area of a pixel in cm^2, (B,)."""
        return self.pixel_cm**2

    @cached_property
    def jz(self) -> Tensor:
        """Curl dBy/dx - dBx/dy in gauss per pixel; JSOC sets it to 0 on the frame."""
        jz = central(self.by)[0] - central(self.bx)[1]
        if self.jsoc:
            inner = torch.zeros_like(jz[0], dtype=torch.bool)
            inner[1:-1, 1:-1] = True
            jz = torch.where(inner, jz, 0.0)
        return jz

    @cached_property
    def potential(self) -> tuple[Tensor, Tensor]:
        """Potential bx, by in gauss."""
        return (jsoc_potential_field if self.jsoc else potential_field)(self.bz)

    @cached_property
    def shear(self) -> Tensor:
        """Angle between B and the potential field with the observed Bz, in degrees.

        NaN where either vanishes.
        """
        bx, by = self.potential
        dot = self.bx * bx + self.by * by + self.bz.square()
        # The angle from cross and dot product keeps its digits near 0 and 180 degrees; acos
        # does not.
        cross = torch.stack(
            (
                (self.by - by) * self.bz,
                (bx - self.bx) * self.bz,
                self.bx * by - self.by * bx,
            )
        ).norm(dim=0)
        both = self.strength * (bx.square() + by.square() + self.bz.square())
        return torch.where(both > 0, torch.rad2deg(torch.atan2(cross, dot)), torch.nan)
