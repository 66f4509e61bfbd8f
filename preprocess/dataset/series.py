"""Which series a dataset is made of.

One series per channel: HARP numbers of near-real-time and of definitive SHARPs
are unrelated, simulated regions are no observations, and two series show the same
Sun at the same time. What is not chosen is left out, and that is said.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from preprocess.archive import RecordName
from sunpipe.errors import DataError

if TYPE_CHECKING:
    from preprocess.dataset.inputs import Member

FIELD = "magnetogram"  # the channel of HMI's line-of-sight field
UV, VISIBLE = ("1600", "1700"), ("4500",)


def fits_channel(name: RecordName, channel: str) -> bool:
    """Whether a record can be a patch (``patch``), a field, or an AIA image of a wavelength."""
    if channel == "patch":
        return name.harpnum is not None and "sharp_cea_" in name.series
    if channel == FIELD:
        return name.harpnum is None and name.series.startswith("hmi.M_")
    return name.series.startswith("aia.lev1") and str(name.number) == channel


def definitive(channel: str) -> str:
    """The series that is meant when none is named."""
    if channel == "patch":
        return "hmi.sharp_cea_720s"
    if channel == FIELD:
        return "hmi.M_720s"
    if channel in UV:
        return "aia.lev1_uv_24s"
    return "aia.lev1_vis_1h" if channel in VISIBLE else "aia.lev1_euv_12s"


def choose(present: Iterable[str], channel: str, named: Sequence[str] = ()) -> tuple[str, ...]:
    """The series of a channel.

    The named ones; otherwise the definitive one, or the only one there is. A
    simulated series may stand beside an observed one, never unasked.

    Parameters
    ----------
    present : iterable of str
        Series in the archive that fit the channel.
    named : sequence of str
        ``shard.series``.

    Raises
    ------
    DataError
        Several are there, none of them definitive; or several observed ones are named.
    """
    held = sorted(set(present))
    if named:
        held = [series for series in held if series in named]
    elif definitive(channel) in held:
        return (definitive(channel),)
    observed = [series for series in held if not series.startswith("sim.")]
    if len(held) > 1 and (not named or len(observed) > 1):
        raise DataError(f"the archive holds {', '.join(held)} for the same channel; name one of"
                        " them in shard.series: they show the same Sun twice, or are no"
                        " observations")  # fmt: skip
    return tuple(held)


def choose_all(
    members: Sequence[Member], channels: Sequence[str], named: Sequence[str]
) -> tuple[dict[str, list[Member]], Counter[str]]:
    """Records of each channel, and how many of which series fit but are left out."""
    chosen: dict[str, list[Member]] = {}
    left_out: Counter[str] = Counter()
    for channel in channels:
        fitting = [member for member in members if fits_channel(member.name, channel)]
        series = choose((member.name.series for member in fitting), channel, named)
        chosen[channel] = [member for member in fitting if member.name.series in series]
        left_out.update(m.name.series for m in fitting if m.name.series not in series)
    return chosen, left_out
