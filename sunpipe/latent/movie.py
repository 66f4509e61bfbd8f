"""A walk as a movie: GIF by Pillow, MP4 by the ``video`` extra."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sunpipe.errors import ConfigError, UsageError
from sunpipe.files import atomic_path

RATE = 12  # frames a second
SUFFIXES = (".gif", ".mp4")
Pixels = NDArray[np.uint8]


def check_movie(path: Path) -> None:
    """Refuse another kind of movie, or MP4 without its extra, before any work is done."""
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(f"--movie {path}: name a file that ends in .gif or .mp4")
    if path.suffix.lower() == ".mp4":
        try:
            import imageio_ffmpeg  # type: ignore[import-untyped]  # noqa: F401
        except ImportError:
            raise ConfigError(
                "an MP4 needs imageio-ffmpeg; install it with pip install 'sunpipe[video]', or"
                " name a .gif"
            ) from None


def render(
    fields: NDArray[np.float32], channels: Sequence[str], captions: Sequence[str],
    units: Sequence[str], pixel_cm: float,
) -> Iterator[Pixels]:  # fmt: skip
    """Frames (H, W, 3) of fields (K, C, h, w), drawn one by one with the same colours."""
    from sunpipe import plots
    from sunpipe.latent.shades import shades
    from sunpipe.latent.strip import scale_bar

    figure = plots.new_figure(2.4 * fields.shape[1] + 0.9, 2.9)
    canvas: Any = figure.canvas
    axes = figure.subplots(1, fields.shape[1], squeeze=False)[0]
    shown: dict[int, Any] = {}
    for shade in shades(fields, units):  # what shares a bar stands together
        panels = list(axes[len(shown) :][: len(shade.rows)])
        for each, row in zip(panels, shade.rows, strict=True):
            shown[row] = shade.show(each, fields[0, row])
            each.set_title(channels[row], fontsize=9)
        bar = figure.colorbar(shown[shade.rows[0]], ax=panels, pad=0.02)
        bar.set_label(shade.label(channels))
    scale_bar(axes[0], fields.shape[-1], pixel_cm)
    title = figure.suptitle(captions[0], fontsize=9, color=plots.INK)
    for images, caption in zip(fields, captions, strict=True):
        for row, image in enumerate(images):
            shown[row].set_data(image)
        title.set_text(caption)
        canvas.draw()
        whole = np.asarray(canvas.buffer_rgba())[:, :, :3]
        yield whole[: len(whole) // 2 * 2, : whole.shape[1] // 2 * 2].copy()  # even, for MP4


def write_movie(path: Path, frames: Iterator[Pixels]) -> None:
    """Write frames there and back again, so that the movie can run in a loop."""
    forth = list(frames)
    pictures = forth + forth[-2:0:-1]
    with atomic_path(path) as temporary:
        if path.suffix.lower() == ".gif":
            from PIL import Image

            images = [Image.fromarray(picture) for picture in pictures]
            images[0].save(
                temporary, format="GIF", save_all=True, append_images=images[1:],
                duration=1000 // RATE, loop=0,
            )  # fmt: skip
            return
        import imageio_ffmpeg

        height, width = pictures[0].shape[:2]
        writer = imageio_ffmpeg.write_frames(
            str(temporary), (width, height), fps=RATE, codec="libx264", quality=8,
            macro_block_size=2, output_params=["-f", "mp4"], ffmpeg_log_level="error",
        )  # fmt: skip
        writer.send(None)
        try:
            for picture in pictures:
                writer.send(np.ascontiguousarray(picture).tobytes())
        finally:
            writer.close()
