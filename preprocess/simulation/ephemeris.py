"""Where the Earth stands as seen from the Sun, and JSOC's TAI times.

Low-precision formulas of J. Meeus, Astronomical Algorithms (2nd ed. 1998), chapters 25
(distance) and 29 (heliographic coordinates), without tables or network: within 0.05
degree and 5e-5 au of sunpy, which is what a simulated observer needs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime, timedelta

from sunpipe.errors import UsageError
from sunpipe.fits import T_REC

AU_M = 149_597_870_700.0  # IAU 2012 resolution B2
JSOC_AU_M = 149_597_870_691.0  # DSUN_REF of HMI headers
RSUN_M = 696_000_000.0  # RSUN_REF of HMI headers
SLOT_S = 720  # the cadence of hmi.sharp_cea_720s, counted from EPOCH
EPOCH = datetime(1993, 1, 1)
# TAI - UTC in seconds from these dates on (IERS Bulletin C).
_LEAPS = (
    (datetime(2009, 1, 1), 34), (datetime(2012, 7, 1), 35),
    (datetime(2015, 7, 1), 36), (datetime(2017, 1, 1), 37),
)  # fmt: skip


@dataclass(frozen=True)
class Observer:
    """An observer at the Earth's centre.

    Attributes
    ----------
    lon, lat : float
        Carrington longitude L0 and heliographic latitude B0 of the disc centre, degrees.
    distance_m : float
        From the Sun's centre.
    rotation : int
        Carrington rotation number.
    """

    lon: float
    lat: float
    distance_m: float
    rotation: int

    @property
    def radius_arcsec(self) -> float:
        """Angular radius of the Sun, arcsec: asin(RSUN_REF / DSUN_OBS)."""
        return math.degrees(math.asin(RSUN_M / self.distance_m)) * 3600.0


def parse_time(t_rec: str) -> datetime:
    """A TAI time of the archive as a naive datetime, which has no leap seconds either.

    Raises
    ------
    UsageError
        When it is not of the form 2011.02.15_02:00:00_TAI.
    """
    try:
        if not T_REC.fullmatch(t_rec):
            raise ValueError
        return datetime.strptime(t_rec[:19], "%Y.%m.%d_%H:%M:%S")
    except ValueError:
        raise UsageError(f"{t_rec!r} is not a time such as 2011.02.15_02:00:00_TAI") from None


def format_time(when: datetime) -> str:
    """Inverse of `parse_time`."""
    return when.strftime("%Y.%m.%d_%H:%M:%S_TAI")


def slot(when: datetime) -> datetime:
    """The last time of the 720 s grid that is not after `when`."""
    seconds = (when - EPOCH).total_seconds()
    return EPOCH + timedelta(seconds=seconds // SLOT_S * SLOT_S)


def utc(tai: datetime) -> datetime:
    """TAI to UTC; 34 s apart before 2009 too, when SDO did not fly."""
    offset = _LEAPS[0][1]
    for since, seconds in _LEAPS:
        if tai >= since + timedelta(seconds=seconds):
            offset = seconds
    return tai - timedelta(seconds=offset)


def observer(tai: datetime) -> Observer:
    """The Earth at a TAI time."""
    terrestrial = tai + timedelta(seconds=32.184)
    jd = (terrestrial - datetime(2000, 1, 1, 12)).total_seconds() / 86400.0 + 2451545.0
    century = (jd - 2451545.0) / 36525.0
    mean_lon = 280.46646 + 36000.76983 * century + 0.0003032 * century**2  # (25.2)
    anomaly = math.radians(357.52911 + 35999.05029 * century - 0.0001537 * century**2)  # (25.3)
    eccentricity = 0.016708634 - 0.000042037 * century  # (25.4)
    centre = (
        (1.914602 - 0.004817 * century) * math.sin(anomaly)
        + (0.019993 - 0.000101 * century) * math.sin(2 * anomaly)
        + 0.000289 * math.sin(3 * anomaly)
    )
    true = anomaly + math.radians(centre)
    distance = 1.000001018 * (1 - eccentricity**2) / (1 + eccentricity * math.cos(true))  # (25.5)
    longitude = mean_lon + centre  # of the Sun, mean equinox of date
    apparent = math.radians(longitude - 20.4898 / 3600.0 / distance)  # aberration (25.10)
    theta = (jd - 2398220.0) * 360.0 / 25.38
    tilt = math.radians(7.25)  # I, inclination of the Sun's equator
    node = 73.6667 + 1.3958333 * (jd - 2396758.0) / 36525.0  # K
    from_node = apparent - math.radians(node)
    latitude = math.degrees(math.asin(math.sin(from_node) * math.sin(tilt)))
    eta = math.degrees(math.atan2(-math.sin(from_node) * math.cos(tilt), -math.cos(from_node)))
    lon = (eta - theta) % 360.0
    # Rotation C begins near this date (29.1), when L0 is 0; L0 itself tells the fraction.
    rotation = round((jd - 2398140.2270) / 27.2752316 - (1.0 - lon / 360.0))
    return Observer(lon, latitude, distance * AU_M, rotation)
