"""`sharp_keywords`: one patch, plain numbers, and the reason where there is none."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch

from sunpipe.errors import DataError
from sunpipe.physics.geometry import card, pixel_size_cm
from sunpipe.physics.mask import ACTIVE, MIN_BITMAP, MIN_CONFIDENCE, estimate_mask
from sunpipe.physics.measurement import check, evaluate, make_patches, too_small
from sunpipe.physics.patch import Patches
from sunpipe.physics.place import deprojection
from sunpipe.physics.quantities import QUANTITIES
from sunpipe.physics.reasons import reason
from sunpipe.physics.uncertainty import ERRORS

Tensor = torch.Tensor


@dataclass(frozen=True)
class SharpKeywords:
    """The quantities of one patch.

    Attributes
    ----------
    keywords : dict of str to float or None
        None where undefined.
    units : dict of str to str
    errors : dict of str to float or None
        By JSOC's names (ERRVF, ...); empty without the components' errors.
    reasons : dict of str to str
        Why a keyword or an error is None.
    mask : {"given", "estimated"}
        Estimated when a map that the mask needs is missing: bitmap or, for the
        vector field, conf_disambig.
    cmask : int
        Number of pixels that count.
    """

    keywords: dict[str, float | None]
    units: dict[str, str]
    errors: dict[str, float | None]
    reasons: dict[str, str]
    mask: str
    cmask: int


def _tensor(values: Any) -> Tensor:
    """A batch of one, on its device; read-only arrays are copied, as torch shares none."""
    if not isinstance(values, Tensor):
        values = torch.from_numpy(np.require(values, np.float64, ("C", "W")))
    return values[None]


def _outline(
    bitmap: Any, header: Mapping[str, Any], convention: str, like: Tensor
) -> tuple[Tensor | None, Tensor | None, dict[str, str]]:
    """Pixels of the HARP, area of its active ones in pixels, and what is missing for that."""
    if bitmap is None:
        return None, None, {}
    codes = _tensor(bitmap).to(like.device)
    active = codes == ACTIVE
    area = active.double()
    if convention == "jsoc":
        _, rows, columns = (place.cpu().numpy() for place in active.nonzero(as_tuple=True))
        try:
            weights = deprojection(header, rows, columns)
        except DataError as error:
            return codes >= MIN_BITMAP, area, {"AREA_ACR": str(error)}
        area[active] = torch.from_numpy(weights).to(area)
    return codes >= MIN_BITMAP, area, {}


def _numbers(
    formulas: Mapping[str, Callable[[], Tensor]], why: Callable[[str], str]
) -> tuple[dict[str, float | None], dict[str, str]]:
    """Finite numbers, and for the others the reason."""
    numbers: dict[str, float | None] = {}
    for name, formula in formulas.items():
        number = float(formula())
        numbers[name] = number if math.isfinite(number) else None
    return numbers, {name: why(name) for name, number in numbers.items() if number is None}


def _undefined() -> Tensor:
    return torch.tensor(torch.nan)


def _result(
    p: Patches, given: bool, sigma: Tensor | None, lacking: Mapping[str, str]
) -> SharpKeywords:
    """All quantities of one patch; `lacking` names those that the header does not allow."""
    small = too_small(*p.mask.shape[1:])

    def why(name: str) -> str:
        return lacking.get(name) or reason(name, p, given)

    def formula(name: str) -> Callable[[], Tensor]:
        measured = p.vector or not QUANTITIES[name].needs_vector
        return partial(evaluate, p, name) if measured and name not in lacking else _undefined

    keywords, reasons = _numbers(
        {name: _undefined if small else formula(name) for name in QUANTITIES}, why
    )
    errors: dict[str, float | None] = {}
    if sigma is not None:
        names = {str(QUANTITIES[name].error): name for name in ERRORS}
        errors, missing = _numbers(
            {
                # An undefined quantity has no error, whatever its formula gives.
                error: _undefined if keywords[name] is None else partial(ERRORS[name], p, sigma)
                for error, name in names.items()
            },
            lambda error: (
                why(names[error])
                if keywords[names[error]] is None
                else "no pixel that counts has a valid error"
            ),
        )
        reasons |= missing
    region = p.region if p.vector else p.los_region
    convention = "jsoc" if p.jsoc else "physical"
    return SharpKeywords(
        keywords,
        {name: quantity.unit(convention) for name, quantity in QUANTITIES.items()},
        errors,
        reasons,
        "given" if given else "estimated",
        0 if region is None else int(region.count()),
    )


def _check_shapes(shape: tuple[int, ...], maps: Mapping[str, Any]) -> None:
    for name, extra in maps.items():
        if extra is not None and tuple(extra.shape) != shape:
            raise DataError(f"{name} has {tuple(extra.shape)} pixels, the field {shape}")


def _geometry(header: Mapping[str, Any], like: Tensor) -> tuple[Tensor, Tensor]:
    """Side of a pixel in cm and RSUN_REF / RSUN_OBS, (1,) each."""
    numbers = (pixel_size_cm(header), card(header, "RSUN_REF") / card(header, "RSUN_OBS"))
    length, scale = (torch.tensor([x], dtype=torch.float64, device=like.device) for x in numbers)
    return length, scale


def sharp_keywords(
    fields: Any,
    header: Mapping[str, Any],
    *,
    bitmap: Any = None,
    conf_disambig: Any = None,
    los: Any = None,
    sigma: Any = None,
    convention: str = "jsoc",
    dtype: torch.dtype = torch.float64,
) -> SharpKeywords:
    """Measure one SHARP.

    Parameters
    ----------
    fields : array or Tensor, (3, H, W)
        Br, Bt, Bp in gauss; NaN = invalid. A tensor is measured on its device.
    header : mapping
        FITS cards CDELT1, RSUN_REF, RSUN_OBS, DSUN_OBS; for jsoc's AREA_ACR also
        CRPIX1/2, CRVAL1/2, CRLN_OBS, CRLT_OBS.
    bitmap, conf_disambig : array or Tensor, (H, W), optional
        JSOC's maps. Where one is missing the mask is estimated: field strength
        stands for the confidence, the whole rectangle for the HARP.
    los : array or Tensor, (H, W), optional
        Line-of-sight magnetogram in gauss.
    sigma : array or Tensor, (3, H, W), optional
        Errors of Br, Bt, Bp in gauss, for the formal errors.
    convention : {"jsoc", "physical"}
    dtype : {torch.float64, torch.float32}
        Of the arithmetic.

    Returns
    -------
    SharpKeywords
        None with a reason where a quantity is undefined, also for a field without
        any valid pixel and for patches under 8 x 8 pixels.

    Raises
    ------
    DataError
        Shapes that differ, a header without the geometry.
    """
    stack = _tensor(fields)
    check(stack, {}, convention, dtype)
    maps = {"bitmap": bitmap, "conf_disambig": conf_disambig, "los": los}
    _check_shapes(tuple(stack.shape[2:]), maps)
    if sigma is not None and tuple(sigma.shape) != tuple(stack.shape[1:]):
        raise DataError(f"errors are {tuple(sigma.shape)}, fields {tuple(stack.shape[1:])}")
    harp, active, lacking = _outline(bitmap, header, convention, stack)
    if conf_disambig is None:
        mask = estimate_mask(stack)
    else:
        mask = _tensor(conf_disambig).to(stack.device) >= MIN_CONFIDENCE
    patches = make_patches(
        stack,
        *_geometry(header, stack),
        convention,
        mask if harp is None else mask & harp,
        None if los is None else _tensor(los).to(stack.device),
        harp,
        active,
        dtype=dtype,
    )
    spread = None if sigma is None else _tensor(sigma).to(stack.device, dtype)
    given = bitmap is not None and conf_disambig is not None
    return _result(patches, given, spread, lacking)


def sharp_keywords_los(
    los: Any,
    header: Mapping[str, Any],
    *,
    bitmap: Any = None,
    convention: str = "jsoc",
    dtype: torch.dtype = torch.float64,
) -> SharpKeywords:
    """Measure one patch of which only the line-of-sight field is known.

    USFLUXL, MEANGBL, CMASKL, R_VALUE and, with a bitmap, AREA_ACR; everything else
    is None with its reason. The field is taken as it is, not divided by the cosine
    of the angle to the centre of the disk. R_VALUE is made from it in both conventions.

    Parameters
    ----------
    los : array or Tensor, (H, W)
        Line-of-sight magnetogram in gauss; NaN = invalid.
    header : mapping
        As in `sharp_keywords`.
    bitmap : array or Tensor, (H, W), optional
        JSOC's map. Without it all valid pixels of the rectangle count.
    convention : {"jsoc", "physical"}
    dtype : {torch.float64, torch.float32}

    Raises
    ------
    DataError
        Shapes that differ, a header without the geometry.
    """
    field = _tensor(los)
    if field.ndim != 3:
        raise ValueError(f"los must be (H, W), not {tuple(field.shape[1:])}")
    nothing = field.new_zeros(1, 3, *field.shape[1:])
    check(nothing, {}, convention, dtype)
    _check_shapes(tuple(field.shape[1:]), {"bitmap": bitmap})
    harp, active, lacking = _outline(bitmap, header, convention, field)
    patches = make_patches(
        nothing,
        *_geometry(header, field),
        convention,
        torch.zeros_like(field, dtype=torch.bool),
        field,
        harp,
        active,
        dtype=dtype,
    )
    return _result(replace(patches, vector=False), bitmap is not None, None, lacking)
