"""From w to numbers: generate, decode, measure, in batches."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sunpipe.errors import ConfigError, DataError
from sunpipe.latent.direction import Floats
from sunpipe.physics.quantities import QUANTITIES

if TYPE_CHECKING:
    import torch

    from sunpipe.latent.generator import Generator, Noise

CONVENTION = "physical"
COMPONENTS = ("Br", "Bt", "Bp")
MEASURABLE = tuple(
    name for name, quantity in QUANTITIES.items() if CONVENTION not in quantity.needs_los
)
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
    for name in names:
        if name in MEASURABLE:
            continue
        if name in QUANTITIES:
            raise ConfigError(f"{key}: {name} needs a line-of-sight field; patches have none")
        near = difflib.get_close_matches(name.upper(), MEASURABLE, n=1)
        hint = f"did you mean {near[0]}?" if near else "known: " + ", ".join(MEASURABLE)
        raise ConfigError(f"{key}: no quantity {name!r} ({hint})")
    if len(set(names)) != len(names):
        raise ConfigError(f"{key}: a quantity stands twice in {', '.join(names)}")
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


def observer(generator: Generator, names: Sequence[str], noise: Noise) -> Look:
    """Make the function that looks at w: (B, D) to fields (B, C, H, W) and values (B, Q).

    Fields are float32 gauss, values float64 in the units of `units`, NaN where a
    quantity is undefined.
    """
    import torch

    from sunpipe.physics import measure

    def look(w: NDArray[np.float32]) -> tuple[NDArray[np.float32], Floats]:
        with torch.inference_mode():
            fields = generator.fields(torch.from_numpy(np.ascontiguousarray(w, np.float32)), noise)
            found = measure(
                vector(fields, generator.channels),
                generator.pixel_cm,
                names=tuple(names),
                convention=CONVENTION,
            )
            values = torch.stack([found[name].to("cpu", torch.float64) for name in names], dim=1)
            return fields.cpu().numpy(), values.numpy()

    return look


def batches(count: int, size: int) -> Iterator[slice]:
    """Slices of `size` rows that cover `count` rows; the last may be shorter."""
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))
