"""`measure`: every quantity of a batch of patches, real or generated, by one function."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import torch

from sunpipe.errors import DataError
from sunpipe.physics import currents, flux, polarity, r_value, shear
from sunpipe.physics.mask import estimate_mask
from sunpipe.physics.patch import Patches
from sunpipe.physics.quantities import CONVENTIONS, QUANTITIES

Tensor = torch.Tensor
SMALLEST = 8  # pixels; below it central differences leave too little
METRES_PER_ARCSEC = 725_274.0  # 696 000 km over 959.63 arcsec: the Sun at 1 au
PIXELS_AT_ONCE = 2**22  # bounds the working memory to about 1 GB

FORMULAS: Mapping[str, Callable[[Patches], Tensor]] = {
    "USFLUX": flux.usflux,
    "MEANGAM": flux.meangam,
    "MEANGBT": flux.meangbt,
    "MEANGBZ": flux.meangbz,
    "MEANGBH": flux.meangbh,
    "MEANJZD": currents.meanjzd,
    "TOTUSJZ": currents.totusjz,
    "MEANALP": currents.meanalp,
    "MEANJZH": currents.meanjzh,
    "TOTUSJH": currents.totusjh,
    "ABSNJZH": currents.absnjzh,
    "SAVNCPP": currents.savncpp,
    "MEANPOT": shear.meanpot,
    "TOTPOT": shear.totpot,
    "MEANSHR": shear.meanshr,
    "SHRGT45": shear.shrgt45,
    "R_VALUE": r_value.r_value,
    "USFLUXL": flux.usfluxl,
    "MEANGBL": flux.meangbl,
    "NETFLUX": flux.netflux,
    "FLUXIMB": flux.fluximb,
    "POLSEP": polarity.polsep,
    "TILT": polarity.tilt,
    "AREA_MM2": flux.area,
}
assert FORMULAS.keys() == QUANTITIES.keys()


def _per_image(value: float | Tensor, name: str, like: Tensor) -> Tensor:
    """A positive number for each image, (B,) float64."""
    numbers = torch.as_tensor(value, dtype=torch.float64, device=like.device)
    if numbers.ndim > 1 or (numbers.ndim == 1 and len(numbers) != len(like)):
        raise ValueError(f"{name} must be one number or {len(like)}, not {tuple(numbers.shape)}")
    if not bool((numbers.isfinite() & (numbers > 0)).all()):
        raise DataError(f"{name} must be finite and positive")
    return numbers.expand(len(like))


def check(fields: Tensor, extras: Mapping[str, Tensor | None], convention: str) -> None:
    """Refuse a wrong convention, wrong shapes, and patches too small to differentiate."""
    if convention not in CONVENTIONS:
        raise ValueError(f"unknown convention {convention!r}; known: {', '.join(CONVENTIONS)}")
    if fields.ndim != 4 or fields.shape[1] != 3:
        raise ValueError(f"fields must be (B, 3, H, W) as Br, Bt, Bp, not {tuple(fields.shape)}")
    if min(fields.shape[2:]) < SMALLEST:
        raise DataError(
            f"a patch of {fields.shape[2]} x {fields.shape[3]} pixels is too small; "
            f"{SMALLEST} x {SMALLEST} is the least"
        )
    wanted = (len(fields), *fields.shape[2:])
    for name, extra in extras.items():
        if extra is not None and tuple(extra.shape) != wanted:
            raise ValueError(f"{name} must be {wanted}, not {tuple(extra.shape)}")


def _finite_or_nan(values: Tensor) -> Tensor:
    """Float64, with infinities as NaN: one mark for what is invalid."""
    values = values.double()
    return values.masked_fill(values.isinf(), torch.nan)


def make_patches(
    fields: Tensor,
    pixel_cm: Tensor,
    metres_per_arcsec: Tensor,
    convention: str,
    mask: Tensor | None = None,
    los: Tensor | None = None,
    los_mask: Tensor | None = None,
) -> Patches:
    """Float64 patches with every mask resolved; the arguments are those of `measure`."""
    fields = _finite_or_nan(fields)
    valid = fields.isfinite().all(dim=1)
    if los is not None:
        los = _finite_or_nan(los)
        los_mask = los.isfinite() & (True if los_mask is None else los_mask.bool())
    return Patches(
        fields=fields,
        pixel_cm=pixel_cm,
        mask=valid & (estimate_mask(fields) if mask is None else mask.bool()),
        metres_per_arcsec=metres_per_arcsec,
        jsoc=convention == "jsoc",
        los=los,
        los_mask=los_mask,
    )


def measure(
    fields: Tensor,
    pixel_cm: float | Tensor,
    mask: Tensor | None = None,
    names: Iterable[str] | None = None,
    convention: str = "physical",
    *,
    los: Tensor | None = None,
    los_mask: Tensor | None = None,
    metres_per_arcsec: float | Tensor = METRES_PER_ARCSEC,
) -> dict[str, Tensor]:
    """Measure vector magnetograms.

    Parameters
    ----------
    fields : Tensor, (B, 3, H, W)
        Br, Bt, Bp in gauss, of any float type and on any device; NaN = invalid.
    pixel_cm : float or Tensor (B,)
        Side of a pixel in cm.
    mask : Tensor, (B, H, W) bool, optional
        Pixels that count; estimated by field strength when missing.
    names : iterable of str, optional
        Quantities wanted; all of `QUANTITIES` when missing.
    convention : {"physical", "jsoc"}
        Consistent units and a true potential field, or the rules of the
        published headers with their quirks (docs/physics.md).
    los, los_mask : Tensor, (B, H, W), optional
        Line-of-sight field in gauss for USFLUXL, MEANGBL and jsoc's R_VALUE, and
        the pixels that count in it (all finite ones when missing).
    metres_per_arcsec : float or Tensor (B,)
        RSUN_REF / RSUN_OBS; the value at 1 au when missing. Enters R_VALUE's
        binning and jsoc's SAVNCPP only.

    Returns
    -------
    dict of str to Tensor (B,) float64
        On the device of `fields`; NaN where undefined, for example all but
        AREA_MM2 where no pixel counts.

    Raises
    ------
    ValueError
        Wrong shapes, an unknown name or convention.
    DataError
        Patches under 8 x 8 pixels, a pixel size that is not positive.
    """
    wanted = tuple(QUANTITIES if names is None else names)
    if unknown := [name for name in wanted if name not in QUANTITIES]:
        raise ValueError(f"unknown quantities {unknown}; known: {', '.join(QUANTITIES)}")
    check(fields, {"mask": mask, "los": los, "los_mask": los_mask}, convention)
    length = _per_image(pixel_cm, "pixel_cm", fields)
    scale = _per_image(metres_per_arcsec, "metres_per_arcsec", fields)
    step = max(1, PIXELS_AT_ONCE // (fields.shape[2] * fields.shape[3]))
    parts: dict[str, list[Tensor]] = {name: [] for name in wanted}
    for start in range(0, len(fields), step):
        rows = slice(start, start + step)
        some = [None if extra is None else extra[rows] for extra in (mask, los, los_mask)]
        patches = make_patches(fields[rows], length[rows], scale[rows], convention, *some)
        for name in wanted:
            parts[name].append(FORMULAS[name](patches))
    empty = fields.new_zeros(0, dtype=torch.float64)
    return {name: torch.cat(values) if values else empty for name, values in parts.items()}
