"""From w, or from rows of a dataset, to numbers: one way of measuring for both, in batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sunpipe.errors import ConfigError, DataError
from sunpipe.latent.direction import Floats
from sunpipe.physics.quantities import MEASURABLE, QUANTITIES, check_measurable

if TYPE_CHECKING:
    import torch

    from sunpipe.latent.generator import Generator, Noise
    from sunpipe.latent.space import Space
    from sunpipe.shards.reader import ShardReader

CONVENTION = "physical"
COMPONENTS = ("Br", "Bt", "Bp")
BATCH = 64
Look = Callable[[NDArray[np.float32]], tuple[NDArray[np.float32], Floats]]


def check_names(names: Sequence[str], key: str) -> list[str]:
    """Names that vector patches can be measured by; a `ConfigError` names the others.

    Parameters
    ----------
    names : sequence of str
        Empty means all of them.
    key : str
        Where they were asked for, for the message.
    """
    try:
        check_measurable(names)
    except ValueError as error:
        raise ConfigError(f"{key}: {error}") from None
    return list(names) or list(MEASURABLE)


def units(names: Sequence[str]) -> list[str]:
    """Unit of each quantity as it is measured here."""
    return [QUANTITIES[name].unit(CONVENTION) for name in names]


def vector(fields: torch.Tensor, channels: Sequence[str]) -> torch.Tensor:
    """The components (B, 3, H, W) in the order Br, Bt, Bp out of a generator's channels."""
    missing = [name for name in COMPONENTS if name not in channels]
    if missing:
        raise DataError(
            f"the generator makes {', '.join(channels)}; measuring needs {', '.join(missing)} too"
        )
    return fields[:, [list(channels).index(name) for name in COMPONENTS]]


def observer(
    generator: Generator, names: Sequence[str], noise: Noise, space: Space | None = None
) -> Look:
    """Make the function that looks at latents: (B, D) to fields (B, C, H, W) and values (B, Q).

    Latents are those of `space`, or w without one. Fields are float32 in physical
    units, values float64 in the units of `units`, NaN where a quantity is undefined.
    """
    import torch

    from sunpipe.physics import measure

    def look(x: NDArray[np.float32]) -> tuple[NDArray[np.float32], Floats]:
        with torch.inference_mode():
            w = torch.from_numpy(np.ascontiguousarray(x, np.float32))
            fields = generator.fields(w if space is None else space.to_w(generator, w), noise)
            found = measure(
                vector(fields, generator.channels),
                generator.pixel_cm,
                names=tuple(names),
                convention=CONVENTION,
            )
            values = torch.stack([found[name].to("cpu", torch.float64) for name in names], dim=1)
            return fields.cpu().numpy(), values.numpy()

    return look


def measure_rows(
    reader: ShardReader, rows: NDArray[np.int64], names: Sequence[str],
    poll: Callable[[], None] = lambda: None,
) -> NDArray[np.float64]:  # fmt: skip
    """Quantities of dataset rows, by the function that measures generated patches.

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

    from sunpipe.physics import measure

    parts = [np.zeros((0, len(names)))]
    for chunk in batches(len(rows), BATCH):
        poll()
        fields = vector(torch.from_numpy(reader.images(rows[chunk])), reader.info.channels)
        pixel = torch.from_numpy(reader.pixel_cm[rows[chunk]])
        found = measure(fields, pixel, names=tuple(names), convention=CONVENTION)
        parts.append(torch.stack([found[name].double() for name in names], dim=1).numpy())
    return np.concatenate(parts)


def batches(count: int, size: int) -> Iterator[slice]:
    """Slices of `size` rows that cover `count` rows; the last may be shorter."""
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))
