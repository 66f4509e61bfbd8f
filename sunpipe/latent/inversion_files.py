"""The files of an inversion: latent, numbers, picture, and the generated patch as FITS.

``inversion.h5``::

    /w (w_dim,) or (num_ws, w_dim) float32    what ``sunpipe traverse --from`` begins with
    /real, /reproduced (C, H, H) float32, gauss        /mask (H, H) bool
    attributes: schema, generator, run, space, record, tile, channels, pixel_cm

beside it ``inversion.json``, ``picture.png`` and ``reproduced.<CHANNEL>.fits``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sunpipe import plots
from sunpipe.errors import DataError
from sunpipe.files import atomic_folder, read_json, write_json
from sunpipe.hdf5 import new_hdf5
from sunpipe.latent.invert_patch import Inverted
from sunpipe.latent.patch_fits import write_patch
from sunpipe.latent.target import Target

if TYPE_CHECKING:
    from sunpipe.latent.generator import Generator

SCHEMA = 2  # 1 held the tilt of a line for an angle of 360 degrees
FILES = ("inversion.h5", "inversion.json", "picture.png")


def draw(path: Path, target: Target, found: Inverted, channels: list[str], pixel_cm: float) -> None:
    """Real, reproduced and difference of every component with one colour bar in gauss."""
    hidden = ~target.mask
    limit = plots.symmetric_limit(target.fields[:, target.mask])
    figure = plots.new_figure(7.2, 2.1 * len(channels) + 0.7)
    grid = figure.subplots(len(channels), 3, squeeze=False)
    picture: Any = None
    for row, name in enumerate(channels):
        real, shown = target.fields[row], found.reproduced[row]
        for column, image in enumerate((real, shown, shown - real)):
            axes = grid[row][column]
            axes.set_facecolor("0.8")
            picture = plots.show_field(axes, np.ma.masked_array(image, hidden), limit)
        rms, match = found.errors[name]["rms_g"], found.errors[name]["correlation"]
        grid[row][0].set_ylabel(f"{name} (G)")
        words = f"RMS {rms:.0f} G" + (f", r {match:.2f}" if match is not None else "")
        grid[row][2].set_title(words, fontsize=8)
    side = target.fields.shape[-1] * pixel_cm / 1e8
    for axes, text in zip(grid[-1], ("observed", "generated", "generated - observed"), strict=True):
        axes.set_xlabel(text, fontsize=9)
    figure.colorbar(picture, ax=grid, pad=0.02, shrink=0.8, extend="both").set_label("field (G)")
    title = f"{target.record}  tile {target.tile[0]} {target.tile[1]}  (side {side:.0f} Mm)"
    figure.suptitle(title, fontsize=9, color=plots.INK)
    plots.save(figure, path, dpi=130)


def write_inversion(
    folder: Path, target: Target, found: Inverted, generator: Generator, space: str,
    result: dict[str, Any],
) -> None:  # fmt: skip
    """Write all files of an inversion, or none: the folder gets its name when it is whole.

    An earlier inversion there is replaced; see `check_replaceable`.
    """
    channels = list(generator.channels)
    check_replaceable(folder)  # once more: there was time to put something there
    with atomic_folder(folder) as temporary:
        with new_hdf5(temporary / "inversion.h5") as file:
            file.attrs.update({
                "schema": SCHEMA, "generator": generator.digest, "run": generator.run,
                "space": space, "record": target.record, "tile": list(target.tile),
                "channels": json.dumps(channels), "pixel_cm": generator.pixel_cm,
            })  # fmt: skip
            file.create_dataset("w", data=found.w, fletcher32=True)
            for name, image in (("real", target.fields), ("reproduced", found.reproduced)):
                data = file.create_dataset(name, data=image, fletcher32=True)
                data.attrs["unit"] = "Gauss"
            file.create_dataset("mask", data=target.mask, fletcher32=True)
        write_patch(
            temporary, "reproduced", found.reproduced, channels=channels,
            units=list(generator.units), pixel_cm=generator.pixel_cm, run=generator.run,
            generator=generator.digest, history=(
                "Made to look like", target.record, f"tile {target.tile[0]} {target.tile[1]}.",
            ),
        )  # fmt: skip
        draw(temporary / "picture.png", target, found, channels, generator.pixel_cm)
        write_json(temporary / "inversion.json", {"schema": SCHEMA, **result})


def foreign(folder: Path) -> list[str]:
    """Names in a folder that are no files of an inversion."""
    return sorted(
        path.name for path in folder.iterdir()
        if path.name not in FILES and not path.match("reproduced.*.fits")
    )  # fmt: skip


def check_replaceable(folder: Path) -> None:
    """Refuse a folder that an inversion, which replaces the whole of it, must not replace.

    Raises
    ------
    DataError
        It holds what no inversion wrote, or is no folder.
    """
    if not folder.exists():
        return
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder; give another --out")
    found = foreign(folder)
    if found and not (folder / "inversion.json").is_file():
        raise DataError(f"{folder} is not empty and holds no inversion; give another --out")
    if found:
        raise DataError(
            f"{folder} holds another inversion and with it {', '.join(found[:5])}"
            f"{' ...' if len(found) > 5 else ''}, which would be removed; move that elsewhere or"
            " give another --out"
        )


def written(folder: Path, recipe: dict[str, Any]) -> dict[str, Any] | None:
    """The result of an inversion that was made by `recipe`, or None where there is none.

    Raises
    ------
    DataError
        There is none, and `folder` cannot be replaced: see `check_replaceable`.
    """
    if all((folder / name).is_file() for name in FILES):
        result: dict[str, Any] = read_json(folder / "inversion.json")
        same = result.pop("schema", None) == SCHEMA and result.get("recipe") == recipe
        if same:
            return result
    check_replaceable(folder)
    return None
