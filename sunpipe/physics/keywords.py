"""`sharp_keywords`: one patch, plain numbers, and the reason where there is none."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from sunpipe.errors import DataError
from sunpipe.physics.flux import MIN_BH
from sunpipe.physics.geometry import card, pixel_size_cm
from sunpipe.physics.mask import MIN_BITMAP, MIN_CONFIDENCE, STRONG_FIELD, estimate_mask
from sunpipe.physics.measurement import FORMULAS, check, make_patches
from sunpipe.physics.patch import Patches
from sunpipe.physics.quantities import QUANTITIES
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
        Estimated when bitmap or conf_disambig is missing.
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
    """A batch of one, float64 on the CPU; arrays are copied, as torch shares no read-only one."""
    whole = values if isinstance(values, Tensor) else torch.from_numpy(np.array(values, float))
    return whole.cpu().double()[None]


def _mask(fields: Tensor, bitmap: Any, conf_disambig: Any) -> Tensor:
    """JSOC's rule as far as its maps are there; field strength stands for the confidence."""
    if conf_disambig is None:
        mask = estimate_mask(fields)
    else:
        mask = _tensor(conf_disambig) >= MIN_CONFIDENCE
    return mask if bitmap is None else mask & (_tensor(bitmap) >= MIN_BITMAP)


def _reason(name: str, p: Patches, given: bool) -> str:
    """Why the value of `name` is undefined."""
    convention = "jsoc" if p.jsoc else "physical"
    if convention in QUANTITIES[name].needs_los:
        if p.los is None:
            return "needs the line-of-sight magnetogram"
        return "the line-of-sight magnetogram has no valid pixel in the HARP"
    if name == "R_VALUE":
        return "no polarity inversion line between fields above 150 G"
    if not bool(p.mask.any()):
        if given:
            return (
                f"no pixel has bitmap >= {MIN_BITMAP}, conf_disambig >= {MIN_CONFIDENCE}"
                " and a valid field"
            )
        return f"no pixel counts: the field is nowhere above {STRONG_FIELD:g} G over an area"
    bz = p.bz[p.mask]
    if name == "MEANGAM":
        return f"no pixel of the mask has Bh >= {MIN_BH:g} G and Br other than 0"
    if name in ("POLSEP", "TILT") and not bool((bz > 0).any() and (bz < 0).any()):
        return "only one polarity stands in the mask"
    if name in ("FLUXIMB", "MEANALP", "POLSEP", "TILT") and not bool((bz != 0).any()):
        return "Br is 0 in the whole mask"
    if name.startswith("MEANGB"):
        return "no pixel of the mask has valid neighbours and a gradient"
    if name.startswith(("MEANJ", "TOTUSJ", "ABSNJ", "MEANALP", "SAVNCPP")):
        return "no pixel of the mask has valid neighbours and a current"
    return "undefined for this field"


def _numbers(
    values: Mapping[str, Callable[[], Tensor]], why: Callable[[str], str]
) -> tuple[dict[str, float | None], dict[str, str]]:
    numbers: dict[str, float | None] = {}
    reasons: dict[str, str] = {}
    for name, call in values.items():
        number = float(call())
        numbers[name] = number if math.isfinite(number) else None
        if numbers[name] is None:
            reasons[name] = why(name)
    return numbers, reasons


def sharp_keywords(
    fields: Any,
    header: Mapping[str, Any],
    *,
    bitmap: Any = None,
    conf_disambig: Any = None,
    los: Any = None,
    sigma: Any = None,
    convention: str = "jsoc",
) -> SharpKeywords:
    """Measure one SHARP.

    Parameters
    ----------
    fields : array or Tensor, (3, H, W)
        Br, Bt, Bp in gauss; NaN = invalid.
    header : mapping
        FITS cards CDELT1, RSUN_REF, RSUN_OBS, DSUN_OBS.
    bitmap, conf_disambig : array or Tensor, (H, W), optional
        JSOC's maps. Where one is missing the mask is estimated.
    los : array or Tensor, (H, W), optional
        Line-of-sight magnetogram in gauss.
    sigma : array or Tensor, (3, H, W), optional
        Errors of Br, Bt, Bp in gauss, for the formal errors.
    convention : {"jsoc", "physical"}

    Raises
    ------
    DataError
        No valid pixel, a patch under 8 x 8 pixels, shapes that differ, a header
        without the geometry.
    """
    stack = _tensor(fields)
    extras = {"bitmap": bitmap, "conf_disambig": conf_disambig, "los": los}
    check(stack, {}, convention)
    for name, extra in extras.items():
        if extra is not None and tuple(extra.shape) != tuple(stack.shape[2:]):
            raise DataError(
                f"{name} has {tuple(extra.shape)} pixels, the field {tuple(stack.shape[2:])}"
            )
    if sigma is not None and tuple(sigma.shape) != tuple(stack.shape[1:]):
        raise DataError(f"errors are {tuple(sigma.shape)}, fields {tuple(stack.shape[1:])}")
    if not bool(stack.isfinite().all(dim=1).any()):
        raise DataError("the field has no valid pixel")
    given = bitmap is not None and conf_disambig is not None
    patches = make_patches(
        stack,
        torch.tensor([pixel_size_cm(header)], dtype=torch.float64),
        torch.tensor([card(header, "RSUN_REF") / card(header, "RSUN_OBS")], dtype=torch.float64),
        convention,
        _mask(stack, bitmap, conf_disambig),
        None if los is None else _tensor(los),
        None if los is None or bitmap is None else _tensor(bitmap) >= MIN_BITMAP,
    )

    def why(name: str) -> str:
        return _reason(name, patches, given)

    keywords, reasons = _numbers(
        {name: lambda f=formula: f(patches) for name, formula in FORMULAS.items()},  # type: ignore[misc]
        why,
    )
    errors: dict[str, float | None] = {}
    if sigma is not None:
        spread = _tensor(sigma)
        named = {str(QUANTITIES[name].error): (name, formula) for name, formula in ERRORS.items()}
        errors, missing = _numbers(
            {error: lambda f=formula: f(patches, spread) for error, (_, formula) in named.items()},  # type: ignore[misc]
            lambda error: why(named[error][0]),
        )
        reasons |= missing
    units = {name: quantity.unit(convention) for name, quantity in QUANTITIES.items()}
    return SharpKeywords(
        keywords,
        units,
        errors,
        reasons,
        "given" if given else "estimated",
        int(patches.mask.sum()),
    )
