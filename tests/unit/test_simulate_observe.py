"""Place on the disc, noise and maps of simulated records."""

from __future__ import annotations

from datetime import datetime

import numpy as np
import pytest
from astropy.wcs import WCS

from preprocess.simulation.ephemeris import (
    format_time,
    observer,
    parse_time,
    slot,
    utc,
)
from preprocess.simulation.keywords import geometry_cards, patch_cards
from preprocess.simulation.observe import (
    CLEAN,
    Noise,
    coordinates,
    observe,
    photon_noise,
    point_spread,
    sky_axes,
)
from preprocess.simulation.region import draw_region
from sunpipe.errors import UsageError
from sunpipe.fitscea import centre_cosine

EARTH = observer(datetime(2011, 2, 15, 2))
SHAPE = (150, 240)


def axes_at(lon: float, lat: float) -> np.ndarray:
    return sky_axes(*coordinates(SHAPE, 0.03, EARTH.lon + lon, lat), EARTH)


def seen(field: np.ndarray, axes: np.ndarray, noise: Noise = Noise()) -> object:
    return observe(field, axes, noise, np.random.default_rng(5))


def test_the_observer_is_where_hmi_was() -> None:
    # header of HARP 377 at 2011.02.15_02:00:00_TAI
    assert EARTH.lon == pytest.approx(21.725103, abs=0.06)
    assert EARTH.lat == pytest.approx(-6.827900, abs=0.02)
    assert EARTH.distance_m == pytest.approx(147746220503.41, rel=5e-5)
    assert EARTH.radius_arcsec == pytest.approx(971.671936, rel=5e-5)
    assert EARTH.rotation == 2106


@pytest.mark.parametrize("when", ["2010.07.15_00:00:00_TAI", "2018.11.20_02:00:00_TAI"])
def test_the_observer_agrees_with_sunpy(when: str) -> None:
    sun = pytest.importorskip("sunpy.coordinates.sun")
    from astropy.time import Time
    from astropy.utils import iers

    with iers.conf.set_temp("auto_download", False):
        time = Time(parse_time(when), scale="tai")
        found = observer(parse_time(when))
        assert found.lon == pytest.approx(sun.L0(time).deg, abs=0.05)
        assert found.lat == pytest.approx(sun.B0(time).deg, abs=0.01)
        assert found.distance_m == pytest.approx(sun.earth_distance(time).to_value("m"), rel=5e-5)
        number = found.rotation + 1 - found.lon / 360.0
        assert number == pytest.approx(sun.carrington_rotation_number(time), abs=2e-3)


def test_times() -> None:
    when = parse_time("2011.02.15_02:05:00_TAI")
    assert format_time(slot(when)) == "2011.02.15_02:00:00_TAI"
    assert utc(datetime(2011, 2, 15)) == datetime(2011, 2, 14, 23, 59, 26)
    assert utc(datetime(2018, 1, 1)) == datetime(2017, 12, 31, 23, 59, 23)
    for wrong in ("2011-02-15", "2011.02.30_02:00:00_TAI", ""):
        with pytest.raises(UsageError):
            parse_time(wrong)


def test_coordinates_are_those_of_the_header() -> None:
    drawn = draw_region(np.random.default_rng(1), datetime(2012, 1, 1), 6.0, SHAPE)
    header = geometry_cards(EARTH) | patch_cards(drawn, 123.4)
    lon, lat = coordinates(SHAPE, 0.03, 123.4, header["CRVAL2"])
    corners = [[0, 0], [SHAPE[1] - 1, 0], [17, 90], [SHAPE[1] - 1, SHAPE[0] - 1]]
    for (x, y), (one, two) in zip(corners, WCS(header).wcs_pix2world(corners, 0), strict=True):
        assert lon[y, x] == pytest.approx(one, abs=1e-9)
        assert lat[y, x] == pytest.approx(two, abs=1e-9)


@pytest.mark.parametrize(("lon", "lat"), [(0.0, 0.0), (50.0, 20.0), (-65.0, -30.0)])
def test_the_sky_axes_are_a_rotation(lon: float, lat: float) -> None:
    axes = axes_at(lon, lat)
    product = np.einsum("ijyx,kjyx->ikyx", axes, axes)
    assert np.abs(product - np.eye(3)[:, :, None, None]).max() < 1e-5
    header = {
        "CRVAL1": EARTH.lon + lon,
        "CRVAL2": lat,
        "CRLN_OBS": EARTH.lon,
        "CRLT_OBS": EARTH.lat,
    }
    # The simulated observer stands at infinity.
    assert axes[0, 2, 75, 120] == pytest.approx(centre_cosine(header), abs=1e-3)


def test_west_of_the_meridian_a_westward_field_points_away() -> None:
    field = np.zeros((3, *SHAPE), np.float32)
    field[0] = 500.0
    assert seen(field, axes_at(60.0, 0.0), CLEAN).los.mean() < -400.0
    assert seen(field, axes_at(-60.0, 0.0), CLEAN).los.mean() > 400.0


def test_without_noise_the_field_is_as_it_was() -> None:
    field = np.random.default_rng(2).normal(0, 300, (3, *SHAPE)).astype(np.float32)
    found = seen(field, axes_at(40.0, 15.0), CLEAN)
    assert np.array_equal(found.bp, field[0])
    assert np.array_equal(found.bt, -field[1])
    assert np.array_equal(found.br, field[2])
    assert not found.br_err.any()


def test_quiet_noise_is_that_of_harp_377() -> None:
    """Quiet pixels there: Br 27, Bt 55, Bp 52 G rms with network, |B| median 72 G."""
    found = seen(np.zeros((3, *SHAPE), np.float32), axes_at(13.0, -21.0))
    assert found.los.std() == pytest.approx(6.4 * photon_noise(np.float32(0.94)), rel=0.02)
    assert np.median(np.sqrt(found.br**2 + found.bt**2 + found.bp**2)) == pytest.approx(
        74, rel=0.06
    )
    assert found.bp.std() == pytest.approx(54.0, rel=0.08)
    assert found.bt.std() == pytest.approx(54.0, rel=0.08)
    assert found.br.std() == pytest.approx(20.0, rel=0.2)


def test_the_transverse_floor_is_positive_and_strong_fields_scatter_little() -> None:
    centre = axes_at(0.0, EARTH.lat)
    noise = Noise(psf=False, network_g=0.0)
    floor = seen(np.zeros((3, *SHAPE), np.float32), centre, noise)
    assert np.hypot(floor.bt, floor.bp).mean() == pytest.approx(75.0, rel=0.02)
    strong = np.zeros((3, *SHAPE), np.float32)
    strong[0] = 1000.0
    found = seen(strong, centre, noise)
    assert found.bp.mean() == pytest.approx(1000.0, abs=3.0)  # the ambiguity is solved
    assert found.bp.std() == pytest.approx(20.0, rel=0.1)
    for part in ("bp", "bt", "br"):
        error = getattr(found, f"{part}_err").mean()
        assert error == pytest.approx(getattr(found, part).std(), rel=0.25)


def test_noise_grows_towards_the_limb() -> None:
    nothing = np.zeros((3, *SHAPE), np.float32)
    centre, limb = seen(nothing, axes_at(0.0, -7.0)), seen(nothing, axes_at(65.0, 20.0))
    assert limb.los.std() > 1.15 * centre.los.std()
    assert limb.br.std() > 3 * centre.br.std()  # the radial field lies in the sky there


def test_the_point_spread_lengthens_towards_the_limb() -> None:
    xx, xy, yy = point_spread(axes_at(0.0, EARTH.lat))
    assert (xx, xy, yy) == pytest.approx((0.64, 0.0, 0.64), abs=0.01)
    xx, _, yy = point_spread(axes_at(60.0, 0.0))
    assert xx == pytest.approx(0.64 * 4, rel=0.1)
    assert yy == pytest.approx(0.64, rel=0.1)


def test_maps_have_the_codes_of_sharps() -> None:
    field = np.zeros((3, *SHAPE), np.float32)
    field[2, 60:90, 100:140] = 800.0
    found = seen(field, axes_at(10.0, 10.0))
    assert set(np.unique(found.bitmap)) <= {1, 2, 33, 34}
    assert found.bitmap[75, 120] == 34
    assert found.bitmap[5, 5] == 1
    assert set(np.unique(found.conf_disambig)) == {60, 90}
    assert (found.conf_disambig[62:88, 102:138] == 90).all()
    assert (found.conf_disambig[:30] == 90).mean() < 0.1
