"""Full-disk images from the archive: judged, then calibrated.

`judge` refuses what cannot be used, with a reason for the quarantine;
`calibrate_aia` and `calibrate_hmi` give a `DiskImage` in DN/s or gauss, solar
north up, the Sun in the middle and of one size. See docs/calibration.md.
"""

from __future__ import annotations

from preprocess.calibration.aia import calibrate_aia
from preprocess.calibration.hmi import calibrate_hmi
from preprocess.calibration.image import DiskImage, DiskSettings
from preprocess.calibration.judge import Census, Limits, judge

__all__ = [
    "Census",
    "DiskImage",
    "DiskSettings",
    "Limits",
    "calibrate_aia",
    "calibrate_hmi",
    "judge",
]
