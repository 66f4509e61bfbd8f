"""What becomes of each tile of each record: a row of the dataset, or a line in the quarantine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preprocess.inputs import Input, load
from preprocess.patch import centre_mu, tile_wcs
from preprocess.quality import signed
from preprocess.table import keyword_values
from sunpipe.errors import DataError
from sunpipe.fits import COMPONENTS, VectorRecord
from sunpipe.fitsfile import FitsError
from sunpipe.settings import ShardSettings
from sunpipe.shards.cut import cut, missing_share, quantise, reduce_field, tile_flux, tile_grid

Row = dict[str, Any]


def _quarantined(item: Input, error: FitsError, offset: tuple[int, int] | None = None) -> Row:
    y, x = offset if offset is not None else (None, None)
    return {"record": item.record, "harpnum": item.harpnum, "t_rec": item.t_rec,
            "tile_y": y, "tile_x": x, "reason": error.reason, "detail": error.detail}  # fmt: skip


def _examine_tile(
    found: VectorRecord, offset: tuple[int, int], settings: ShardSettings
) -> dict[str, Any]:
    tile = cut(found.fields, offset, settings.tile)
    flux = tile_flux(tile[0], found.pixel_cm, settings.flux_floor_g)
    if flux < settings.min_flux_mx:
        raise FitsError("low_flux", f"{flux:.3e} Mx is below {settings.min_flux_mx:.3e} Mx")
    image, mask = reduce_field(tile, settings.reduce)
    shape = (found.fields.shape[1], found.fields.shape[2])
    missing = missing_share(mask, offset, shape, settings.reduce)
    if missing > settings.max_nan_share or not mask.any():
        raise FitsError(
            "nan_share",
            f"{missing:.3f} of the tile's share of the patch is invalid,"
            f" {settings.max_nan_share} allowed",
        )
    quantise(image, settings.dtype)
    return {
        "tile_y": offset[0],
        "tile_x": offset[1],
        "pixel_cm": found.pixel_cm * settings.reduce,
        "flux_mx": flux,
        "nan_share": 1.0 - float(mask.mean()),
        **tile_wcs(found.header, offset, settings.reduce),
    }


def examine(archive: Path, item: Input, settings: ShardSettings) -> tuple[list[Row], list[Row]]:
    """Rows and quarantine lines of one record.

    The candidates are the tiles of the record; a record that cannot be read is
    one candidate. Rows still lack ``row``, ``shard`` and ``position``.
    """
    try:
        found = load(archive, item, settings.quality)
        tile_wcs(found.header, (0, 0), settings.reduce)
    except FitsError as error:
        return [], [_quarantined(item, error)]
    except DataError as error:
        return [], [_quarantined(item, FitsError("geometry", str(error)))]
    shared = {
        "record": item.record,
        "harpnum": item.harpnum,
        "t_rec": item.t_rec,
        "split": "test" if item.harpnum in settings.test_harps else "train",
        "quality": signed(int(found.header["QUALITY"])),  # type: ignore[arg-type]
        "mu": centre_mu(found.header),
        "noaa_ars": str(found.header.get("NOAA_ARS", found.header.get("NOAA_AR", ""))),
        **keyword_values(found.header),
    }
    rows: list[Row] = []
    quarantine: list[Row] = []
    height, width = found.fields.shape[1:]
    for y, x in tile_grid((height, width), settings.tile, settings.stride).tolist():
        try:
            rows.append(shared | _examine_tile(found, (y, x), settings))
        except FitsError as error:
            quarantine.append(_quarantined(item, error, (y, x)))
    return rows, quarantine


def stored_image(
    fields: NDArray[np.floating], row: Row, settings: ShardSettings
) -> tuple[NDArray[Any], NDArray[np.uint8]]:
    """Image (C, H, W) and mask (H, W) of a row, as they are stored."""
    tile = cut(fields, (row["tile_y"], row["tile_x"]), settings.tile)
    image, mask = reduce_field(tile, settings.reduce)
    return quantise(image, settings.dtype), mask.astype(np.uint8)


CHANNELS = list(COMPONENTS)
UNITS = ["Gauss"] * len(COMPONENTS)
