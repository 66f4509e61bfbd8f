"""One batch of patches and everything that several quantities share, computed once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch

from sunpipe.physics.derivatives import root
from sunpipe.physics.potential import jsoc_potential, potential_field
from sunpipe.physics.region import Region

Tensor = torch.Tensor
MU0 = 1.2566370614e-6  # T m / A; 4 pi 1e-7
ZERO = 1e-3  # gauss; HMI stores steps of 0.01 G, so less than this is rounding noise


@dataclass(frozen=True)
class Patches:
    """A batch of magnetograms, of one float type.

    Attributes
    ----------
    fields : Tensor, (B, 3, H, W)
        Br, Bt, Bp in gauss, 0 where not finite.
    valid, mask : Tensor, (B, H, W) bool
        Pixels with all three components, and those of them that count.
    pixel_cm : Tensor, (B,)
        Side of a pixel in cm.
    metres_per_arcsec : Tensor, (B,)
        RSUN_REF / RSUN_OBS.
    jsoc : bool
        Convention: JSOC's published rules, or the physical ones.
    los, los_valid, los_mask : Tensor, (B, H, W), or None
        Line-of-sight field in gauss, 0 where not finite; its valid pixels; those that count.
    active : Tensor, (B, H, W), or None
        Area of the active pixels in pixels, 0 elsewhere.
    vector : bool
        Whether `fields` was measured; else it is 0 and only `los` counts.
    """

    fields: Tensor
    valid: Tensor
    mask: Tensor
    pixel_cm: Tensor
    metres_per_arcsec: Tensor
    jsoc: bool
    los: Tensor | None = None
    los_valid: Tensor | None = None
    los_mask: Tensor | None = None
    active: Tensor | None = None
    vector: bool = True

    @cached_property
    def region(self) -> Region:
        """The pixels that count; every (P,) below is in its order."""
        return Region(self.mask, self.valid)

    @cached_property
    def los_region(self) -> Region | None:
        """The pixels that count in the line-of-sight field."""
        if self.los_mask is None or self.los_valid is None:
            return None
        return Region(self.los_mask, self.los_valid)

    @cached_property
    def bz(self) -> Tensor:
        """Upward component (P,)."""
        return self.region.gather(self.fields[:, 0])

    @cached_property
    def bx(self) -> Tensor:
        """Westward component (P,)."""
        return self.region.gather(self.fields[:, 2])

    @cached_property
    def by(self) -> Tensor:
        """Northward component (P,); Bt points south."""
        return -self.region.gather(self.fields[:, 1])

    @cached_property
    def _bh2(self) -> Tensor:
        return self.fields[:, 1].square() + self.fields[:, 2].square()

    @cached_property
    def bh_image(self) -> Tensor:
        """Horizontal field strength, (B, H, W)."""
        return root(self._bh2)

    @cached_property
    def strength_image(self) -> Tensor:
        """|B|, (B, H, W)."""
        return root(self._bh2 + self.fields[:, 0].square())

    @cached_property
    def bh(self) -> Tensor:
        """Horizontal field strength (P,)."""
        return self.region.gather(self.bh_image)

    @cached_property
    def strength(self) -> Tensor:
        """|B|, (P,)."""
        return self.region.gather(self.strength_image)

    @cached_property
    def is_blank(self) -> Tensor:
        """Whether the field is 0 in all pixels that count, (B,)."""
        return self.region.sum(self.strength.detach()) == 0

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
        """Curl dBy/dx - dBx/dy in gauss per pixel, (P,); 0 where it is unknown."""
        across = -self.region.differences(self.fields[:, 1])[0]
        along = self.region.differences(self.fields[:, 2])[1]
        return torch.where(self.region.inner, across - along, 0.0)

    @cached_property
    def has_jz(self) -> Tensor:
        """Pixels that count for currents, (P,); JSOC takes Jz on the frame as 0, not as unknown."""
        known = self.region.inner
        if not self.jsoc:
            return known
        some = (self.region.count(known) > 0).repeat_interleave(self.region.lengths)
        return (known | self.region.on_frame) & some  # zeros of the frame alone are no measurement

    @cached_property
    def potential(self) -> tuple[Tensor, Tensor]:
        """Potential bx, by in gauss, (P,) each."""
        if not self.jsoc:
            bx, by = potential_field(self.fields[:, 0])
            return self.region.gather(bx), self.region.gather(by)
        dx, dy = self.region.differences(jsoc_potential(self.fields[:, 0], self.valid))
        frame = self.region.on_frame
        return torch.where(frame, 0.0, -dx), torch.where(frame, 0.0, -dy)

    @cached_property
    def has_shear(self) -> Tensor:
        """Pixels where neither B nor the potential field vanishes, (P,)."""
        bx, by = self.potential
        return (self.strength > 0) & (bx.square() + by.square() + self.bz.square() > 0)

    @cached_property
    def shear(self) -> Tensor:
        """Angle between B and the potential field with the observed Bz, in degrees, (P,).

        0 outside `has_shear`; NaN where the products of the fields exceed the float type.
        """
        bx, by = self.potential
        dot = self.bx * bx + self.by * by + self.bz.square()
        # The angle from cross and dot product keeps its digits near 0 and 180 degrees; acos
        # does not.
        cross = root(
            ((self.by - by) * self.bz).square()
            + ((bx - self.bx) * self.bz).square()
            + (self.bx * by - self.by * bx).square()
        )
        known = self.has_shear
        angle = torch.rad2deg(torch.atan2(cross, torch.where(known, dot, 1.0)))
        return torch.where(torch.isfinite(cross) & torch.isfinite(dot), angle, torch.nan)
