"""QUALITY by chain, and every reason for which a full-disk image is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from preprocess.calibrate import DiskSettings, Limits, calibrate_aia, calibrate_hmi, judge
from preprocess.quality import BITS, chain_of, decode, eclipsed, refusal
from sunpipe.fits import Segment
from sunpipe.fitsfile import FitsError
from tests.unit.disk_fake import aia_cards, dipole, hmi_cards, seen

POLICIES = ("strict", "usual", "lenient")
LEVELS = {"strict": 0, "usual": 1, "lenient": 2}


@pytest.mark.parametrize(("quality", "chain", "least"), [
    (0, "hmi_720s", "strict"), (0, "hmi_45s", "strict"), (0, "aia", "strict"),
    (0x400, "hmi_720s", "usual"), (0x10000, "hmi_45s", "usual"),
    (0x200, "hmi_720s", "lenient"),   # ECLIPSE of this chain
    (0x200, "hmi_45s", "usual"),      # NOCOEFFKEYWORD of that one
    (0x100, "hmi_45s", "lenient"),    # ECLIPSE of that one
    (0x100, "hmi_720s", "usual"),     # LARGEFTSID of this one
    (72704, "hmi_720s", "lenient"),   # the near-real-time magnetogram of 2018-08-20
    (-(2**31), "hmi_45s", None),
    (1 << 30, "aia", "usual"),        # quick-look, AIA 171 of 2011-03-19
    (1 << 8, "aia", "usual"), (1 << 9, "aia", "lenient"), (1 << 13, "aia", "lenient"),
    (1 << 17, "aia", "lenient"), (1 << 25, "aia", "lenient"),
    (1 << 14, "aia", None), (1 << 16, "aia", None), (1 << 18, "aia", None), (-(2**31), "aia", None),
])  # fmt: skip
def test_a_quality_is_refused_up_to_its_policy(quality: int, chain: Any, least: str | None) -> None:
    accepted = [refusal(quality, policy, chain) is None for policy in POLICIES]  # type: ignore[arg-type]
    first = len(POLICIES) if least is None else LEVELS[least]
    assert accepted == [place >= first for place in range(len(POLICIES))]


def test_bits_are_words_of_their_chain() -> None:
    assert decode(0x300, "hmi_720s") == ["ECLIPSE", "LARGEFTSID"]
    assert decode(0x300, "hmi_45s") == ["NOCOEFFKEYWORD", "ECLIPSE"]
    assert decode(0x04000000, "hmi_720s") == ["WRONGFRAMELISTSIZE"]
    assert decode(0x04000000, "hmi_45s") == ["WRONGTARGET"]
    assert decode(0x40002100, "aia") == ["QUICKLOOK", "ECLIPSE", "MISSVALS"]
    assert decode(1 << 28, "aia") == ["0x10000000"]
    assert [eclipsed(0x200), eclipsed(0x100), eclipsed(0x2000, "aia")] == [True, False, True]
    assert "ECLIPSE" in str(refusal(0x100, "usual", "hmi_45s"))
    for names in BITS.values():
        assert len(set(names.values())) == len(names)
    with pytest.raises(ValueError, match="polite"):
        refusal(0, "polite")  # type: ignore[arg-type]


@pytest.mark.parametrize(("header", "series", "chain"), [
    ({}, "hmi.sharp_cea_720s", "hmi_720s"), ({}, "hmi.M_720s_nrt", "hmi_720s"),
    ({}, "hmi.Ic_45s", "hmi_45s"), ({}, "aia.lev1_euv_12s", "aia"),
    ({"TELESCOP": "SDO/HMI", "CODEVER0": "$Id: HMI_IQUV_averaging.c,v 1.56 $"}, None, "hmi_720s"),
    ({"TELESCOP": "SDO/HMI", "CODEVER0": "$Id: HMI_observables.c,v 1.43 $"}, None, "hmi_45s"),
    ({"TELESCOP": "SDO/HMI", "CADENCE": 45.0}, None, "hmi_45s"),
    ({"TELESCOP": "SDO", "INSTRUME": "HMI_SIDE1", "CADENCE": 720}, None, "hmi_720s"),
    ({"TELESCOP": "SDO/AIA", "INSTRUME": "AIA_3"}, None, "aia"),
])  # fmt: skip
def test_the_chain_is_told_by_series_or_header(
    header: dict[str, Any], series: str | None, chain: str
) -> None:
    assert chain_of(header, series) == chain


def test_a_chain_is_never_guessed() -> None:
    for header, reason in (({"TELESCOP": "SDO/HMI"}, "no_keywords"),
                           ({"TELESCOP": "SOHO", "INSTRUME": "MDI"}, "wrong_instrument"),
                           ({}, "wrong_instrument")):  # fmt: skip
        with pytest.raises(FitsError) as caught:
            chain_of(header)
        assert caught.value.reason == reason


AIA = seen(aia_cards(128), 128)
HMI = seen(hmi_cards(128), 128, dipole)


@pytest.mark.parametrize(("segment", "change", "reason"), [
    (AIA, {"TELESCOP": None}, "no_keywords"),
    (AIA, {"TELESCOP": "SOHO", "INSTRUME": "EIT"}, "wrong_instrument"),
    (AIA, {"LVL_NUM": 0.5}, "wrong_level"), (AIA, {"LVL_NUM": None}, "wrong_level"),
    (AIA, {"WAVELNTH": 195}, "wrong_wavelength"), (AIA, {"WAVELNTH": "193"}, "wrong_wavelength"),
    (AIA, {"QUALITY": None}, "quality"), (AIA, {"QUALITY": 1 << 16}, "quality"),
    (AIA, {"QUALITY": 1 << 13}, "eclipse"), (AIA, {"ACS_ECLP": "YES"}, "eclipse"),
    (AIA, {"QUALITY": (1 << 13) + (1 << 17)}, "quality"),
    (AIA, {"EXPTIME": 0.0}, "exposure"), (AIA, {"EXPTIME": -2.0}, "exposure"),
    (AIA, {"EXPTIME": 0.001}, "exposure"), (AIA, {"EXPTIME": None}, "exposure"),
    (AIA, {"EXPTIME": float("nan")}, "exposure"),
    (AIA, {"EXPTIME": 61.0}, "exposure"), (AIA, {"EXPTIME": 2000.0}, "exposure"),
    (AIA, {"T_OBS": "2012-06-01T00:01:03Z"}, "wrong_record"),
    (AIA, {"T_REC": "2014-06-01T00:00:02Z"}, "wrong_record"),
    (AIA, {"T_OBS": "2012.06.01_00:02:00_TAI"}, "wrong_record"),
    (AIA, {"T_OBS": "MISSING"}, "time"), (AIA, {"T_OBS": "2012-02-31T00:00:00Z"}, "time"),
    (HMI, {"T_OBS": "2012.06.01_00:12:01_TAI"}, "wrong_record"),
    (HMI, {"T_OBS": "2015.06.01_00:00:05_TAI"}, "wrong_record"),
    (HMI, {"CADENCE": 45.0, "T_OBS": "2012.06.01_00:01:00_TAI"}, "wrong_record"),
    (AIA, {"WAVEUNIT": "nm"}, "wrong_wavelength"), (AIA, {"IMG_TYPE": "DARK"}, "wrong_segment"),
    (AIA, {"DSUN_OBS": 0.03}, "geometry"), (AIA, {"DSUN_OBS": 160e9}, "geometry"),
    (AIA, {"RSUN_OBS": 970.0}, "geometry"), (HMI, {"RSUN_OBS": 100.0}, "geometry"),
    (AIA, {"RSUN_OBS": None, "DSUN_OBS": 100e9}, "geometry"),
    (AIA, {"CRPIX1": 500.0}, "cutout"), (AIA, {"CDELT1": None}, "geometry"),
    (AIA, {"NSATPIX": 5000, "TOTVALS": 16384}, "saturated"),
    (HMI, {"QUALITY": 0x200}, "eclipse"), (HMI, {"QUALITY": 0x220}, "eclipse"),
    (HMI, {"QUALITY": 0x20}, "quality"), (HMI, {"CADENCE": 90.0}, "no_keywords"),
    (HMI, {"CADENCE": 45.0, "QUALITY": 0x100}, "eclipse"),
])  # fmt: skip
def test_headers_are_refused_with_their_reason(
    segment: Segment, change: dict[str, Any], reason: str
) -> None:
    judge(segment.header, segment.data, "usual")
    with pytest.raises(FitsError) as caught:
        judge(segment.header | change, segment.data, "usual")
    assert caught.value.reason == reason


def test_times_within_a_slot_are_of_one_record() -> None:
    for segment, change in (
        (AIA, {"T_OBS": "2012-06-01T00:00:59Z"}),
        (AIA, {"T_OBS": None}),
        (AIA, {"T_REC": None}),
        (AIA, {"T_REC": "2012-06-01T00:00:02.000"}),
        (AIA, {"T_REC": "2012.06.01_00:00:38_TAI"}),  # 35 s are leap seconds
        (AIA, {"WAVELNTH": 4500, "T_OBS": "2012-06-01T00:30:00Z"}),  # one image per hour
        (AIA, {"IMG_TYPE": "LIGHT", "WAVEUNIT": "Angstrom"}),
        (HMI, {"T_OBS": "2012.06.01_00:06:00_TAI", "WAVEUNIT": ""}),
    ):
        assert judge(segment.header | change, segment.data).saturated_share == 0


def test_the_series_decides_over_the_header() -> None:
    judge(HMI.header | {"QUALITY": 0x100}, HMI.data, "usual")
    with pytest.raises(FitsError, match="ECLIPSE"):
        judge(HMI.header | {"QUALITY": 0x100}, HMI.data, "usual", series="hmi.M_45s")


def test_the_channel_must_be_the_one_asked_for() -> None:
    judge(AIA.header, AIA.data, wavelength=193)
    with pytest.raises(FitsError, match="193 A, not 171 A"):
        judge(AIA.header, AIA.data, wavelength=171)


def test_pixels_are_counted() -> None:
    data = AIA.data.copy()
    data[60:64, 60:64] = np.nan
    data[0, :50] = 16383.0
    data[127, 0] = np.nan  # off the disk: no matter
    counted = judge(AIA.header, data, limits=Limits(max_nan_share=0.01))
    disk = np.pi * (960 / (0.6 * 32)) ** 2
    assert counted.nan_share == pytest.approx(16 / disk, rel=0.02)
    assert counted.saturated_share == pytest.approx(50 / 128**2)
    assert counted.high == 16383.0
    for limits, reason in ((Limits(max_nan_share=0.001), "missing_pixels"),
                           (Limits(max_saturated_share=0.002), "saturated")):  # fmt: skip
        with pytest.raises(FitsError) as caught:
            judge(AIA.header, data, limits=limits)
        assert caught.value.reason == reason
    for pixels, reason in ((np.full((128, 128), 7.0), "blank"), (data * np.nan, "all_nan"),
                           (-1 - data, "negative")):  # fmt: skip
        with pytest.raises(FitsError) as caught:
            judge(AIA.header, pixels)
        assert caught.value.reason == reason


def test_a_continuum_is_never_saturated() -> None:
    header = hmi_cards(128) | {"CONTENT": "CONTINUUM INTENSITY", "BUNIT": "DN/s"}
    bright = seen(header, 128).data * 300
    assert bright.max() > 60000
    assert judge(header, bright).saturated_share == 0


def test_the_wrong_kind_is_refused() -> None:
    small = DiskSettings(resolution=64)
    for call, reason in (
        (lambda: calibrate_aia(HMI, small), "wrong_instrument"),
        (lambda: calibrate_hmi(AIA, small), "wrong_instrument"),
        (lambda: calibrate_hmi(HMI, small, "continuum"), "wrong_segment"),
        (lambda: calibrate_hmi(Segment(HMI.data, HMI.header | {"BUNIT": "T"}, True), small),
         "unknown_unit"),
        (lambda: calibrate_aia(Segment(AIA.data, AIA.header | {"EXPTIME": 0.0}, True), small),
         "exposure"),
        (lambda: calibrate_aia(Segment(AIA.data * np.nan, AIA.header, True), small), "all_nan"),
        (lambda: calibrate_hmi(Segment(HMI.data * np.nan, HMI.header, True), small), "all_nan"),
    ):  # fmt: skip
        with pytest.raises(FitsError) as caught:
            call()
        assert caught.value.reason == reason
