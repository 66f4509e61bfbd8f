"""What took an image, or made it, and in which unit."""

from __future__ import annotations

from collections.abc import Mapping

from sunpipe.fitsfile import FitsError, Value

MADE = {"SIMULATED": "sim.", "SYNTHETIC": "gen."}  # TELESCOP and how its SERIES begins
GAUSS = ("Gauss", "G", "Mx/cm^2")  # 1 G = 1 Mx/cm^2


def made(header: Mapping[str, Value]) -> bool:
    """Whether an image says that no telescope took it; its series is then its own."""
    return header.get("TELESCOP") in MADE


def check_instrument(header: Mapping[str, Value], name: str) -> None:
    """Refuse everything but SDO/HMI, and what was simulated or generated and says so."""
    telescope = header.get("TELESCOP")
    if made(header) and str(header.get("SERIES", "")).startswith(MADE[str(telescope)]):
        return
    if telescope is None:
        raise FitsError(
            "no_keywords", f"{name} has no TELESCOP keyword and no keywords.json beside it has one"
        )
    instrument = str(header.get("INSTRUME", "HMI"))
    if not str(telescope).startswith("SDO") or not (
        "HMI" in str(telescope) or instrument.startswith("HMI")
    ):
        raise FitsError(
            "wrong_instrument",
            f"{name} was taken by {telescope} {header.get('INSTRUME', '')}".rstrip()
            + ", not by SDO/HMI",
        )


def check_unit(header: Mapping[str, Value], name: str) -> None:
    """Refuse a field that is not in gauss."""
    unit = header.get("BUNIT")
    if unit not in GAUSS:
        raise FitsError("unknown_unit", f"{name} has BUNIT = {unit!r}, not " + " or ".join(GAUSS))
