"""The shape of a dataset on disk (contract C5), in one place for writer and readers.

``shards/<dataset>/``::

    shard-00000.h5      /images (N, C, H, W), /mask (N, H, W) uint8 (1 = valid)
    records.parquet     one row per image: `RECORD_COLUMNS`, then the SHARP keywords
    quarantine.parquet  one row per candidate not used: `QUARANTINE_COLUMNS`
    dataset.json        see `DatasetInfo`; written last
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sunpipe.errors import DataError
from sunpipe.files import read_json, write_json

SCHEMA = 1
RECORD_COLUMNS = (
    "row",           # position in the dataset, 0-based
    "shard",         # shard number
    "position",      # position inside the shard
    "record",        # JSOC record-set string
    "harpnum",
    "t_rec",         # TAI, as JSOC writes it
    "split",         # train | test
    "tile_y",        # first native row of the tile in the patch
    "tile_x",        # first native column
    "pixel_cm",      # side of a stored pixel on the Sun, cm
    "flux_mx",       # unsigned flux of the tile's native pixels above shard.flux_floor_g, Mx
    "nan_share",     # share of stored pixels that are invalid or padding
    "quality",       # QUALITY as a signed 32-bit integer
    "mu",            # cosine of the heliocentric angle of the patch centre
    "noaa_ars",      # NOAA_ARS keyword
    "crpix1", "crpix2", "crval1", "crval2", "cdelt1", "cdelt2", "ctype1", "ctype2",  # WCS as stored
)  # fmt: skip
QUARANTINE_COLUMNS = ("record", "harpnum", "t_rec", "tile_y", "tile_x", "reason", "detail")


@dataclass(frozen=True)
class DatasetInfo:
    """``dataset.json``.

    Attributes
    ----------
    channels, units : list of str
        Names and physical units of the C channels.
    resolution : int
        H = W in stored pixels.
    tile, stride, reduce : int
        How a patch was cut, in native pixels (stride 0: whole patch on a canvas).
    scale : float
        Stored integer times `scale` is the value in `units`; 1 for floats.
    max_error : float
        Largest rounding error of the stored type, in `units`.
    shards : dict
        File name to SHA-256.
    files : dict
        ``records.parquet`` and ``quarantine.parquet`` to SHA-256.
    counts : dict
        ``records_in, rows, quarantined`` and rows per split.
    """

    name: str
    channels: list[str]
    units: list[str]
    resolution: int
    tile: int
    stride: int
    reduce: int
    dtype: str
    scale: float
    max_error: float
    shards: dict[str, str]
    files: dict[str, str]
    counts: dict[str, int]
    settings: dict[str, Any]
    versions: dict[str, str]
    schema: int = SCHEMA

    def write(self, folder: Path) -> None:
        """Publish the dataset: only now are its shards complete."""
        write_json(folder / "dataset.json", asdict(self))


def read_info(folder: Path) -> DatasetInfo:
    """Read ``dataset.json``; a `DataError` tells what to run when it is not there."""
    if not (folder / "dataset.json").is_file():
        raise DataError(f"no complete dataset in {folder}; run sunpipe shard first")
    data = read_json(folder / "dataset.json")
    if data.get("schema") != SCHEMA:
        raise DataError(f"{folder} has schema {data.get('schema')}, this version reads {SCHEMA}")
    try:
        return DatasetInfo(**data)
    except TypeError as error:
        raise DataError(
            f"{folder / 'dataset.json'} is not a dataset description: {error}"
        ) from None


def dataset_id(info: DatasetInfo) -> str:
    """Identity of the content: SHA-256 over the digests of shards and records."""
    from sunpipe.files import digest

    return digest({"shards": info.shards, "files": info.files})
