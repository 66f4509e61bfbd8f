"""The keywords against the plain loops and the numpy version of the benchmark."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from benchmarks.sharp_peers import Patch, loops, vectorised
from sunpipe.physics import measure

METRES, METRES_PER_ARCSEC = 364_423.0, 716_291.0


@pytest.mark.parametrize("shape", [(43, 47), (44, 51)])  # R's box: 1 and 2 pixels off centre
@pytest.mark.parametrize("peer", [loops, vectorised])
def test_other_ways_to_the_same_numbers(
    peer: Callable[[Patch], dict[str, float]], shape: tuple[int, int]
) -> None:
    rng = np.random.default_rng(6)
    y, x = np.mgrid[: shape[0], : shape[1]]
    br, bt, bp = 900 * np.stack((np.sin(x / 3), np.cos(y / 4 + x / 7), np.cos((x + y) / 5)))
    br, bt, bp = (part + rng.normal(0, 30, shape) for part in (br, bt, bp))
    los = 0.8 * br + rng.normal(0, 6, shape)
    harp = rng.random(shape) < 0.9
    mask = harp & (rng.random(shape) < 0.7)
    arcsec = METRES / METRES_PER_ARCSEC
    expected = peer(Patch(bp, -bt, br, los, mask, harp, arcsec, METRES))
    found = measure(
        torch.tensor(np.stack((br, bt, bp)))[None],
        100 * METRES,
        torch.tensor(mask)[None],
        convention="jsoc",
        los=torch.tensor(los)[None],
        los_mask=torch.tensor(harp)[None],
        metres_per_arcsec=METRES_PER_ARCSEC,
    )
    assert len(expected) == 20
    for name, value in expected.items():
        assert found[name].item() == pytest.approx(value, rel=1e-9), name
    assert expected["R_VALUE"] > 1
