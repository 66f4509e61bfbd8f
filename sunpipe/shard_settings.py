"""The ``[shard]`` section: what a dataset holds."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from sunpipe.setting_types import STRICT, Count, CountOrNone, NonNegative, Positive, Share

PATCHES = ("sharp_vector", "sharp_los")
Product = Literal["sharp_vector", "sharp_los", "hmi_fulldisk", "aia_fulldisk"]
SeriesName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9]{0,15}\.[A-Za-z0-9_]{1,63}$")]
Wavelength = Literal[94, 131, 171, 193, 211, 304, 335, 1600, 1700, 4500]


@dataclass(frozen=True, config=STRICT)
class ShardSettings:
    """``[shard]``: FITS of the archive to HDF5 in physical units.

    `product` is what an image holds: ``sharp_vector`` (Br, Bt, Bp) and
    ``sharp_los`` of patches, ``hmi_fulldisk`` (the line-of-sight field), or
    ``aia_fulldisk`` (one channel per entry of `wavelengths`, and the field when
    `magnetogram` is set, matched within `max_dt_s`).

    Patches: `tile` and `stride` are in native pixels (stride 0: the whole patch
    on a `tile` x `tile` canvas); `reduce` is a whole factor; a tile is kept when
    it holds `min_flux_mx` of unsigned flux in native pixels of at least
    `flux_floor_g` gauss. Disks: `resolution` pixels a side, the solar radius is
    always `disk_share` of half a side (0.794: 976 arcsec at 4096 pixels of 0.6);
    `degradation` corrects AIA's by the shipped table or by `correction_table`,
    `pointing_table` is a saved master pointing table, `register` how level 1 becomes
    1.5: in one interpolation (``affine``), or through ``aiapy`` first.

    `series` names the JSOC series to use where the archive holds several for a
    channel; empty: the definitive one, or the only one.

    At most `max_nan_share` of what an image holds of the patch or disk (padding
    apart) is invalid; `quality` is a policy for QUALITY. Held out are the HARPs
    of `test_harps` and a share `test_share` of all HARPs, or of all blocks of
    `block_days` for disks; records within `gap_days` of the other side are left
    out. `step` is the unit of int16 (gauss); `storage` is ``chunked``
    (bitshuffle + lz4) or ``contiguous`` (plain, for node-local disks).
    """

    product: Product = "sharp_vector"
    series: tuple[SeriesName, ...] = ()
    tile: Count = 128
    stride: CountOrNone = 16
    reduce: Count = 2
    min_flux_mx: NonNegative = 0.0
    flux_floor_g: NonNegative = 100.0
    resolution: Annotated[int, Field(ge=16, le=8192)] = 1024
    disk_share: Annotated[float, Field(gt=0.1, le=1)] = 976 / (0.6 * 2048)
    wavelengths: tuple[Wavelength, ...] = (193,)
    magnetogram: bool = False
    max_dt_s: NonNegative = 60.0
    degradation: bool = True
    correction_table: str | None = None
    pointing_table: str | None = None
    register: Literal["affine", "aiapy"] = "affine"
    max_nan_share: Share = 0.1
    max_saturated_share: Share = 0.001
    quality: Literal["strict", "usual", "lenient"] = "usual"
    test_harps: tuple[int, ...] = ()
    test_share: Share = 0.0
    block_days: Positive = 27.0
    gap_days: NonNegative = 1.0
    dtype: Literal["int16", "float16", "float32"] = "int16"
    step: Annotated[float, Field(gt=0, le=2)] = 0.2
    images_per_shard: Count = 512
    storage: Literal["chunked", "contiguous"] = "chunked"

    def __post_init__(self) -> None:
        if self.tile % self.reduce:
            raise ValueError(f"tile = {self.tile} is not a multiple of reduce = {self.reduce}")
        if len(set(self.wavelengths)) != len(self.wavelengths) or not self.wavelengths:
            raise ValueError("wavelengths must be different and at least one")
        if self.product == "aia_fulldisk" and self.dtype == "int16":
            raise ValueError('dtype = "int16" holds fields in gauss; use "float16" or "float32"'
                             " for aia_fulldisk")  # fmt: skip
        if 2 * self.gap_days >= self.block_days:
            raise ValueError("gap_days must be less than half of block_days")
        matched = self.product == "aia_fulldisk" and len(self.wavelengths) + self.magnetogram > 1
        if matched and self.test_share and self.gap_days * 86400 <= 2 * self.max_dt_s:
            raise ValueError("gap_days must be more than twice max_dt_s, or one image could be"
                             " matched on both sides of the split")  # fmt: skip

    @property
    def is_patch(self) -> bool:
        """Whether images are SHARP patches (else whole disks)."""
        return self.product in PATCHES
