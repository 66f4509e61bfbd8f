"""From w, or from rows of a dataset, to numbers: one way of measuring for both, in batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sunpipe.errors import ConfigError, DataError
from sunpipe.latent.direction import Floats
from sunpipe.physics import measurable

if TYPE_CHECKING:
    from sunpipe.latent.generator import Generator, Noise
    from sunpipe.latent.space import Space
    from sunpipe.shards.reader import ShardReader

BATCH = 64
Look = Callable[[NDArray[np.float32]], tuple[NDArray[np.float32], Floats]]


def check_names(
    names: Sequence[str], key: str, channels: Sequence[str] = measurable.COMPONENTS
) -> list[str]:
    """Names that images with these channels can be measured by; a `ConfigError` names the others.

    Parameters
    ----------
    names : sequence of str
        Empty means all of them.
    key : str
        Where they were asked for, for the message.
    channels : sequence of str
    """
    try:
        measurable.check_measurable(names)
        measurable.require_measurable(names, channels)
    except ValueError as error:
        raise ConfigError(f"{key}: {error}") from None
    known = measurable.measurable(channels)
    if not known:
        raise ConfigError(f"{key}: images of {', '.join(channels)} give no quantity")
    return list(names) or list(known)


def units(names: Sequence[str]) -> list[str]:
    """Unit of each quantity as it is measured here."""
    return [measurable.unit(name) for name in names]


def _require(names: Sequence[str], channels: Sequence[str]) -> None:
    try:
        measurable.require_measurable(names, channels)
    except ValueError as error:
        raise DataError(str(error)) from None


def observer(
    generator: Generator, names: Sequence[str], noise: Noise, space: Space | None = None
) -> Look:
    """Make the function that looks at latents: (B, D) to fields (B, C, H, W) and values (B, Q).

    Latents are those of `space`, or w without one. Fields are float32 in physical
    units, values float64 in the units of `units`, NaN where a quantity is undefined.
    """
    import torch

    from sunpipe.physics.images import measure_images

    channels, pixel_cm = generator.channels, generator.pixel_cm
    _require(names, channels)

    def look(x: NDArray[np.float32]) -> tuple[NDArray[np.float32], Floats]:
        with torch.inference_mode():
            w = torch.from_numpy(np.ascontiguousarray(x, np.float32))
            fields = generator.fields(w if space is None else space.to_w(generator, w), noise)
            values = measure_images(fields, channels, pixel_cm, names)
            return fields.cpu().numpy(), values.cpu().numpy()

    return look


def measure_rows(
    reader: ShardReader, rows: NDArray[np.int64], names: Sequence[str],
    poll: Callable[[], None] = lambda: None,
) -> NDArray[np.float64]:  # fmt: skip
    """Quantities of dataset rows, by the function that measures generated images.

    Parameters
    ----------
    reader : ShardReader
    rows : ndarray of int, shape (M,)
    names : sequence of str
        Quantities (Q).
    poll : callable
        Called before every batch; may raise to end the work.

    Returns
    -------
    ndarray of float64, shape (M, Q)
        In the units of `units`, NaN where undefined.
    """
    import torch

    from sunpipe.physics.images import measure_images

    _require(names, reader.info.channels)
    parts = [np.zeros((0, len(names)))]
    for chunk in batches(len(rows), BATCH):
        poll()
        images = torch.from_numpy(reader.images(rows[chunk]))
        pixel = torch.from_numpy(reader.pixel_cm[rows[chunk]])
        parts.append(measure_images(images, reader.info.channels, pixel, names).numpy())
    return np.concatenate(parts)


def batches(count: int, size: int) -> Iterator[slice]:
    """Slices of `size` rows that cover `count` rows; the last may be shorter."""
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))
