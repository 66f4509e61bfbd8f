"""Why a quantity of one patch is undefined, in one clause."""

from __future__ import annotations

from sunpipe.physics.currents import twisted
from sunpipe.physics.flux import MIN_BH
from sunpipe.physics.mask import ACTIVE, MIN_BITMAP, MIN_CONFIDENCE, STRONG_FIELD
from sunpipe.physics.measurement import SMALLEST, blank, too_small
from sunpipe.physics.patch import ZERO, Patches
from sunpipe.physics.quantities import NEEDS_VECTOR, QUANTITIES

OF_TWIST = ("MEANALP", "MEANJZH", "TOTUSJH", "ABSNJZH")
OF_CURRENTS = ("MEANJ", "TOTUSJ", "ABSNJ", "MEANALP", "SAVNCPP")


def _of_map(name: str, p: Patches) -> str | None:
    """What is missing of the line-of-sight field or the bitmap."""
    if QUANTITIES[name].needs_bitmap and p.active is None:
        return f"needs the bitmap, in which {ACTIVE} marks the active pixels"
    if ("jsoc" if p.jsoc else "physical") not in QUANTITIES[name].needs_los and p.vector:
        return None
    if p.los is None or p.los_valid is None or p.los_mask is None:
        return "needs the line-of-sight magnetogram"
    if not bool(p.los_valid.any()):
        return "the line-of-sight magnetogram has no valid pixel"
    if name != "R_VALUE" and not bool(p.los_mask.any()):
        return "the line-of-sight magnetogram has no valid pixel in the HARP"
    if bool(blank(p, name).all()):
        return "the line-of-sight magnetogram is 0 everywhere"
    if name == "MEANGBL":
        return "no pixel of the line-of-sight magnetogram has valid neighbours and a gradient"
    return None


def _of_mask(p: Patches, given: bool) -> str | None:
    """Why no pixel counts."""
    if not bool(p.valid.any()):
        return "the field has no valid pixel"
    if bool(p.mask.any()):
        return "the field is 0 in the whole mask" if bool(p.is_blank.all()) else None
    if given:
        return (
            f"no pixel has bitmap >= {MIN_BITMAP}, conf_disambig >= {MIN_CONFIDENCE}"
            " and a valid field"
        )
    return f"no pixel counts: the field is nowhere above {STRONG_FIELD:g} G over an area"


def reason(name: str, p: Patches, given: bool) -> str:
    """Why the value of `name` is undefined.

    Parameters
    ----------
    name : str
        A quantity, or the quantity of an error.
    p : Patches
        One patch.
    given : bool
        Whether the mask comes from JSOC's maps.
    """
    height, width = p.mask.shape[1:]
    if too_small(height, width):
        return (
            f"a patch of {height} x {width} pixels is too small;"
            f" {SMALLEST} x {SMALLEST} is the least"
        )
    if QUANTITIES[name].needs_vector and not p.vector:
        return NEEDS_VECTOR
    if missing := _of_map(name, p):
        return missing
    if QUANTITIES[name].needs_vector and (missing := _of_mask(p, given)):
        return missing
    if name == "R_VALUE":
        return "no polarity inversion line between fields above 150 G"
    if name == "MEANGAM":
        return f"no pixel of the mask has Bh >= {MIN_BH:g} G and Br other than 0"
    up, down = bool((p.bz > 0).any()), bool((p.bz < 0).any())
    if name in ("FLUXIMB", "MEANALP", "POLSEP", "TILT") and not (up or down):
        return "Br is 0 in the whole mask"
    if name in ("POLSEP", "TILT") and not (up and down):
        return "only one polarity stands in the mask"
    if name.startswith("MEANGB"):
        return "no pixel of the mask has valid neighbours and a gradient"
    if name.startswith(OF_CURRENTS) and not bool(p.region.inner.any()):
        return "no pixel of the mask has four valid neighbours"
    if name in OF_TWIST and not bool(twisted(p).any()):
        return f"no pixel of the mask has both a current and Br above {ZERO:g} G"
    if name in ("MEANSHR", "SHRGT45") and not bool(p.has_shear.any()):
        return "the potential field is 0 in the whole mask: there is no angle to it"
    if not bool((p.strength.double() < 1e100).all()):
        return "the field is too strong for floating-point numbers"
    return "undefined for this field"
