"""Whole disks as a product: HMI's field, or AIA in one to ten wavelengths, matched in time."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from preprocess.calibrate import (
    DiskImage,
    DiskSettings,
    Limits,
    calibrate_aia,
    calibrate_hmi,
    judge,
)
from preprocess.calibration.degradation import EUV_TABLE, UV_TABLE
from preprocess.calibration.times import utc
from preprocess.dataset.inputs import (
    Input,
    Member,
    check_unchanged,
    files_of,
    stored_keywords,
)
from preprocess.dataset.patch import disk_pixel_cm, number
from preprocess.dataset.product import Image, Mask, Place, Row, simulated
from preprocess.dataset.series import FIELD
from preprocess.dataset.splits import split_of
from preprocess.dataset.table import DISK_FLOATS, DISK_TEXTS, keyword_values
from preprocess.quality import signed
from sunpipe.files import digest, sha256
from sunpipe.fits import read_segment
from sunpipe.fitsfile import FitsError
from sunpipe.shard_settings import ShardSettings

UNCORRECTED = ("4500",)  # visible light is in no response table; its notes have degradation: null
VERSION = 1  # of the calibration; a new one makes datasets anew
IMAGES = ("image", "image_lev1")  # names of AIA's segment in its series


@dataclass(frozen=True)
class OpenDisk:
    """One set of images of the disk in memory."""

    images: list[DiskImage]
    channels: list[str]
    row: Row
    settings: ShardSettings

    def image(self, place: Place) -> tuple[Row, Image, Mask]:
        """The whole disk; see `Opened`."""
        data = np.stack([image.data for image in self.images])
        disk = self.images[0].disk
        if len(self.channels) > 1 and FIELD in self.channels:
            # There is no photosphere off the disk: the corona there stays valid.
            field = data[self.channels.index(FIELD)]
            field[~disk & ~np.isfinite(field)] = 0
        mask: Mask = np.asarray(np.isfinite(data).all(axis=0))
        missing = 1.0 - float(mask[disk].mean())
        if missing > self.settings.max_nan_share:
            raise FitsError(
                "nan_share",
                f"{missing:.3f} of the disk is invalid, {self.settings.max_nan_share} allowed",
            )
        row = self.row | {"nan_share": 1.0 - float(mask.mean())}
        return row, np.where(mask, data, np.float32(0)), mask


class Disks:
    """``hmi_fulldisk`` and ``aia_fulldisk``."""

    def __init__(self, settings: ShardSettings) -> None:
        self.settings = settings
        aia = settings.product == "aia_fulldisk"
        waves = [str(wave) for wave in settings.wavelengths] if aia else []
        fields = [FIELD] if settings.magnetogram or not aia else []
        self.channels = waves + fields
        self.units = ["DN/s"] * len(waves) + ["Gauss"] * len(fields)
        self.segments: tuple[str, ...] = (*IMAGES, FIELD)
        self.resolution = self.tile = settings.resolution
        self.stride, self.reduce = 0, 1
        paths = {settings.correction_table, settings.pointing_table} - {None}
        tables = [EUV_TABLE, UV_TABLE, *(_path(path) for path in sorted(map(str, paths)))]
        sums = [sha256(table) for table in tables if table is not None and table.is_file()]
        self.made_with = f"disks {VERSION} {digest(sums)}"

    def places(self, archive: Path, item: Input) -> list[Place]:
        """One image; see `Product`."""
        return [(0, 0)]

    def _calibrate(self, archive: Path, member: Member, channel: str) -> DiskImage:
        if channel == FIELD:
            segments: tuple[str, ...] = (FIELD,)
        else:
            held = tuple(name for name in IMAGES if name in member.entries)
            segments = held[:1] or IMAGES[:1]
        keywords = stored_keywords(archive, member, segments)
        (path,) = files_of(archive, member, segments)
        sum_ = member.entries[segments[0]].sha256
        segment = read_segment(path, keywords, dtype="float32", sha256=sum_)
        check_unchanged(archive, member, ())  # of the keywords
        settings = self.settings
        limits = Limits(settings.max_nan_share, settings.max_saturated_share)
        judge(segment.header, segment.data, settings.quality, series=member.name.series,
              wavelength=None if channel == FIELD else int(channel), limits=limits,
              name=path.name)  # fmt: skip
        stated = segment.header.get("T_REC")
        if stated is not None and not same_time(str(stated), member.name.t_rec):
            raise FitsError(
                "wrong_record", f"{path.name} has T_REC = {stated}, not {member.name.t_rec}"
            )
        how = DiskSettings(
            resolution=settings.resolution,
            rsun_share=settings.disk_share,
            degradation=settings.degradation and channel not in UNCORRECTED,
            correction_table=_path(settings.correction_table),
            pointing_table=_path(settings.pointing_table),
            register=settings.register,
        )
        if channel == FIELD:
            found = calibrate_hmi(segment, how, name=path.name)
        else:
            found = calibrate_aia(segment, how, path.name)
        check_scale(found, path.name)
        return found

    def open(self, archive: Path, item: Input) -> OpenDisk:
        """Read and calibrate all channels; see `Product`."""
        split = split_of(item.name, self.settings)
        images = [
            self._calibrate(archive, member, channel)
            for member, channel in zip(item.members, self.channels, strict=True)
        ]
        header = images[0].header
        quality = number(header, "QUALITY")
        row: Row = {
            "record": item.record,
            "harpnum": None,
            "t_rec": item.name.t_rec,
            "split": split,
            "simulated": any(simulated(image.header) for image in images),
            "tile_y": 0,
            "tile_x": 0,
            "pixel_cm": disk_pixel_cm(float(header["CDELT1"]), float(header["RSUN_OBS"])),
            "flux_mx": None,
            "flux_share": 1.0,
            "quality": None if quality is None else signed(int(quality)),
            "mu": 1.0,
            "noaa_ars": "",
            "companions": ",".join(member.record for member in item.members[1:]),
            "notes": json.dumps(
                {channel: image.notes for channel, image in
                 zip(self.channels, images, strict=True)}, sort_keys=True),
            **keyword_values(header, DISK_FLOATS, DISK_TEXTS),
            **{f"{card}{axis}": float(header[f"{card.upper()}{axis}"])
               for card in ("crpix", "crval", "cdelt") for axis in (1, 2)},
            "ctype1": str(header["CTYPE1"]),
            "ctype2": str(header["CTYPE2"]),
            "cunit1": "arcsec",
            "cunit2": "arcsec",
        }  # fmt: skip
        return OpenDisk(images, self.channels, row, self.settings)


def same_time(stated: str, t_rec: str) -> bool:
    """Whether a card and a record name are one time; cards of AIA have other spellings.

    JSOC writes ``2013-03-10T12:00:01Z`` in names and ``2013-03-10T12:00:01.000`` in
    files; names leave fractions of a second out.
    """
    one, other = utc(stated), utc(t_rec)
    if one is None or other is None:
        return stated == t_rec
    return abs((one - other).total_seconds()) < 1


def check_scale(image: DiskImage, name: str) -> None:
    """Refuse an image that was enlarged: it would claim detail that nobody observed."""
    observed, made = float(image.notes["scale_in"]), float(image.header["CDELT1"])
    if made < 0.9 * observed:
        raise FitsError(
            "geometry",
            f"{name} has pixels of {observed:.2f} arcsec; shard.resolution would make them"
            f" {made:.2f}",
        )


def _path(text: str | None) -> Path | None:
    return None if text is None else Path(text).expanduser()
