"""The mark of synthetic images: no header of theirs can be taken for an observation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

# Where a record's identity goes when its header is lent to a synthetic image.
SOURCE = {
    "TELESCOP": "SRCTEL", "INSTRUME": "SRCINST", "ORIGIN": "SRCORIG", "T_REC": "SRCREC",
    "T_OBS": "SRCTOBS", "HARPNUM": "SRCHARP", "NOAA_AR": "SRCNOAA", "NOAA_ARS": "SRCNOAAS",
    "RECNUM": "SRCRNUM", "SERIES": "SRCSER",
}  # fmt: skip
# What else such an image keeps: where its pixels are and from where they are seen.
GEOMETRY = frozenset(
    {"DATE-OBS", "CRLN_OBS", "CRLT_OBS", "HGLN_OBS", "HGLT_OBS", "DSUN_OBS", "DSUN_REF", "RSUN_REF",
     "RSUN_OBS", "CAR_ROT", "WCSNAME", "LONPOLE", "LATPOLE", "WAVELNTH", "WAVEUNIT"}
)  # fmt: skip
_AXES = ("CTYPE", "CRPIX", "CRVAL", "CDELT", "CUNIT", "CROTA", "PC1_", "PC2_", "CD1_", "CD2_")


@dataclass(frozen=True)
class Synthetic:
    """What made an image that no telescope took.

    Attributes
    ----------
    telescop : {"SIMULATED", "SYNTHETIC"}
        A model of the Sun, or a generative network.
    instrume : str
        The model's or network's name.
    generator : str
        Digest of what made the image: weights, or settings.
    history : tuple of str
        Further lines for HISTORY.
    """

    telescop: str
    instrume: str
    generator: str
    history: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.telescop not in ("SIMULATED", "SYNTHETIC"):
            raise ValueError(f"telescop is SIMULATED or SYNTHETIC, not {self.telescop!r}")
        if self.instrume.upper().startswith(("HMI", "AIA", "SDO")) or not self.instrume:
            raise ValueError(f"instrume = {self.instrume!r} names an instrument of SDO, or none")


def _lent(header: Mapping[str, Any]) -> dict[str, Any]:
    """Geometry of a record's header, and its identity under the names of `SOURCE`."""
    kept = {key: value for key, value in header.items()
            if key in GEOMETRY or key.startswith(_AXES)}  # fmt: skip
    return kept | {SOURCE[key]: value for key, value in header.items() if key in SOURCE}


def marked(header: Mapping[str, Any], synthetic: Synthetic) -> dict[str, Any]:
    """Cards of a synthetic image.

    A header with TELESCOP belongs to a record: of it only the geometry is kept, and
    who it was under other names (T_REC as SRCREC, HARPNUM as SRCHARP, ...). Its
    statistics and physical quantities describe other pixels and are dropped.
    """
    cards = _lent(header) if "TELESCOP" in header else dict(header)
    cards |= {
        "TELESCOP": synthetic.telescop,
        "INSTRUME": synthetic.instrume,
        "ORIGIN": "sunpipe",
        "SYNTHET": True,
        "GENHASH": synthetic.generator,
    }
    what = "simulated from a model" if synthetic.telescop == "SIMULATED" else "generated"
    first = f"Not an observation: these pixels were {what} by sunpipe."
    before = [str(line) for line in lines(header.get("HISTORY", ())) if "TELESCOP" not in header]
    cards["HISTORY"] = [first, f"SHA-256 {synthetic.generator}", *synthetic.history, *before]
    return cards


def lines(value: Any) -> Iterable[Any]:
    """Values of a card that may stand several times."""
    return value if isinstance(value, list | tuple) else (value,)
