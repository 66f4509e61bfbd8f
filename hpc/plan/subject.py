"""What a plan is about: the images, as they are or as the configuration will make them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sunpipe.errors import DataError
from sunpipe.paths import Layout
from sunpipe.settings import Config
from sunpipe.shard_settings import ShardSettings

ITEM_BYTES = {"int16": 2, "float16": 2, "float32": 4}
FIELDS = {"sharp_vector": ("Br", "Bt", "Bp"), "sharp_los": ("Blos",),
          "hmi_fulldisk": ("magnetogram",)}  # fmt: skip


@dataclass(frozen=True)
class Subject:
    """Images of a dataset.

    Attributes
    ----------
    images, trained : int or None
        All of them, and those of the training split; None before there is a dataset.
    stored_bytes : int or None
        Of the shards on the disk.
    source : str
        Where the numbers come from.
    names, units : tuple of str
        Of the channels, as in ``dataset.json``.
    at_most : int or None
        Images that a dataset yet to be made may have, where the archive says it.
    """

    resolution: int
    channels: int
    item_bytes: int
    images: int | None
    trained: int | None
    stored_bytes: int | None
    source: str
    names: tuple[str, ...] = ()
    units: tuple[str, ...] = ()
    at_most: int | None = None

    def as_json(self) -> dict[str, Any]:
        """What ``sunpipe plan --json`` says about the images."""
        return {**vars(self), "raw_bytes_per_image": self.raw_bytes}

    @property
    def raw_bytes(self) -> int:
        """Of one image as it is stored, without compression."""
        return self.channels * self.resolution**2 * self.item_bytes


def channels_made(shard: ShardSettings) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names and units of the channels that these settings make."""
    if shard.product != "aia_fulldisk":
        fields = FIELDS[shard.product]
        return fields, ("Gauss",) * len(fields)
    waves = tuple(str(wave) for wave in shard.wavelengths)
    fields = FIELDS["hmi_fulldisk"] if shard.magnetogram else ()
    return waves + fields, ("DN/s",) * len(waves) + ("Gauss",) * len(fields)


def subject(cfg: Config) -> Subject:
    """Images of the dataset, or those that ``[shard]`` will make of the archive.

    Raises
    ------
    DataError
        A dataset that is there and cannot be read.
    """
    from sunpipe.shards.schema import read_info

    folder = Layout.current().shards(cfg.dataset)
    try:
        info = read_info(folder)
    except DataError:
        if (folder / "dataset.json").exists():
            raise  # it is there and cannot be read: not the same as not made yet
        return to_be_made(cfg)
    stored = sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
    return Subject(
        info.resolution, len(info.channels), ITEM_BYTES[info.dtype], info.counts.get("rows"),
        info.counts.get("train"), stored, f"dataset {cfg.dataset}",
        tuple(info.channels), tuple(info.units),
    )  # fmt: skip


def most_images(shard: ShardSettings, archive: Path) -> int | None:
    """Images that `shard` can make of what was fetched: one of a disk, or of a whole patch.

    None where a patch is cut into tiles, whose number is known once its files are opened,
    and while files are still to come.
    """
    if (shard.is_patch and shard.stride) or not (archive / "manifest.parquet").is_file():
        return None
    from preprocess.archive import KEYWORDS
    from preprocess.dataset.inputs import Member, list_inputs
    from preprocess.manifest import read_manifest

    try:
        manifest = read_manifest(archive)
        inputs = list_inputs(manifest, shard)
    except DataError:  # the stage itself says what is wrong
        return None
    if any(to_come(entry.state, entry.final) for entry in manifest.values()):
        return None
    whole = set(FIELDS["sharp_vector"]) if shard.product == "sharp_vector" else set()

    def held(member: Member) -> bool:
        """With a file to be read; of a vector with those of all three components."""
        fetched = {name for name, one in member.entries.items() if one.state == "fetched"}
        return bool(fetched - {KEYWORDS}) and whole <= fetched

    return sum(one.refused is None and all(map(held, one.members)) for one in inputs) or None


def to_come(state: str, final: bool) -> bool:
    """Whether ``sunpipe fetch`` would still bring a file of the manifest, unless it fails again."""
    return state in ("wanted", "staged") or (state == "failed" and not final)


def to_be_made(cfg: Config) -> Subject:
    """Images that ``[shard]`` makes, whatever the dataset holds now."""
    shard = cfg.shard
    side = shard.tile // shard.reduce if shard.is_patch else shard.resolution
    names, units = channels_made(shard)
    return Subject(side, len(names), ITEM_BYTES[shard.dtype], None, None, None,
                   "[shard] of the configuration", names, units)  # fmt: skip
