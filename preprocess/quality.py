"""QUALITY of HMI observables: decoded bits, and three named policies.

Bits as in the JSOC documents for the 12-minute (720 s) chain; see
"Definition of QUALITY Keyword" of the HMI observables pages.
"""

from __future__ import annotations

from typing import Literal

Policy = Literal["strict", "usual", "lenient"]

BITS = {
    0x80000000: "NODATA",
    0x40000000: "TARGETFILTERGRAMMISSING",
    0x20000000: "NOINTERPOLATEDKEYWORDS",
    0x10000000: "NOFRAMELISTINFO",
    0x08000000: "WRONGCADENCE",
    0x04000000: "WRONGTARGET",
    0x02000000: "MISSINGLEV1D",
    0x01000000: "MISSINGKEYWORDLEV1D",
    0x00800000: "WRONGWAVELENGTHNUM",
    0x00400000: "MISSINGKEYWORDLEV1P",
    0x2000: "NOTEMP",
    0x1000: "NOGAPFILL",
    0x800: "LIMBFITISSUE",
    0x400: "NOCOSMICRAY",
    0x200: "ECLIPSE",
    0x100: "LARGEFTSID",
    0x20: "POORQUALITY",
}
USUAL_LIMIT = 0x10000  # QUALITY <= 65536, the cut of much of the flare literature


def signed(quality: int) -> int:
    """QUALITY as a signed 32-bit integer, from either spelling."""
    return ((int(quality) & 0xFFFFFFFF) ^ 0x80000000) - 0x80000000


def decode(quality: int) -> list[str]:
    """Names of the bits that are set, highest first; unnamed bits as hexadecimal."""
    value = int(quality) & 0xFFFFFFFF
    return [BITS.get(1 << bit, hex(1 << bit)) for bit in reversed(range(32)) if value >> bit & 1]


def refusal(quality: int, policy: Policy) -> str | None:
    """Why a record is refused under `policy`, or None.

    Parameters
    ----------
    policy : str
        ``strict``: QUALITY is 0. ``usual``: QUALITY <= 65536, no eclipse and no
        POORQUALITY bit. ``lenient``: the record has an image.
    """
    value = int(quality) & 0xFFFFFFFF
    if policy == "strict":
        refused = value != 0
    elif policy == "usual":
        refused = value > USUAL_LIMIT or bool(value & 0x220)
    else:
        refused = bool(value & 0x80000000)
    if not refused:
        return None
    return f"QUALITY = 0x{value:08x} ({', '.join(decode(value))}) is refused by policy {policy}"
