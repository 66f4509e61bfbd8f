"""QUALITY of HMI and AIA images: bits in words, and three named policies.

The same bit means different things in the two chains that make HMI observables,
so a value is only read together with its chain. The programs name themselves in
the CODEVER0 card of every HMI record: ``HMI_IQUV_averaging.c`` is the 720 s
chain (SHARP too), ``HMI_observables.c`` the 45 s one.

References
----------
HMI: the ``QUAL_*`` definitions of JSOC's ``HMI_IQUV_averaging.c`` and
``HMI_observables.c`` (lev1.5_hmi). AIA: SDO User Guide, section 7.7.6, table 2.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal, get_args

from sunpipe.fitsfile import FitsError

Policy = Literal["strict", "usual", "lenient"]
Chain = Literal["hmi_720s", "hmi_45s", "aia"]

_HMI = {
    31: "NODATA",
    30: "TARGETFILTERGRAMMISSING",
    29: "NOINTERPOLATEDKEYWORDS",
    28: "NOFRAMELISTINFO",
    27: "WRONGCADENCE",
    16: "LOWINTERPNUM",
    15: "LOWKEYWORDNUM",
    14: "ISSTARGET",
    13: "NOTEMP",
    12: "NOGAPFILL",
    11: "LIMBFITISSUE",
    10: "NOCOSMICRAY",
    5: "POORQUALITY",
}
BITS: dict[Chain, dict[int, str]] = {
    "hmi_720s": _HMI
    | {
        26: "WRONGFRAMELISTSIZE",
        25: "WRONGNPOL",
        24: "WRONGPOLTYPE",
        23: "WRONGTARGET",
        22: "ERRORFRAMELIST",
        21: "WRONGWAVELENGTHNUM",
        20: "NOLOOKUPRECORD",
        19: "NOLOOKUPKEYWORD",
        18: "NOTENOUGHINTERPOLANTS",
        17: "INTERPOLATIONFAILED",
        9: "ECLIPSE",
        8: "LARGEFTSID",
    },
    "hmi_45s": _HMI
    | {
        26: "WRONGTARGET",
        25: "MISSINGLEV1D",
        24: "MISSINGKEYWORDLEV1D",
        23: "WRONGWAVELENGTHNUM",
        22: "MISSINGKEYWORDLEV1P",
        21: "NOLOOKUPRECORD",
        20: "NOLOOKUPKEYWORD",
        19: "NOTENOUGHINTERPOLANTS",
        18: "INTERPOLATIONFAILED",
        17: "MISSINGLEV1P",
        9: "NOCOEFFKEYWORD",
        8: "ECLIPSE",
        7: "NOCOEFFPRECORD",
        6: "LARGEFTSID",
    },
    "aia": {
        31: "NOIMAGE",
        30: "QUICKLOOK",
        21: "REGISTER",
        20: "OUTOFFOCUS",
        18: "CALIBRATIONIMAGE",
        17: "ISSLOOPOPEN",
        16: "DARKIMAGE",
        15: "SAFEMODE",
        14: "NOSUNPRESENCE",
        13: "ECLIPSE",
        12: "NOTSCIENCEPOINTING",
        11: "MISSING25PERCENT",
        10: "MISSING5PERCENT",
        9: "MISSING1PERCENT",
        8: "MISSVALS",
        4: "NOLIMBFIT",
        3: "NOMASTERPOINTING",
        2: "NOANCILLARY",
        1: "NOORBIT",
        0: "NOFLATFIELD",
    },
}


def _mask(*bits: int) -> int:
    return sum(1 << bit for bit in bits)


def _bit(chain: Chain, name: str) -> int:
    return next(1 << bit for bit, word in BITS[chain].items() if word == name)


USUAL_LIMIT = 0x10000  # QUALITY <= 65536, the cut of much of the HMI flare literature
# AIA bits that leave the pixels as they are: notes on auxiliary data, a few missing
# pixels, and quick-look processing.
AIA_HARMLESS = _mask(0, 1, 2, 3, 4, 8, 30)
# AIA images that do not show the Sun: none, calibration, dark frame, Sun not in view.
AIA_NO_SUN = _mask(31, 18, 16, 14)


def signed(quality: int) -> int:
    """QUALITY as a signed 32-bit integer, from either spelling."""
    return ((int(quality) & 0xFFFFFFFF) ^ 0x80000000) - 0x80000000


def decode(quality: int, chain: Chain = "hmi_720s") -> list[str]:
    """Names of the bits that are set, highest first; unnamed bits as hexadecimal."""
    value = int(quality) & 0xFFFFFFFF
    names = BITS[chain]
    return [names.get(bit, hex(1 << bit)) for bit in reversed(range(32)) if value >> bit & 1]


def eclipsed(quality: int, chain: Chain = "hmi_720s") -> bool:
    """Whether the chain's ECLIPSE bit is set."""
    return bool(int(quality) & _bit(chain, "ECLIPSE"))


def chain_of(header: Mapping[str, Any], series: str | None = None) -> Chain:
    """Which chain wrote a record's QUALITY.

    Parameters
    ----------
    header : mapping
        Cards of the record: TELESCOP, and for HMI one of CODEVER0, CADENCE.
    series : str, optional
        JSOC series, which decides when it is given and says so.

    Raises
    ------
    FitsError
        ``wrong_instrument``: neither HMI nor AIA; ``no_keywords``: an HMI record
        of unknown cadence.
    """
    if series is not None:
        if series.startswith("aia"):
            return "aia"
        if match := re.match(r"(?:hmi|su_)\S*?_(720|45)s", series):
            return "hmi_720s" if match.group(1) == "720" else "hmi_45s"
    who = f"{header.get('TELESCOP', '')} {header.get('INSTRUME', '')}"
    if "AIA" in who:
        return "aia"
    if "HMI" not in who:
        raise FitsError("wrong_instrument", f"QUALITY of {who.strip() or 'an unknown instrument'}"
                        " is not known; sunpipe knows that of SDO/HMI and SDO/AIA")  # fmt: skip
    program = str(header.get("CODEVER0", ""))
    if "IQUV_averaging" in program:
        return "hmi_720s"
    if "HMI_observables" in program:
        return "hmi_45s"
    cadence = header.get("CADENCE")
    if isinstance(cadence, int | float) and round(cadence) in (45, 720):
        return "hmi_720s" if round(cadence) == 720 else "hmi_45s"
    raise FitsError("no_keywords", "an HMI record without series, CODEVER0 and CADENCE: the bits"
                    " of its QUALITY have no known meaning")  # fmt: skip


def _refused(value: int, policy: Policy, chain: Chain) -> bool:
    if policy == "strict":
        return value != 0
    if chain == "aia":
        return bool(value & (~AIA_HARMLESS if policy == "usual" else AIA_NO_SUN))
    if policy == "usual":
        bad = _bit(chain, "ECLIPSE") | _bit(chain, "POORQUALITY")
        return value > USUAL_LIMIT or bool(value & bad)
    return bool(value & _bit(chain, "NODATA"))


def refusal(quality: int, policy: Policy, chain: Chain = "hmi_720s") -> str | None:
    """Why a record is refused under `policy`, or None.

    Parameters
    ----------
    quality : int
        QUALITY, signed or unsigned.
    policy : str
        ``strict``: QUALITY is 0. ``usual``, HMI: QUALITY <= 65536, no eclipse
        and no POORQUALITY; AIA: at most notes on auxiliary data, MISSVALS under
        1 %, quick-look. ``lenient``, HMI: the record has an image; AIA: and it
        shows the Sun.
    chain : str
        ``hmi_720s``, ``hmi_45s`` or ``aia``; see `chain_of`.
    """
    if policy not in get_args(Policy) or chain not in get_args(Chain):
        raise ValueError(f"no policy {policy!r} for chain {chain!r}")
    value = int(quality) & 0xFFFFFFFF
    if not _refused(value, policy, chain):
        return None
    return (
        f"QUALITY = 0x{value:08x} ({', '.join(decode(value, chain))}) is refused by policy {policy}"
    )
