"""SHARP patches as a product: the vector field, or the line-of-sight field."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from preprocess.dataset.inputs import (
    FIELD,
    Input,
    Member,
    check_unchanged,
    files_of,
    stored_keywords,
)
from preprocess.dataset.los import read_los
from preprocess.dataset.patch import centre_mu, number, tile_wcs
from preprocess.dataset.product import Image, Mask, Place, Row, simulated
from preprocess.dataset.splits import split_of
from preprocess.dataset.table import SHARP_FLOATS, SHARP_TEXTS, keyword_values
from preprocess.quality import Policy, refusal, signed
from sunpipe.errors import DataError
from sunpipe.fits import COMPONENTS, VectorRecord, peek_shape, read_vector
from sunpipe.fitsfile import FitsError
from sunpipe.shard_settings import ShardSettings
from sunpipe.shards.cut import cut, missing_share, reduce_field, tile_flux, tile_grid


def check_quality(header: Mapping[str, Any], policy: Policy, required: bool) -> None:
    """Refuse a record by its QUALITY."""
    quality = number(header, "QUALITY")
    if quality is None:
        if required or header.get("QUALITY") is not None:
            raise FitsError("quality", f"the record has QUALITY = {header.get('QUALITY')!r}")
    elif quality % 1 or not -(2**31) <= quality < 2**32:
        raise FitsError("quality", f"QUALITY = {quality:g} is not 32 bits")
    elif why := refusal(int(quality), policy):
        raise FitsError("quality", why)


VERSION = 1  # of how a patch becomes images; a new one makes datasets anew


@dataclass(frozen=True)
class OpenPatch:
    """One patch in memory."""

    found: VectorRecord
    shared: Row
    settings: ShardSettings
    flux: float

    def image(self, place: Place) -> tuple[Row, Image, Mask]:
        """One tile; see `Opened`."""
        found, settings = self.found, self.settings
        tile = cut(found.fields, place, settings.tile)
        flux = tile_flux(tile[0], found.pixel_cm, settings.flux_floor_g)
        if flux < settings.min_flux_mx:
            raise FitsError("low_flux", f"{flux:.3e} Mx is below {settings.min_flux_mx:.3e} Mx")
        image, mask = reduce_field(tile, settings.reduce)
        height, width = found.fields.shape[1:]
        missing = missing_share(mask, place, (height, width), settings.reduce)
        if missing > settings.max_nan_share or not mask.any():
            raise FitsError(
                "nan_share",
                f"{missing:.3f} of the tile's share of the patch is invalid,"
                f" {settings.max_nan_share} allowed",
            )
        row = self.shared | {
            "tile_y": place[0],
            "tile_x": place[1],
            "pixel_cm": found.pixel_cm * settings.reduce,
            "flux_mx": flux,
            "flux_share": flux / self.flux if self.flux > 0 else 0.0,
            "nan_share": 1.0 - float(mask.mean()),
            **tile_wcs(found.header, place, settings.reduce),
        }
        return row, image, mask


class Patches:
    """``sharp_vector`` and ``sharp_los``."""

    def __init__(self, settings: ShardSettings) -> None:
        vector = settings.product == "sharp_vector"
        self.settings = settings
        self.channels = list(COMPONENTS) if vector else ["Blos"]
        self.units = ["Gauss"] * len(self.channels)
        self.segments: tuple[str, ...] = COMPONENTS if vector else (FIELD,)
        self.tile, self.stride, self.reduce = settings.tile, settings.stride, settings.reduce
        self.resolution = settings.tile // settings.reduce
        self.made_with = f"patches {VERSION}"

    def places(self, archive: Path, item: Input) -> list[Place]:
        """Corners of the tiles; see `Product`."""
        shape = peek_shape(files_of(archive, item.members[0], self.segments)[0])
        return [(y, x) for y, x in tile_grid(shape, self.tile, self.stride).tolist()]

    def _read(self, archive: Path, member: Member, keywords: dict[str, Any]) -> VectorRecord:
        """The files of a record, refused when they are not what was fetched."""
        paths = files_of(archive, member, self.segments)
        digests = [member.entries[segment].sha256 for segment in self.segments]
        series = member.name.series
        if len(paths) == 1:
            return read_los(paths[0], keywords, series, digests[0])
        br, bt, bp = paths
        return read_vector(br, bt, bp, keywords=keywords, series=series, sha256=digests)

    def open(self, archive: Path, item: Input) -> OpenPatch:
        """Read a patch; see `Product`."""
        (member,) = item.members
        split = split_of(member.name, self.settings)
        keywords = stored_keywords(archive, member, self.segments)
        check_quality(keywords, self.settings.quality, required=False)
        found = self._read(archive, member, keywords)
        check_unchanged(archive, member, ())  # keywords.json alone
        if found.record != member.record:
            raise FitsError("wrong_record", f"the files are {found.record}, not {member.record}")
        check_quality(found.header, self.settings.quality, required=True)
        try:
            tile_wcs(found.header, (0, 0), self.reduce)
        except DataError as error:
            raise FitsError("geometry", str(error)) from None
        header = found.header
        shared = {
            "record": member.record,
            "harpnum": found.harpnum,
            "t_rec": found.t_rec,
            "split": split,
            "simulated": simulated(header),
            "quality": signed(int(header["QUALITY"])),  # type: ignore[arg-type]
            "mu": centre_mu(header),
            "noaa_ars": str(header.get("NOAA_ARS", header.get("NOAA_AR", ""))),
            "companions": "",
            "notes": "{}",
            **keyword_values(header, SHARP_FLOATS, SHARP_TEXTS),
        }
        floor = self.settings.flux_floor_g
        flux = tile_flux(found.fields[0], found.pixel_cm, floor)
        return OpenPatch(found, shared, self.settings, flux)
