from __future__ import annotations

import math

import pytest
import torch

from sunpipe.errors import ConfigError, DataError
from sunpipe.latent.measure import check_names
from sunpipe.physics import measure
from sunpipe.physics.channels import apply_symmetry
from sunpipe.physics.euv import SOLAR_RADIUS_CM, measure_euv, spectral_slope
from sunpipe.physics.images import measure_images
from sunpipe.physics.measurable import check_measurable, measurable, unit

KINDS = ("LOGI", "ARFRAC", "CHFRAC", "PSLOPE")
PIXEL = 4.0e9  # cm: 64 pixels show a whole disk of radius 17.4
VECTOR = ("Br", "Bt", "Bp")


def disk(side: int = 64, level: float = 100.0) -> torch.Tensor:
    """A full disk of one brightness, dark outside."""
    place = torch.arange(side) - (side - 1) / 2
    distance = torch.hypot(place[:, None], place[None, :])
    return torch.where(distance <= SOLAR_RADIUS_CM / PIXEL, level, 0.0)[None]


def test_each_channel_gives_its_quantities() -> None:
    assert measurable(("193",)) == ("LOGI193", "ARFRAC193", "CHFRAC193", "PSLOPE193")
    assert "USFLUX" in measurable(VECTOR)
    assert "USFLUXL" in measurable(("magnetogram", "171"))
    assert "LOGI171" in measurable(("magnetogram", "171"))
    assert measurable(("continuum",)) == ()
    assert unit("LOGI193") == "log10 DN/s"
    assert unit("USFLUX") == "Mx"


def test_areas_of_known_spots() -> None:
    image = disk()
    image[0, 30:34, 30:34] = 1000.0  # 16 bright pixels
    image[0, 24:26, 30:34] = 10.0  # 8 dark ones
    image[0, 0, 0] = 1e6  # off the disk: counts nowhere
    found = measure_euv(image, torch.tensor([PIXEL]), KINDS)
    counted = math.pi * (0.95 * SOLAR_RADIUS_CM / PIXEL) ** 2
    assert float(found["ARFRAC"]) * counted == pytest.approx(16, rel=0.02)
    assert float(found["CHFRAC"]) / float(found["ARFRAC"]) == pytest.approx(0.5)
    count = 16 / float(found["ARFRAC"])
    logs = 16 * math.log10(1001) + 8 * math.log10(11) + (count - 24) * math.log10(101)
    assert float(found["LOGI"]) == pytest.approx(logs / count)


def test_an_image_smaller_than_the_sun_counts_whole() -> None:
    image = torch.full((1, 32, 32), 50.0)
    image[0, 0, :8] = 500.0
    found = measure_euv(image, torch.tensor([1e8]), ("ARFRAC",))
    assert float(found["ARFRAC"]) == pytest.approx(8 / 1024)


@pytest.mark.parametrize("slope", [-3.0, -1.5])
def test_slope_of_a_drawn_spectrum(slope: float) -> None:
    side = 128
    rows = torch.fft.fftfreq(side) * side
    columns = torch.fft.rfftfreq(side) * side
    k = torch.hypot(rows[:, None], columns[None, :]).double()
    k[0, 0] = 1
    draw = torch.Generator().manual_seed(1)
    white = torch.fft.rfft2(torch.randn(16, side, side, generator=draw, dtype=torch.float64))
    field = torch.fft.irfft2(white * k ** (slope / 2), s=(side, side))
    found = spectral_slope(field, torch.ones(16, side, side, dtype=torch.bool))
    assert float(found.mean()) == pytest.approx(slope, abs=0.2)  # whole rings bend it a little


@pytest.mark.parametrize("side", [32, 33])
def test_mirrors_and_turns_change_nothing(side: int) -> None:
    draw = torch.Generator().manual_seed(5)
    image = torch.rand(3, 1, side, side, generator=draw) ** 4 * 900
    names = measurable(("193",))
    before = measure_images(image, ("193",), 1e8, names)
    for way in ("flip_horizontal", "flip_vertical", "rotate90", "reverse_polarity"):
        turned = apply_symmetry(image, ("193",), way)
        found = measure_images(turned, ("193",), 1e8, names)
        torch.testing.assert_close(found, before, rtol=1e-9, atol=1e-12)


def test_what_has_no_light_or_no_structure_is_undefined() -> None:
    dark = measure_euv(torch.full((1, 32, 32), math.nan), torch.tensor([1e8]), KINDS)
    assert all(bool(value.isnan()) for value in dark.values())
    flat = measure_euv(torch.full((1, 32, 32), 5.0), torch.tensor([1e8]), KINDS)
    assert bool(flat["PSLOPE"].isnan())
    assert float(flat["LOGI"]) == pytest.approx(math.log10(6))
    with pytest.raises(DataError, match="larger than the Sun"):
        measure_euv(torch.ones(1, 32, 32), torch.tensor([1e12]), KINDS)


def test_quantities_of_mixed_channels_come_from_theirs() -> None:
    draw = torch.Generator().manual_seed(2)
    fields = 600 * torch.randn(2, 3, 32, 32, generator=draw)
    light = 100 * torch.rand(2, 1, 32, 32, generator=draw)
    images = torch.cat([light, fields], dim=1)
    found = measure_images(images, ("193", *VECTOR), 3.6e7, ("USFLUX", "LOGI193", "MEANGAM"))
    alone = measure(fields, 3.6e7, names=("USFLUX", "MEANGAM"))
    assert torch.equal(found[:, 0], alone["USFLUX"])
    assert torch.equal(found[:, 2], alone["MEANGAM"])
    lone = measure_euv(light[:, 0], torch.full((2,), 3.6e7), ("LOGI",))
    assert torch.equal(found[:, 1], lone["LOGI"])


def test_a_line_of_sight_field_alone_is_measured() -> None:
    los = torch.full((1, 1, 32, 32), -300.0)
    los[..., :12] = 500.0
    names = measurable(("magnetogram",))
    values = measure_images(los, ("magnetogram",), 3.6e7, names)[0]
    found = dict(zip(names, values.tolist(), strict=True))
    area = 3.6e7**2
    assert found["USFLUXL"] == pytest.approx(area * 32 * (12 * 500 + 20 * 300))
    assert found["NETFLUX"] == pytest.approx(area * 32 * (12 * 500 - 20 * 300), abs=area)
    assert found["POLSEP"] == pytest.approx(16 * 0.36, rel=0.05)
    assert found["AREA_MM2"] == pytest.approx(1024 * 0.36**2, rel=0.15)


def test_names_that_channels_do_not_give_are_refused() -> None:
    with pytest.raises(ConfigError, match="images of 193 do not give USFLUX"):
        check_names(("USFLUX",), "sample.quantities", ("193",))
    with pytest.raises(ConfigError, match="give no quantity"):
        check_names((), "sample.quantities", ("continuum",))
    assert check_names((), "sample.quantities", ("171",))[0] == "LOGI171"
    check_measurable(("CHFRAC193", "USFLUX"))
    with pytest.raises(ValueError, match="did you mean CHFRAC193"):
        check_measurable(("CHFRAC19",))
    with pytest.raises(ValueError, match="needs maps of a HARP"):
        check_measurable(("AREA_ACR",))
    with pytest.raises(ValueError, match="twice"):
        check_measurable(("LOGI193", "LOGI193"))
