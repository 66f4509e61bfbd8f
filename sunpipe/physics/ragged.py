"""`measure_patches`: patches of any sizes in one call."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

import torch

from sunpipe.physics.measurement import METRES_PER_ARCSEC, measure
from sunpipe.physics.quantities import QUANTITIES

Tensor = torch.Tensor
Maps = Sequence[Tensor | None] | None


def _numbers(value: float | Tensor | Sequence[float], count: int, name: str) -> Tensor:
    """One number for each patch, (N,) float64."""
    numbers = torch.as_tensor(value, dtype=torch.float64)
    if numbers.ndim > 1 or (numbers.ndim == 1 and len(numbers) != count):
        raise ValueError(f"{name} must be one number or {count}, not {tuple(numbers.shape)}")
    return numbers.expand(count)


def _groups(patches: Sequence[Tensor], maps: Sequence[Maps]) -> list[list[int]]:
    """Places of the patches that can be stacked: of one shape, device, type and set of maps."""
    found: defaultdict[tuple[object, ...], list[int]] = defaultdict(list)
    for place, patch in enumerate(patches):
        has = tuple(some is not None and some[place] is not None for some in maps)
        found[(tuple(patch.shape), patch.device, patch.dtype, has)].append(place)
    return list(found.values())


def measure_patches(
    patches: Sequence[Tensor],
    pixel_cm: float | Tensor | Sequence[float],
    masks: Maps = None,
    names: Iterable[str] | None = None,
    convention: str = "physical",
    *,
    los: Maps = None,
    los_masks: Maps = None,
    active: Maps = None,
    metres_per_arcsec: float | Tensor | Sequence[float] = METRES_PER_ARCSEC,
    dtype: torch.dtype = torch.float64,
) -> dict[str, Tensor]:
    """Measure vector magnetograms of different sizes.

    Patches of one shape are measured as one batch by `measure`; nothing is padded,
    so each value is that of the patch alone, to rounding.

    Parameters
    ----------
    patches : sequence of Tensor (3, H, W)
        N patches of Br, Bt, Bp in gauss; NaN = invalid. Each is measured on its device.
    pixel_cm : float, or N of them
        Side of a pixel in cm.
    masks, los, los_masks, active : sequence of Tensor (H, W) or None, optional
        As in `measure`, one for each patch; None where a patch has none.
    names, convention, dtype
        As in `measure`.
    metres_per_arcsec : float, or N of them

    Returns
    -------
    dict of str to Tensor (N,) float64
        In the order of `patches`, on the device of the first; NaN where undefined.

    Raises
    ------
    ValueError, DataError
        As `measure`; a number of maps other than N.
    """
    count = len(patches)
    maps = (masks, los, los_masks, active)
    for name, some in zip(("masks", "los", "los_masks", "active"), maps, strict=True):
        if some is not None and len(some) != count:
            raise ValueError(f"{name} has {len(some)} entries for {count} patches")
    length = _numbers(pixel_cm, count, "pixel_cm")
    scale = _numbers(metres_per_arcsec, count, "metres_per_arcsec")
    wanted = tuple(QUANTITIES if names is None else names)
    rows: dict[str, list[Tensor]] = {name: [] for name in wanted}
    order: list[int] = []
    for places in _groups(patches, maps):
        stacks = [
            None
            if some is None or some[places[0]] is None
            else torch.stack([part for place in places if (part := some[place]) is not None])
            for some in maps
        ]
        found = measure(
            torch.stack([patches[place] for place in places]),
            length[places],
            stacks[0],
            wanted,
            convention,
            los=stacks[1],
            los_mask=stacks[2],
            active=stacks[3],
            metres_per_arcsec=scale[places],
            dtype=dtype,
        )
        order += places
        for name in wanted:
            rows[name].append(found[name])
    if not order:
        return measure(torch.zeros(0, 3, 8, 8), 1.0, names=wanted, convention=convention)
    device = patches[0].device
    back = torch.tensor(order, device=device).argsort()
    return {name: torch.cat([part.to(device) for part in rows[name]])[back] for name in wanted}
