"""The shape of a dataset on disk (contract C5), in one place for writer and readers.

``shards/<dataset>/``::

    shard-00000.h5      /images (N, C, H, W), /mask (N, H, W) uint8 (1 = valid)
    records.parquet     one row per image: `RECORD_COLUMNS`, then the SHARP keywords
    quarantine.parquet  one row per candidate not used: `QUARANTINE_COLUMNS`
    inputs.parquet      one row per record: the digest of what it was made of
    dataset.json        see `DatasetInfo`; written last

A shard holds the accepted images of a run of candidates; where none was
accepted its number is left out.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sunpipe.errors import DataError
from sunpipe.files import read_json, write_json

SCHEMA = 2
RECORD_COLUMNS = (
    "row",           # position in the dataset, 0-based
    "shard",         # shard number
    "position",      # position inside the shard
    "record",        # JSOC record-set string (of the first channel)
    "harpnum",       # null for disks
    "t_rec",         # as JSOC writes it: TAI for HMI, UTC for AIA
    "split",         # train | test
    "simulated",     # whether the record is no observation
    "tile_y",        # first native row of the tile in the patch; 0 for disks
    "tile_x",        # first native column
    "pixel_cm",      # side of a stored pixel on the Sun (at disk centre), cm
    "flux_mx",       # unsigned flux of the tile's native pixels above shard.flux_floor_g, Mx
    "flux_share",    # of the whole patch's
    "nan_share",     # share of stored pixels that are invalid or padding
    "quality",       # QUALITY as a signed 32-bit integer
    "mu",            # cosine of the heliocentric angle of the patch centre; 1 for disks
    "noaa_ars",      # NOAA_ARS keyword
    "pixels",        # BLAKE2b of the stored image and mask: ties the row to its pixels
    "companions",    # records of the other channels, comma-separated
    "notes",         # JSON: how a disk was calibrated
    "crpix1", "crpix2", "crval1", "crval2", "cdelt1", "cdelt2", "ctype1", "ctype2",  # WCS as stored
    "cunit1", "cunit2",                                       # deg (patches) or arcsec (disks)
)  # fmt: skip
QUARANTINE_COLUMNS = (
    "shard",         # of which it would have been a part
    "record", "harpnum", "t_rec", "tile_y", "tile_x", "reason", "detail",
)  # fmt: skip
TABLES = ("records.parquet", "quarantine.parquet", "inputs.parquet")


def shard_name(number: int) -> str:
    """File name of a shard."""
    return f"shard-{number:05d}.h5"


@dataclass(frozen=True)
class DatasetInfo:
    """``dataset.json``.

    Attributes
    ----------
    product : str
        ``sharp_vector``, ``sharp_los``, ``hmi_fulldisk`` or ``aia_fulldisk``.
    channels, units : list of str
        Names and physical units of the C channels.
    resolution : int
        H = W in stored pixels.
    tile, stride, reduce : int
        How a patch was cut, in native pixels (stride 0: whole patch on a canvas);
        for disks `resolution`, 0 and 1.
    storage : str
        ``chunked`` or ``contiguous``.
    scale : float
        Stored integer times `scale` is the value in `units`; 1 for floats.
    max_error, max_relative_error : float
        The rounding error of the stored type is at most the larger of `max_error`
        (in `units`) and `max_relative_error` times the value.
    shards : dict
        File name to SHA-256.
    files : dict
        Each of `TABLES` to SHA-256.
    counts : dict
        ``records_in, rows, quarantined`` and rows per split.
    """

    name: str
    product: str
    channels: list[str]
    units: list[str]
    resolution: int
    tile: int
    stride: int
    reduce: int
    dtype: str
    storage: str
    scale: float
    max_error: float
    max_relative_error: float
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
