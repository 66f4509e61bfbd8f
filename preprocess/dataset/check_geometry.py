"""Whether coordinates, scale, mu and flux of the rows agree, row by row and within a record."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from preprocess.calibration.disk import target_scale
from preprocess.dataset.check_table import Numbers, Records
from preprocess.dataset.patch import centre_mu, disk_pixel_cm
from preprocess.dataset.table import SHARP_FLOATS
from sunpipe.errors import DataError
from sunpipe.physics.geometry import pixel_size_cm
from sunpipe.shard_settings import ShardSettings

# what differs between the tiles of a record; all other columns are one value
OF_A_TILE = {"row", "shard", "position", "record", "tile_y", "tile_x", "flux_mx", "flux_share",
             "nan_share", "pixels", "crpix1", "crpix2"}  # fmt: skip
TYPES = {True: ("CRLN-CEA", "CRLT-CEA", "deg"), False: ("HPLN-TAN", "HPLT-TAN", "arcsec")}
COORDINATES = ("crpix1", "crpix2", "crval1", "crval2", "cdelt1", "cdelt2", "pixel_cm")
FLUX_SLACK = 1.01  # files keep 0.01 G, and USFLUX seven digits


def check_geometry(records: Records, settings: ShardSettings, sizes: NDArray[np.int64]) -> None:
    """Report what contradicts itself.

    Parameters
    ----------
    sizes : ndarray of int64, shape (records, 2)
        Height and width of each patch as its tiles tell them (of a centred one: or one
        more); see `check_quarantine.patch_sizes`.
    """
    rows = records.rows
    wrong = np.zeros(rows.count, bool)
    for name in COORDINATES:
        wrong |= ~np.isfinite(rows.numbers(name))
    records.fault(wrong, "has no world coordinates or no pixel size")
    if wrong.any():
        return
    one, two, unit = TYPES[settings.is_patch]
    for name, kind in {"ctype1": one, "ctype2": two, "cunit1": unit, "cunit2": unit}.items():
        words, codes = rows.words(name)
        fits = np.array([word == kind for word in words])
        records.fault(~fits[codes], lambda n, name=name, kind=kind, words=words, codes=codes: (  # type: ignore[misc]
            f"{name} is {words[codes[n]]!r}, a {settings.product} has {kind!r}"))  # fmt: skip
    if settings.is_patch:
        _one_record(records, settings)
        _patches(records, settings)
        _flux(records, settings, sizes)
    else:
        _disks(records, settings)


def _one_record(records: Records, settings: ShardSettings) -> None:
    """Tiles of a record share its keywords and its coordinates."""
    if records.one_each():
        return
    rows, first = records.rows, records.first_of()
    for name in rows.schema.names:
        if name not in OF_A_TILE:
            values = rows.values(name)
            records.fault(values != values[first], f"{name} is not that of the record's first row")
    for axis, tile in ((1, "tile_x"), (2, "tile_y")):
        native = (rows.numbers(f"crpix{axis}") - 0.5) * settings.reduce + rows.whole(tile)
        text = f"crpix{axis} and {tile} do not fit those of the record's first row"
        records.fault(~(np.abs(native - native[first]) < 1e-6), text)


def _patches(records: Records, settings: ShardSettings) -> None:
    """Size of a pixel and mu of each record, made again from its keywords."""
    rows, first = records.rows, records.first
    held = {key: rows.numbers(key)[first]
            for key in SHARP_FLOATS if key in ("CRLN_OBS", "CRLT_OBS", "DSUN_OBS", "RSUN_OBS",
                                               "RSUN_REF")}  # fmt: skip
    held |= {f"CRVAL{axis}": rows.numbers(f"crval{axis}")[first] for axis in (1, 2)}
    held |= {f"CDELT{axis}": rows.numbers(f"cdelt{axis}")[first] / settings.reduce
             for axis in (1, 2)}  # fmt: skip
    pixel, mu = rows.numbers("pixel_cm")[first], rows.numbers("mu")[first]
    for n in range(len(first)):
        header = {key: float(values[n]) for key, values in held.items()}
        try:
            again = pixel_size_cm(header) * settings.reduce
        except DataError as error:
            fault = str(error)
        else:
            stood, found = float(mu[n]), centre_mu(header)
            if not abs(again / pixel[n] - 1) < 1e-9:
                fault = f"pixel_cm is {pixel[n]:.6g}, its coordinates give {again:.6g}"
            elif (found is None) != np.isnan(stood) or (
                found is not None and not abs(found - stood) < 1e-9
            ):
                fault = f"mu is {stood:.6f}, its coordinates give {found}"
            else:
                continue
        records.faults.add("records.parquet: coordinates that contradict themselves",
                           f"{records.row(int(first[n]))}: {fault}")  # fmt: skip


def _flux(records: Records, settings: ShardSettings, sizes: NDArray[np.int64]) -> None:
    """The flux of the whole patch follows from each tile; USFLUX is a part of it."""
    rows = records.rows
    flux, share = rows.numbers("flux_mx"), rows.numbers("flux_share")
    records.fault((flux == 0) != (share == 0), "of flux_mx and flux_share only one is 0")
    with np.errstate(invalid="ignore", divide="ignore"):
        whole = np.where(share > 0, flux / share, np.nan)
    top, low = (np.full(len(records.names), start) for start in (-np.inf, np.inf))
    seen = np.flatnonzero(np.isfinite(whole))
    np.maximum.at(top, records.of_row[seen], whole[seen])
    np.minimum.at(low, records.of_row[seen], whole[seen])
    unlike = (top > low * (1 + 1e-9))[records.held]
    records.fault_of_record(
        unlike,
        lambda n: (
            f"flux_mx and flux_share of its tiles give from {low[records.of_row[n]]:.6g} to"
            f" {top[records.of_row[n]]:.6g} Mx for the patch"
        ),
    )
    if settings.product != "sharp_vector":
        return
    # USFLUX sums |Br| of CMASK of the pixels: those below the floor add at most the floor.
    first = records.first
    area = (rows.numbers("pixel_cm")[first] / settings.reduce) ** 2
    stated, count = rows.numbers("USFLUX")[first], rows.numbers("CMASK")[first]
    most = (top[records.held] + settings.flux_floor_g * count * area) * FLUX_SLACK
    known = np.isfinite(most) & ~unlike & _is_whole(records, settings, sizes)
    wrong = known & (stated > most)
    place = dict(zip(first.tolist(), range(len(first)), strict=True)) if wrong.any() else {}
    records.fault_of_record(
        wrong,
        lambda n: (
            f"USFLUX is {stated[place[n]]:.4g} Mx, flux_mx and flux_share allow"
            f" {most[place[n]]:.4g}"
        ),
    )


def _is_whole(
    records: Records, settings: ShardSettings, sizes: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Whether the reference pixel is the patch's centre, as JSOC's is: keywords are of the file.

    A file that was cut out of a patch keeps keywords of what it was cut from.
    """
    rows, first = records.rows, records.first
    fits = np.ones(len(first), bool)
    for axis, tile, side in ((1, "tile_x", 1), (2, "tile_y", 0)):
        crpix: Numbers = rows.numbers(f"crpix{axis}")[first]
        native = (crpix - 0.5) * settings.reduce + 0.5 + rows.whole(tile)[first]
        more = 2 * native - 1 - sizes[records.held, side]
        fits &= (more > -0.01) & (more < 1.01)
    return fits


def _disks(records: Records, settings: ShardSettings) -> None:
    """All disks stand at one place in one size."""
    rows = records.rows
    radius, side = rows.numbers("RSUN_OBS"), settings.resolution
    step = target_scale(1.0, side, settings.disk_share) * radius
    centre = np.full(rows.count, (side + 1) / 2)
    expected: dict[str, Numbers] = {"crpix1": centre, "crpix2": centre, "crval1": 0 * centre,
                "crval2": 0 * centre, "cdelt1": step, "cdelt2": step,
                "mu": np.ones(rows.count), "flux_share": np.ones(rows.count)}  # fmt: skip
    for name, value in expected.items():
        values = rows.numbers(name)
        records.fault(~(np.abs(values - value) <= 1e-9 * np.abs(value)),
                      lambda n, name=name, values=values, value=value: (  # type: ignore[misc]
                          f"{name} is {values[n]:.6g}, its disk gives {value[n]:.6g}"))  # fmt: skip
    pairs, which = np.unique(np.stack([rows.numbers("cdelt1"), radius], axis=1), axis=0,
                             return_inverse=True)  # fmt: skip
    pixel = np.array(
        [disk_pixel_cm(*pair) if 0 < pair[1] < 1e5 else np.nan for pair in pairs.tolist()]
    )
    again, stated = pixel[which.reshape(-1)], rows.numbers("pixel_cm")
    records.fault(
        ~(np.abs(again / stated - 1) < 1e-9),
        lambda n: f"pixel_cm is {stated[n]:.6g}, its coordinates give {again[n]:.6g}",
    )
