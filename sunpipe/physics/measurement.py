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
SMALLEST = 8  # pixels; below it the frame is half of the patch or more: all is undefined
METRES_PER_ARCSEC = 725_274.0  # 696 000 km over 959.63 arcsec: the Sun at 1 au
# Bounds of the working memory: on a CPU what its caches like, else about 1 GB.
PIXELS_AT_ONCE = {"cpu": 2**18}
PIXELS_ELSEWHERE = 2**22
DTYPES = (torch.float64, torch.float32)
COUNTS = ("AREA_ACR", "AREA_MM2", "CMASKL")  # mean something where the field is 0

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
    "AREA_ACR": flux.area_acr,
    "USFLUXL": flux.usfluxl,
    "MEANGBL": flux.meangbl,
    "CMASKL": flux.cmaskl,
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


def check(
    fields: Tensor, extras: Mapping[str, Tensor | None], convention: str, dtype: torch.dtype
) -> None:
    """Refuse a wrong convention, float type or shape."""
    if convention not in CONVENTIONS:
        raise ValueError(f"unknown convention {convention!r}; known: {', '.join(CONVENTIONS)}")
    if dtype not in DTYPES:
        raise ValueError(f"dtype must be torch.float64 or torch.float32, not {dtype}")
    if fields.ndim != 4 or fields.shape[1] != 3:
        raise ValueError(f"fields must be (B, 3, H, W) as Br, Bt, Bp, not {tuple(fields.shape)}")
    wanted = (len(fields), *fields.shape[2:])
    for name, extra in extras.items():
        if extra is not None and tuple(extra.shape) != wanted:
            raise ValueError(f"{name} must be {wanted}, not {tuple(extra.shape)}")


def too_small(height: int, width: int) -> bool:
    """Whether a patch of this shape is measured at all."""
    return min(height, width) < SMALLEST


def _cleaned(values: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Values of `dtype` with 0 for NaN and infinity, and which of them were numbers.

    A NaN times the 0 of a pixel that does not count would spoil sums and gradients.
    Most patches have none: the extremes, which a NaN becomes, tell so in one pass.
    """
    plain = values.detach()
    if plain.numel() and all(bool(end.isfinite()) for end in torch.aminmax(plain)):
        return values.to(dtype), torch.ones_like(plain, dtype=torch.bool)
    finite = plain.isfinite()
    return torch.where(finite, values, 0.0).to(dtype), finite


def make_patches(
    fields: Tensor,
    pixel_cm: Tensor,
    metres_per_arcsec: Tensor,
    convention: str,
    mask: Tensor | None = None,
    los: Tensor | None = None,
    los_mask: Tensor | None = None,
    active: Tensor | None = None,
    *,
    dtype: torch.dtype = torch.float64,
) -> Patches:
    """Patches with every mask resolved; the arguments are those of `measure`."""
    clean, finite = _cleaned(fields, dtype)
    valid = finite.all(dim=1)
    los_valid = None
    if los is not None:
        los, los_valid = _cleaned(los, dtype)
        los_mask = los_valid if los_mask is None else los_valid & los_mask.bool()
    return Patches(
        fields=clean,
        valid=valid,
        mask=valid & (estimate_mask(clean) if mask is None else mask.bool()),
        pixel_cm=pixel_cm,
        metres_per_arcsec=metres_per_arcsec,
        jsoc=convention == "jsoc",
        los=los,
        los_valid=los_valid,
        los_mask=los_mask if los is not None else None,
        active=active,
    )


def evaluate(p: Patches, name: str) -> Tensor:
    """One quantity of a batch, (B,) float64; NaN where undefined.

    A field that is exactly 0 in the whole mask was not measured: its sums are
    undefined too, not 0.
    """
    value = FORMULAS[name](p)
    if name not in COUNTS:
        value = value.masked_fill(blank(p, name), torch.nan)
    return value.masked_fill(~value.isfinite(), torch.nan)


def blank(p: Patches, name: str) -> Tensor:
    """Whether all of the field that `name` is made from is 0, (B,) bool."""
    if name == "R_VALUE":  # looks at the whole patch
        field = p.los if p.jsoc or not p.vector else p.fields[:, 0]
        return p.pixel_cm.isnan() if field is None else ~(field != 0).flatten(1).any(dim=1)
    if QUANTITIES[name].needs_los:
        if p.los is None or p.los_region is None:
            return p.pixel_cm.isnan()
        return p.los_region.sum(p.los_region.gather(p.los.detach()).abs()) == 0
    return p.is_blank


def measure(
    fields: Tensor,
    pixel_cm: float | Tensor,
    mask: Tensor | None = None,
    names: Iterable[str] | None = None,
    convention: str = "physical",
    *,
    los: Tensor | None = None,
    los_mask: Tensor | None = None,
    active: Tensor | None = None,
    metres_per_arcsec: float | Tensor = METRES_PER_ARCSEC,
    dtype: torch.dtype = torch.float64,
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
    active : Tensor, (B, H, W), optional
        For AREA_ACR: the active pixels (bitmap 34), as truth values or weights.
    metres_per_arcsec : float or Tensor (B,)
        RSUN_REF / RSUN_OBS; the value at 1 au when missing. Enters R_VALUE's
        binning and jsoc's SAVNCPP only.
    dtype : {torch.float64, torch.float32}
        Of the arithmetic; sums are float64 either way.

    Returns
    -------
    dict of str to Tensor (B,) float64
        On the device of `fields`, with its gradient where `fields` asks for one;
        NaN where undefined: all but AREA_MM2 where no pixel counts or where the
        field is 0 in the whole mask, all without any valid pixel and in patches
        under 8 x 8 pixels.

    Raises
    ------
    ValueError
        Wrong shapes, an unknown name, convention or float type.
    DataError
        A pixel size that is not positive.
    """
    wanted = tuple(QUANTITIES if names is None else names)
    if unknown := [name for name in wanted if name not in QUANTITIES]:
        raise ValueError(f"unknown quantities {unknown}; known: {', '.join(QUANTITIES)}")
    extras = {"mask": mask, "los": los, "los_mask": los_mask, "active": active}
    check(fields, extras, convention, dtype)
    length = _per_image(pixel_cm, "pixel_cm", fields)
    scale = _per_image(metres_per_arcsec, "metres_per_arcsec", fields)
    if too_small(*fields.shape[2:]):
        return {name: torch.full_like(length, torch.nan) for name in wanted}
    most = PIXELS_AT_ONCE.get(fields.device.type, PIXELS_ELSEWHERE)
    step = max(1, most // (fields.shape[2] * fields.shape[3]))
    parts: dict[str, list[Tensor]] = {name: [] for name in wanted}
    for start in range(0, len(fields), step):
        rows = slice(start, start + step)
        some = [None if extra is None else extra[rows] for extra in extras.values()]
        patches = make_patches(
            fields[rows], length[rows], scale[rows], convention, *some, dtype=dtype
        )
        for name in wanted:
            parts[name].append(evaluate(patches, name))
    empty = length.new_zeros(0)
    return {name: torch.cat(values) if values else empty for name, values in parts.items()}
