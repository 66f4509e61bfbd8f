"""Questions from a latent file: ``walk.h5`` of traverse, ``inversion.h5`` of invert.

Such a file has the dataset ``w``, one latent (w_dim,) or one for each layer (num_ws, w_dim),
and the attribute ``generator``, the digest of the generator it belongs to. A walk also has
``path``, the latents of all its frames.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from sunpipe.embed.query import generated_query, open_generator
from sunpipe.errors import DataError, UsageError
from sunpipe.index.search import Query
from sunpipe.index.store import IndexInfo
from sunpipe.latent.generator import Noise


@dataclass(frozen=True)
class LatentFile:
    """One latent of a file.

    Attributes
    ----------
    w : float32 ndarray
        (w_dim,), (num_ws, w_dim), or with a leading axis of 1.
    generator : str
        Digest.
    run : str or None
        Name of the generator's run, where the file says it.
    noise : str
        ``const`` or ``none``.
    """

    w: NDArray[np.float32]
    generator: str
    run: str | None
    noise: str


def read_latent(path: Path, frame: int | None = None) -> LatentFile:
    """Read one latent: ``w``, or frame `frame` of ``path`` (negative: from the end).

    Raises
    ------
    UsageError
        No such file, or no such frame.
    DataError
        Not a latent file, or a latent that is not finite.
    """
    import h5py
    import hdf5plugin  # noqa: F401  registers bitshuffle

    if not path.is_file():
        raise UsageError(f"--latent {path}: there is no such file")
    try:
        with h5py.File(path, "r") as file:
            digest = file.attrs.get("generator")
            if digest is None or "w" not in file:
                raise DataError(
                    f"{path} is no latent file: it needs a dataset w and the attribute generator,"
                    " as walk.h5 of traverse and inversion.h5 of invert have them"
                )
            run, noise = file.attrs.get("run"), str(file.attrs.get("noise", "const"))
            if frame is None:
                w = np.asarray(file["w"][()], np.float32)
            else:
                if "path" not in file:
                    raise UsageError(f"--frame {frame}: {path} holds one latent and no walk")
                count = len(file["path"])
                if not -count <= frame < count:
                    raise UsageError(f"--frame {frame}: {path} has frames 0 to {count - 1}")
                w = np.asarray(file["path"][frame % count], np.float32)
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"{path} cannot be read as a latent file ({error})") from None
    if not np.isfinite(w).all():
        raise DataError(f"{path} holds numbers that are not finite")
    return LatentFile(w, str(digest), None if run is None else str(run), noise)


def latent_query(
    info: IndexInfo, path: Path, frame: int | None = None, run: str | None = None,
    encoder_run: str | None = None, index: Path | None = None,
) -> Query:  # fmt: skip
    """Ask with the patch of a latent file.

    Parameters
    ----------
    run : str, optional
        Run of the generator, when it is not where the file says.

    Raises
    ------
    UsageError, DataError
        As `read_latent`; or the latent is another generator's.
    """
    found = read_latent(path, frame)
    if run is None and found.run is None:
        raise UsageError(f"{path} does not say its generator's run; give it with --run")
    generator, encoder = open_generator(info, str(run or found.run), encoder_run, index)
    if found.generator != generator.digest:
        raise DataError(
            f"{path} belongs to generator {found.generator[:12]}, the newest of {generator.run} is"
            f" {generator.digest[:12]}; give the run that made it with --run, or make it again"
        )
    size, layers = generator.w_dim, generator.num_ws
    one = found.w.reshape(found.w.shape[1:]) if found.w.shape[:1] == (1,) else found.w
    if one.shape not in ((size,), (layers, size)):
        raise DataError(
            f"{path} holds w of shape {found.w.shape}; one latent of {generator.run} is ({size},)"
            f" or ({layers}, {size})"
        )
    about = {"kind": "latent", "file": str(path), "frame": frame}
    noise: Noise = "none" if found.noise == "none" else "const"
    w = torch.from_numpy(np.ascontiguousarray(one))[None]
    return generated_query(generator, encoder, w, about, noise)
