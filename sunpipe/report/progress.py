"""Samples over time: the grids that a run drew of the same latents while it trained."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import numpy as np

from sunpipe.errors import DataError
from sunpipe.report.pictures import data_uri
from sunpipe.report.runfolder import RunFolder
from sunpipe.report.section import Section, section
from sunpipe.report.sources import Found, Sources

GRIDS = 6  # of one run
WIDTH = 640  # pixels a grid is shown with at most
COLOURS = 256
LARGEST = 40_000_000  # pixels of a picture that is opened
NAME = re.compile(r"fakes-kimg-(\d+\.\d+)\.png")


def grids(run: RunFolder) -> list[tuple[float, Path]]:
    """(kimg, file) of the grids of generated patches, in order."""
    found = []
    for path in (run.folder / "images").glob("fakes-kimg-*.png"):
        if match := NAME.fullmatch(path.name):
            found.append((float(match[1]), path))
    return sorted(found)


def spaced(found: list[tuple[float, Path]], count: int = GRIDS) -> list[tuple[float, Path]]:
    """`count` of the grids, evenly spaced in order, the first and the last among them."""
    if len(found) <= count:
        return found
    return [found[place] for place in np.linspace(0, len(found) - 1, count).round().astype(int)]


def small(path: Path, width: int = WIDTH) -> str:
    """A PNG drawn by a training, made small, as an ``src`` attribute.

    It is decoded and encoded anew, so that nothing but its pixels reaches the page.

    Raises
    ------
    DataError
        It is no picture, or absurdly large.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path, formats=("PNG",)) as picture:
            if picture.width * picture.height > LARGEST:
                raise DataError(f"images/{path.name} is too large to show")
            plain = Image.new("RGB", picture.size, "white")
            rgba = picture.convert("RGBA")
            plain.paste(rgba, mask=rgba.getchannel("A"))
    except (OSError, ValueError, SyntaxError, UnidentifiedImageError):
        raise DataError(f"images/{path.name} is not a whole PNG") from None
    if plain.width > width:
        height = round(plain.height * width / plain.width)
        plain = plain.resize((width, height), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    # of the methods it keeps the ends of the colour bar, and so the sign of strong fields
    palette = plain.quantize(COLOURS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    palette.save(buffer, format="PNG", optimize=True)
    return data_uri(buffer.getvalue())


def build(found: list[tuple[float, Path]]) -> dict[str, Any]:
    """What ``progress.html`` shows."""
    chosen = spaced(found)
    return {
        "grids": [{"src": small(path), "kimg": kimg, "alt": f"generated patches at {kimg:g} kimg"}
                  for kimg, path in chosen],
        "of": len(found),
    }  # fmt: skip


def progress(sources: Sources) -> Section:
    """Grids of generated patches from the start to the end."""
    run = sources.run.value
    needed: Found[Any]
    if run is None:
        needed = sources.run
    elif found := grids(run):
        needed = Found(found, "current")
    else:
        needed = Found(None, "missing", "no grid drawn yet", ("train",))
    return section("progress", "Samples over time", sources, (needed,),
                   lambda: build(needed.value))  # type: ignore[arg-type]  # fmt: skip
