"""The table of quantities: name, unit in each convention, meaning (no torch here)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

CONVENTIONS = ("jsoc", "physical")
NEEDS_VECTOR = "needs the vector field: Br, Bt and Bp"  # reason of a null


@dataclass(frozen=True)
class Quantity:
    """One number that describes a vector magnetogram.

    Attributes
    ----------
    name : str
        JSOC's keyword where JSOC publishes it, else a name in the same style.
    units : mapping
        Convention to unit; ``""`` for a pure number.
    meaning : str
        One line.
    in_jsoc : bool
        Whether SHARP headers carry it.
    needs_los : tuple of str
        The conventions in which it needs the line-of-sight magnetogram.
    needs_bitmap : bool
        Whether it needs the map of the HARP.
    needs_vector : bool
        Whether it needs the three components; else the maps above suffice.
    differentiable : bool
        Whether its gradient by the field means something: counts have none.
    error : str or None
        JSOC's keyword of its formal error.
    """

    name: str
    units: Mapping[str, str]
    meaning: str
    in_jsoc: bool = True
    needs_los: tuple[str, ...] = ()
    error: str | None = None
    needs_bitmap: bool = False
    needs_vector: bool = True
    differentiable: bool = True

    def unit(self, convention: str) -> str:
        """Unit of the value in `convention`."""
        return self.units[convention]


def _both(unit: str) -> Mapping[str, str]:
    return MappingProxyType(dict.fromkeys(CONVENTIONS, unit))


def _each(jsoc: str, physical: str) -> Mapping[str, str]:
    return MappingProxyType({"jsoc": jsoc, "physical": physical})


_GRADIENT = _each("G/pixel", "G/Mm")
_ROWS = (
    Quantity("USFLUX", _both("Mx"), "total unsigned radial flux", error="ERRVF"),
    Quantity("MEANGAM", _both("deg"), "mean inclination from the radial", error="ERRGAM"),
    Quantity("MEANGBT", _GRADIENT, "mean horizontal gradient of |B|", error="ERRBT"),
    Quantity("MEANGBZ", _GRADIENT, "mean horizontal gradient of Br", error="ERRBZ"),
    Quantity("MEANGBH", _GRADIENT, "mean horizontal gradient of Bh", error="ERRBH"),
    Quantity("MEANJZD", _both("mA/m^2"), "mean vertical current density", error="ERRJZ"),
    Quantity("TOTUSJZ", _both("A"), "total unsigned vertical current", error="ERRUSI"),
    Quantity("MEANALP", _both("1/Mm"), "mean twist alpha, weighted by Br^2", error="ERRALP"),
    Quantity("MEANJZH", _both("G^2/m"), "mean current helicity", error="ERRMIH"),
    Quantity("TOTUSJH", _both("G^2/m"), "total unsigned current helicity", error="ERRTUI"),
    Quantity("ABSNJZH", _both("G^2/m"), "absolute net current helicity", error="ERRTAI"),
    Quantity("SAVNCPP", _both("A"), "sum of |net current| of the two polarities", error="ERRJHT"),
    Quantity("MEANPOT", _both("erg/cm^3"), "mean free energy density", error="ERRMPOT"),
    Quantity("TOTPOT", _both("erg/cm"), "total free energy density", error="ERRTPOT"),
    Quantity(
        "MEANSHR", _both("deg"), "mean angle between B and the potential field", error="ERRMSHA"
    ),
    Quantity(
        "SHRGT45",
        _both("%"),
        "share of pixels sheared by more than 45 degrees",
        differentiable=False,
    ),
    Quantity(
        "R_VALUE",
        _each("log10 G", "log10 Mx"),
        "flux near strong polarity inversion lines",
        needs_los=("jsoc",),
        needs_vector=False,
    ),
    Quantity(
        "AREA_ACR",
        _both("uHem"),
        "area of the active pixels, millionths of the hemisphere",
        needs_bitmap=True,
        needs_vector=False,
        differentiable=False,
    ),
    Quantity(
        "USFLUXL",
        _both("Mx"),
        "total unsigned line-of-sight flux",
        needs_los=CONVENTIONS,
        needs_vector=False,
    ),
    Quantity(
        "MEANGBL",
        _GRADIENT,
        "mean gradient of the line-of-sight field",
        needs_los=CONVENTIONS,
        needs_vector=False,
    ),
    Quantity(
        "CMASKL",
        _both("pixel"),
        "pixels that count in the line-of-sight field",
        needs_los=CONVENTIONS,
        needs_vector=False,
        differentiable=False,
    ),
    Quantity("NETFLUX", _both("Mx"), "net radial flux", in_jsoc=False),
    Quantity("FLUXIMB", _both(""), "net over unsigned flux, -1 to 1", in_jsoc=False),
    Quantity("POLSEP", _both("Mm"), "distance between the polarities' centroids", in_jsoc=False),
    Quantity(
        "TILT",
        _both("deg"),
        "angle of the axis from the eastern to the western polarity, north of west",
        in_jsoc=False,
    ),
    Quantity("AREA_MM2", _both("Mm^2"), "area of the mask", in_jsoc=False, differentiable=False),
)
QUANTITIES: Mapping[str, Quantity] = MappingProxyType({row.name: row for row in _ROWS})
MEASURABLE = tuple(
    row.name for row in _ROWS if "physical" not in row.needs_los and not row.needs_bitmap
)
