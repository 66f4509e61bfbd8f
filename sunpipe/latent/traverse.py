"""Walk a direction from many bases with fixed noise and measure every step."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from sunpipe.latent.direction import Floats
from sunpipe.latent.measure import Look, batches
from sunpipe.latent.walks import Walk

PICTURE = 128  # pixels; stored pictures of a walk are reduced to at most this
PICTURED = 3  # bases whose fields are kept


def positions(base: Floats, moves: Floats, steps: Floats) -> NDArray[np.float32]:
    """Latents (B, K, D) at ``base + step * move``.

    Parameters
    ----------
    base : ndarray, shape (B, D)
    moves : ndarray, shape (D,) or (B, D)
        Displacement of one step: unit vector times its sigma.
    steps : ndarray, shape (K,)
    """
    moves = np.broadcast_to(np.asarray(moves, np.float64), base.shape)
    walked = base[:, None, :] + np.asarray(steps)[None, :, None] * moves[:, None, :]
    return walked.astype(np.float32)


def shrink(fields: NDArray[np.float32], largest: int = PICTURE) -> NDArray[np.float32]:
    """Mean over whole blocks of pixels, so that (..., H, W) has at most `largest` rows."""
    factor = -(-fields.shape[-1] // largest)
    if factor == 1 or fields.shape[-1] % factor or fields.shape[-2] % factor:
        return fields
    *front, height, width = fields.shape
    blocks = fields.reshape(*front, height // factor, factor, width // factor, factor)
    return blocks.mean(axis=(-3, -1), dtype=np.float64).astype(np.float32)


def walk(
    look: Look,
    base: Floats,
    rows: NDArray[np.int64],
    moves: Floats,
    steps: Floats,
    *,
    target: str,
    kind: str,
    names: list[str],
    units: list[str],
    channels: list[str],
    pixel_cm: float,
    batch: int,
    poll: Callable[[], None],
) -> Walk:
    """Measure all of `names` at every step from every base.

    Parameters
    ----------
    look : callable
        w (B, D) to fields (B, C, H, W) and values (B, Q).
    base : ndarray, shape (B, D)
    rows : ndarray of int, shape (B,)
        Which samples the bases are.
    moves : ndarray, shape (D,) or (B, D)
        Displacement of one step.
    steps : ndarray, shape (K,)
    poll : callable
        Called before each batch; may raise.
    """
    flat = positions(base, moves, steps).reshape(-1, base.shape[1])
    kept = PICTURED * len(steps)
    values, pictures = [], []
    factor = 1.0
    for part in batches(len(flat), batch):
        poll()
        fields, measured = look(flat[part])
        values.append(measured)
        if part.start < kept:
            small = shrink(fields[: kept - part.start])
            factor = fields.shape[-1] / small.shape[-1]
            pictures.append(small)
    images = np.concatenate(pictures)
    return Walk(
        target=target, kind=kind, steps=np.asarray(steps, np.float64),
        sigma=float(np.mean(np.linalg.norm(np.atleast_2d(moves), axis=1))),
        rows=np.asarray(rows, np.int64), names=names, units=units,
        values=np.concatenate(values).reshape(len(base), len(steps), len(names)),
        images=images.reshape(-1, len(steps), *images.shape[1:]), channels=channels,
        pixel_cm=pixel_cm * factor,
    )  # fmt: skip
