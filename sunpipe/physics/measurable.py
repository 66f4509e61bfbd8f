"""What images can be measured by, from the names of their channels (no torch here)."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from sunpipe.physics.quantities import MEASURABLE, QUANTITIES

CONVENTION = "physical"
COMPONENTS = ("Br", "Bt", "Bp")
FIELD = "magnetogram"
# Of a line-of-sight field alone: its own keywords, and those of Br with that field in its place.
LINE_OF_SIGHT = ("USFLUXL", "MEANGBL", "R_VALUE", "NETFLUX", "FLUXIMB", "POLSEP", "TILT",
                 "AREA_MM2")  # fmt: skip
WAVES = (94, 131, 171, 193, 211, 304, 335)
# Kind to unit; the wavelength follows: CHFRAC193. `sunpipe.physics.euv` says what they are.
EUV: Mapping[str, str] = MappingProxyType(
    {"LOGI": "log10 DN/s", "ARFRAC": "", "CHFRAC": "", "PSLOPE": ""}
)
_EUV_NAME = re.compile(f"({'|'.join(EUV)})({'|'.join(map(str, WAVES))})")
_EUV_NAMES = tuple(f"{kind}{wave}" for wave in WAVES for kind in EUV)


def euv_parts(name: str) -> tuple[str, str] | None:
    """Kind and channel of an EUV quantity, ``("CHFRAC", "193")``; None for another."""
    match = _EUV_NAME.fullmatch(name)
    return (match[1], match[2]) if match else None


def unit(name: str) -> str:
    """Unit of a quantity as `sunpipe.physics.images.measure_images` gives it."""
    parts = euv_parts(name)
    return EUV[parts[0]] if parts else QUANTITIES[name].unit(CONVENTION)


def measurable(channels: Sequence[str]) -> tuple[str, ...]:
    """Quantities that images with these channels can be measured by.

    ``Br, Bt, Bp`` give those of a vector magnetogram; ``magnetogram`` without them those of
    the line-of-sight field; each EUV wavelength its own.
    """
    names: tuple[str, ...] = ()
    if set(COMPONENTS) <= set(channels):
        names = MEASURABLE
    elif FIELD in channels:
        names = LINE_OF_SIGHT
    waves = [channel for channel in channels if channel in map(str, WAVES)]
    return names + tuple(f"{kind}{wave}" for wave in waves for kind in EUV)


def _hint(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name.upper(), known, n=1)
    return f"did you mean {near[0]}?" if near else "known: " + (", ".join(known) or "none")


def require_measurable(names: Sequence[str], channels: Sequence[str]) -> None:
    """Refuse quantities that images with these channels do not give.

    Raises
    ------
    ValueError
        Says which, and what was perhaps meant.
    """
    known = measurable(channels)
    for name in names:
        if name not in known:
            raise ValueError(
                f"images of {', '.join(channels)} do not give {name} ({_hint(name, known)})"
            )


def check_measurable(names: Sequence[str]) -> None:
    """Refuse names by which no image can be measured, or that stand twice.

    Raises
    ------
    ValueError
        Says which, and what was perhaps meant.
    """
    known = tuple(dict.fromkeys((*MEASURABLE, *LINE_OF_SIGHT, *_EUV_NAMES)))
    for name in names:
        if name in known:
            continue
        if name in QUANTITIES:
            raise ValueError(f"{name} needs maps of a HARP; images have none")
        shown = known if _hint(name, known).startswith("did") else (*MEASURABLE, "LOGI193 ...")
        raise ValueError(f"no quantity {name!r} ({_hint(name, shown)})")
    if len(set(names)) != len(names):
        raise ValueError(f"a quantity stands twice in {', '.join(names)}")
