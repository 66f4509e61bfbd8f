"""Where a walk begins: the latent of a seed, or one from a file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sunpipe.errors import DataError, UsageError
from sunpipe.latent.direction import Floats
from sunpipe.latent.space import Space

if TYPE_CHECKING:
    from sunpipe.latent.generator import Generator


@dataclass(frozen=True)
class Start:
    """A latent to walk from.

    Attributes
    ----------
    x : ndarray, shape (D,)
        Flat latent of the directions' space.
    seed : int or None
        The seed it was drawn with.
    source : str or None
        The file it was read from.
    label : str
        For names of folders.
    """

    x: Floats
    seed: int | None
    source: str | None
    label: str


def from_seed(generator: Generator, space: Space, seed: int) -> Start:
    """The latent that a seed draws, truncated as the samples are."""
    z = generator.sample_z(1, seed)
    if space.name == "z":
        x = z
    else:
        w = generator.map(z, space.psi)
        x = w if space.name == "w" else w[:, None].repeat(1, space.num_ws, 1)
    return Start(x.cpu().numpy().reshape(-1).astype(np.float64), seed, None, f"seed{seed}")


def _read(path: Path) -> tuple[NDArray[np.float64], dict[str, Any]]:
    """Dataset ``w`` and what the file says about it; one clear line otherwise."""
    import h5py

    if not path.is_file():
        raise UsageError(f"--from {path}: there is no such file")
    try:
        with h5py.File(path, "r") as file:
            if "w" not in file or "generator" not in file.attrs:
                raise DataError(
                    f"{path} is no latent file: it needs a dataset w and the attribute generator,"
                    " as walk.h5 of traverse and inversion.h5 of invert have them"
                )
            about = {key: file.attrs[key] for key in ("generator", "space") if key in file.attrs}
            if "x" in file:
                about["x"] = np.asarray(file["x"][()], np.float64)
            return np.asarray(file["w"][()], np.float64), about
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"{path} cannot be read as a latent file ({error})") from None


def layered(w: NDArray[np.float64], generator: Generator, path: Path) -> NDArray[np.float64]:
    """One w for each layer, (num_ws, w_dim), from any form that a latent file may have."""
    size, layers = generator.w_dim, generator.num_ws
    if w.shape in ((size,), (1, size)):
        return np.broadcast_to(w.reshape(1, size), (layers, size)).copy()
    if w.shape in ((layers, size), (1, layers, size)):
        return w.reshape(layers, size)
    raise DataError(
        f"{path} holds w of shape {w.shape}; one latent of this generator is ({size},) or"
        f" ({layers}, {size})"
    )


def from_file(generator: Generator, space: Space, path: Path) -> Start:
    """The latent of a file, in the directions' space.

    A file of ``traverse`` also holds the flat latent of its own space, which a walk in z
    needs: no way leads from w back to z.

    Raises
    ------
    UsageError
        No such file.
    DataError
        No latent file, another generator's, another shape, not finite, or a latent that the
        space cannot hold.
    """
    w, about = _read(path)
    if str(about["generator"]) != generator.digest:
        raise DataError(
            f"{path} belongs to generator {str(about['generator'])[:12]}, not to"
            f" {generator.run} ({generator.digest[:12]})"
        )
    if not np.isfinite(w).all() or not np.isfinite(about.get("x", 0.0)).all():
        raise DataError(f"{path} holds numbers that are not finite")
    if about.get("space") == space.name and "x" in about:
        x = about["x"].reshape(-1)
    elif space.name == "z":
        raise DataError(f"{path} holds w; directions in z need a start that was drawn in z")
    else:
        rows = layered(w, generator, path)
        if space.name == "w" and not (rows == rows[:1]).all():
            raise DataError(
                f"{path} holds another w for every layer; fit directions with"
                " directions.space = 'w_plus' to walk from it"
            )
        x = rows[0] if space.name == "w" else rows.reshape(-1)
    return Start(x, None, str(path), path.resolve().parent.name or path.stem)


def w_of(generator: Generator, space: Space, x: Floats) -> NDArray[np.float32]:
    """Flat latents (K, D) as w (K, w_dim), or (K, num_ws, w_dim) in w_plus."""
    import torch

    flat = torch.from_numpy(np.ascontiguousarray(x, np.float32))
    return space.to_w(generator, flat).cpu().numpy()
