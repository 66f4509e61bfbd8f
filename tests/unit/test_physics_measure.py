"""`measure` on fields whose answers are known, on awkward fields, and on batches."""

from __future__ import annotations

import math

import pytest
import torch

from sunpipe.errors import DataError
from sunpipe.physics import QUANTITIES, estimate_mask, measure, measurement
from sunpipe.physics.r_value import reference_shift
from sunpipe.physics.uncertainty import ERRORS

Tensor = torch.Tensor
PIXEL = 7.3e7  # cm
AREA = PIXEL**2
MM = PIXEL / 1e8
NEED_MAPS = ("USFLUXL", "MEANGBL", "CMASKL", "AREA_ACR")


def grid(height: int, width: int) -> tuple[Tensor, Tensor]:
    """x (west) and y (north) in pixels from the centre."""
    y = torch.arange(height, dtype=torch.float64) - (height - 1) / 2
    x = torch.arange(width, dtype=torch.float64) - (width - 1) / 2
    return x[None, :].expand(height, -1), y[:, None].expand(-1, width)


def vector(bx: Tensor, by: Tensor, bz: Tensor) -> Tensor:
    """(1, 3, H, W) of Br, Bt, Bp from cartesian components."""
    return torch.stack((bz, -by, bx))[None]


def everywhere(fields: Tensor) -> Tensor:
    return torch.ones(len(fields), *fields.shape[2:], dtype=torch.bool)


def blobs(seed: int = 5, count: int = 3, size: tuple[int, int] = (40, 52)) -> Tensor:
    """Smooth random vector fields, (count, 3, H, W) float64 gauss."""
    torch.manual_seed(seed)
    rough = torch.randn(count, 3, size[0] + 6, size[1] + 6, dtype=torch.float64)
    return 3000 * torch.nn.functional.avg_pool2d(rough, 7, stride=1)


@pytest.mark.parametrize("convention", ["jsoc", "physical"])
@pytest.mark.parametrize("alpha", [0.02, -0.05])
def test_uniform_twist(alpha: float, convention: str) -> None:
    x, y = grid(32, 40)
    b0 = 800.0
    bz = torch.full_like(x, b0)
    fields = vector(-alpha * y * b0 / 2, alpha * x * b0 / 2, bz)
    mask = torch.zeros(1, 32, 40, dtype=torch.bool)
    mask[:, 5:20, 6:30] = True
    found = measure(fields, PIXEL, mask, convention=convention)
    assert found["MEANALP"].item() == pytest.approx(alpha / MM, rel=1e-12)
    assert found["MEANJZH"].item() == pytest.approx(alpha * b0**2 / (PIXEL / 100), rel=1e-12)
    current = alpha * b0 * 1e-4 / (4e-7 * math.pi) * (PIXEL / 100)  # A through one pixel
    assert found["TOTUSJZ"].item() == pytest.approx(abs(current) * 360, rel=1e-9)
    assert found["ABSNJZH"].item() == pytest.approx(found["TOTUSJH"].item())


def test_two_spots() -> None:
    x, y = grid(96, 128)
    sigma, peak = 5.0, 2000.0

    def spot(x0: float, y0: float) -> Tensor:
        return peak * torch.exp(-((x - x0) ** 2 + (y - y0) ** 2) / (2 * sigma**2))

    bz = 1.5 * spot(20.0, 12.0) - spot(-20.0, -12.0)
    zero = torch.zeros_like(bz)
    fields = vector(zero, zero, bz)
    found = {name: v.item() for name, v in measure(fields, PIXEL, everywhere(fields)).items()}
    flux = peak * 2 * math.pi * sigma**2 * AREA
    assert found["USFLUX"] == pytest.approx(2.5 * flux, rel=1e-5)
    assert found["NETFLUX"] == pytest.approx(0.5 * flux, rel=1e-6)
    assert found["FLUXIMB"] == pytest.approx(0.2, rel=1e-5)
    assert found["POLSEP"] == pytest.approx(math.hypot(40, 24) * MM, rel=1e-5)
    assert found["TILT"] == pytest.approx(math.degrees(math.atan2(24, 40)), rel=1e-5)
    assert found["AREA_MM2"] == pytest.approx(96 * 128 * MM**2)
    assert found["TOTUSJZ"] == 0
    assert math.isnan(found["MEANGAM"])  # no horizontal field of 100 G


def test_tilt_does_not_ask_which_polarity_leads() -> None:
    fields = blobs(count=1)
    one, other = (measure(part, PIXEL, names=["TILT"])["TILT"] for part in (fields, -fields))
    torch.testing.assert_close(one, other)
    assert -90 <= one.item() <= 90


def test_inclination_and_gradient_of_a_plane() -> None:
    x, y = grid(20, 24)
    bz = 1000 + 3 * x - 4 * y
    fields = vector(bz.clone(), torch.zeros_like(bz), bz)  # 45 degrees from the radial
    mask = everywhere(fields)
    jsoc, physical = (measure(fields, PIXEL, mask, convention=c) for c in ("jsoc", "physical"))
    assert physical["MEANGAM"].item() == pytest.approx(45.0)
    assert jsoc["MEANGBZ"].item() == pytest.approx(5.0)
    assert physical["MEANGBZ"].item() == pytest.approx(5.0 / MM)
    assert physical["MEANGBT"].item() == pytest.approx(5.0 * math.sqrt(2) / MM)


def test_a_potential_field_has_no_free_energy() -> None:
    size, depth = 128, 7.0
    x, y = grid(size, size)
    parts = []
    for sign, x0 in ((1, 15.0), (-1, -15.0)):
        r3 = ((x - x0) ** 2 + y**2 + depth**2) ** 1.5
        parts.append(torch.stack([sign * 5e4 * p / r3 for p in (x - x0, y, depth + 0 * x)]))
    bx, by, bz = parts[0] + parts[1]
    calm = measure(vector(bx, by, bz), PIXEL)
    assert calm["MEANSHR"].item() < 1.0
    assert calm["SHRGT45"].item() == 0
    energy = ((bx**2 + by**2)[estimate_mask(vector(bx, by, bz))[0]]).mean() / (8 * math.pi)
    assert calm["MEANPOT"].item() < 1e-3 * energy
    turned = measure(vector(-by, bx, bz), PIXEL)
    assert turned["MEANSHR"].item() > 20


def test_a_batch_is_its_single_patches() -> None:
    fields = blobs(count=4)
    pixel = torch.tensor([3e7, 7e7, 7.3e7, 14e7], dtype=torch.float64)  # several R binnings
    for convention in ("physical", "jsoc"):
        los = fields[:, 0] * 0.9
        batch = measure(fields, pixel, convention=convention, los=los)
        for row in range(4):
            one = slice(row, row + 1)
            single = measure(fields[one], pixel[row], convention=convention, los=los[one])
            for name in QUANTITIES:
                torch.testing.assert_close(
                    batch[name][one], single[name], rtol=1e-10, atol=1e-12, equal_nan=True
                )


def test_parts_of_a_large_batch_join(monkeypatch: pytest.MonkeyPatch) -> None:
    fields = blobs(count=5)
    mask = fields[:, 0].abs() > 150
    maps = {"los": fields[:, 0], "los_mask": mask, "active": mask}
    whole = measure(fields, PIXEL, mask, **maps)
    monkeypatch.setitem(measurement.PIXELS_AT_ONCE, "cpu", 2 * 40 * 52)
    parted = measure(fields, PIXEL, mask, **maps)
    for name in QUANTITIES:
        torch.testing.assert_close(whole[name], parted[name], rtol=1e-12, atol=0)


@pytest.mark.parametrize("convention", ["jsoc", "physical"])
def test_float32_arithmetic_agrees_with_float64(convention: str) -> None:
    fields = blobs()
    mask = fields[:, 0].abs() > 150
    maps = {"los": fields[:, 0], "los_mask": mask, "active": mask}
    exact = measure(fields, PIXEL, mask, convention=convention, **maps)
    single = measure(fields, PIXEL, mask, convention=convention, dtype=torch.float32, **maps)
    for name in QUANTITIES:
        assert single[name].dtype == torch.float64
        torch.testing.assert_close(single[name], exact[name], rtol=2e-5, atol=0, equal_nan=True)


def test_float32_input_agrees_with_float64() -> None:
    fields = blobs()
    mask = fields[:, 0].abs() > 150
    exact, single = measure(fields, PIXEL, mask), measure(fields.float(), PIXEL, mask)
    for name in QUANTITIES:
        assert single[name].dtype == torch.float64
        torch.testing.assert_close(single[name], exact[name], rtol=1e-4, atol=0, equal_nan=True)


def test_pixels_outside_the_mask_do_not_count() -> None:
    fields = blobs()
    mask = everywhere(fields)
    mask[:, :, 20:] = False
    changed = fields.clone()
    changed[:, :, :, 22:] *= -7.5  # beyond the reach of a central difference
    local = [
        name
        for name in QUANTITIES
        if name not in ("MEANPOT", "TOTPOT", "MEANSHR", "SHRGT45", "R_VALUE", *NEED_MAPS)
    ]
    one, other = (measure(part, PIXEL, mask, local) for part in (fields, changed))
    for name in local:
        torch.testing.assert_close(one[name], other[name], rtol=1e-12, atol=0)


@pytest.mark.parametrize("component", [0, 1, 2])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_an_invalid_pixel_is_left_out(bad: float, component: int) -> None:
    fields = blobs(count=1)
    mask = everywhere(fields)
    holed = fields.clone()
    holed[0, component, 10, 11] = bad
    found = measure(holed, PIXEL, mask)
    mask[0, 10, 11] = False
    expected = measure(fields, PIXEL, mask, ["USFLUX", "NETFLUX", "AREA_MM2", "MEANGAM"])
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value)
    assert all(found[name].isfinite() for name in QUANTITIES if name not in NEED_MAPS)


def test_size_scaling() -> None:
    fields = blobs()
    powers = {
        "USFLUX": 2, "NETFLUX": 2, "TOTPOT": 2, "AREA_MM2": 2, "POLSEP": 1, "TOTUSJZ": 1,
        "SAVNCPP": 1, "MEANGBZ": -1, "MEANJZD": -1, "MEANALP": -1, "TOTUSJH": -1, "MEANPOT": 0,
        "MEANSHR": 0, "MEANGAM": 0, "FLUXIMB": 0, "TILT": 0,
    }  # fmt: skip
    one, two = (measure(fields, PIXEL * scale, names=powers) for scale in (1, 2))
    for name, power in powers.items():
        torch.testing.assert_close(two[name], one[name] * 2.0**power)


@pytest.mark.parametrize("convention", ["jsoc", "physical"])
def test_an_empty_mask_leaves_nothing_but_its_area(convention: str) -> None:
    fields = blobs(count=2)
    mask = everywhere(fields)
    mask[0] = False
    found = measure(fields, PIXEL, mask, convention=convention)
    for name in QUANTITIES:
        if name == "AREA_MM2":
            assert found[name][0] == 0
        elif name != "R_VALUE":  # R looks at the whole patch
            assert found[name][0].isnan()
        assert name == "R_VALUE" or name in NEED_MAPS or found[name][1].isfinite()


def test_a_quiet_patch_has_an_empty_estimated_mask() -> None:
    torch.manual_seed(0)
    fields = 20 * torch.randn(1, 3, 32, 32)
    assert not estimate_mask(fields).any()
    assert measure(fields, PIXEL)["USFLUX"].isnan()


def test_estimated_mask_drops_lone_pixels_and_keeps_borders() -> None:
    fields = torch.zeros(1, 3, 16, 16)
    fields[0, 0, 8, 8] = 1000.0
    fields[0, 1, 0:4, 0:4] = -500.0
    fields[0, 2, 12, 12] = math.nan
    mask = estimate_mask(fields)
    assert mask.shape == (1, 16, 16)
    assert not mask[0, 8:, 8:].any()
    assert mask[0, 0:3, 0:3].all()
    assert mask.sum() == 15  # the block's inner corner has too few neighbours


def test_a_constant_field() -> None:
    fields = torch.full((1, 3, 16, 16), 500.0)
    found = measure(fields, PIXEL, everywhere(fields))
    assert found["USFLUX"].item() == pytest.approx(500.0 * 256 * AREA)
    assert found["MEANGBZ"].item() == 0
    assert found["TOTUSJZ"].item() == 0
    assert found["POLSEP"].isnan()
    assert found["R_VALUE"].isnan()
    assert found["FLUXIMB"].item() == 1
    jsoc = measure(fields, PIXEL, everywhere(fields), convention="jsoc")
    assert jsoc["MEANGBZ"].isnan()  # its rule leaves no pixel
    assert jsoc["MEANALP"].isnan()


def test_r_value_finds_the_inversion_line() -> None:
    fields = torch.zeros(2, 3, 64, 64, dtype=torch.float64)
    fields[:, 0, :, :32] = 300.0
    fields[0, 0, :, 32:] = -300.0
    fields[1, 0, :, 32:] = -100.0  # too weak
    found = measure(fields, PIXEL, names=["R_VALUE"])["R_VALUE"]
    # A line 4 bins of 2 x 2 pixels wide and 32 long; weights sum to 1 but for the ends.
    line = 300.0 * (2 * PIXEL) ** 2 * 2 * 32
    assert found[0].item() == pytest.approx(math.log10(line), abs=0.1)
    assert found[1].isnan()
    jsoc = measure(fields, PIXEL, names=["R_VALUE"], convention="jsoc", los=fields[:, 0])
    assert jsoc["R_VALUE"][0].item() == pytest.approx(math.log10(300.0 * 2 * 32), abs=0.1)
    assert jsoc["R_VALUE"][1] == 0


def test_the_published_box_lies_off_centre() -> None:
    # Where scipy.ndimage.convolve puts a 3-pixel box written from round(n / 2) on, for n = 8..25.
    shifts = [1, 1, 1, 2, 1, 1, 1, 2, 1, 1, 1, 2, 1, 1, 1, 2, 1, 1]
    assert [reference_shift(size) for size in range(8, 26)] == shifts


def test_no_images_no_values() -> None:
    found = measure(torch.zeros(0, 3, 16, 16), PIXEL)
    assert set(found) == set(QUANTITIES)
    assert all(value.shape == (0,) and value.dtype == torch.float64 for value in found.values())


@pytest.mark.parametrize(
    ("shape", "error", "message"),
    [
        ((1, 2, 16, 16), ValueError, "Br, Bt, Bp"),
        ((3, 16, 16), ValueError, "Br, Bt, Bp"),
    ],
)
def test_wrong_shapes(shape: tuple[int, ...], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        measure(torch.zeros(shape), PIXEL)


def test_wrong_arguments() -> None:
    fields = blobs(count=2)
    with pytest.raises(ValueError, match="USEFLUX"):
        measure(fields, PIXEL, names=["USEFLUX"])
    with pytest.raises(ValueError, match="convention 'cgs'"):
        measure(fields, PIXEL, convention="cgs")
    with pytest.raises(ValueError, match="mask must be"):
        measure(fields, PIXEL, mask=torch.ones(2, 40, 40, dtype=torch.bool))
    with pytest.raises(ValueError, match="pixel_cm must be"):
        measure(fields, torch.ones(3))
    with pytest.raises(ValueError, match="float16"):
        measure(fields, PIXEL, dtype=torch.float16)
    for bad in (0.0, -1.0, math.nan):
        with pytest.raises(DataError, match="pixel_cm must be finite and positive"):
            measure(fields, bad)


def test_the_table_fits_the_formulas() -> None:
    assert measurement.FORMULAS.keys() == QUANTITIES.keys()
    assert ERRORS.keys() == {name for name, quantity in QUANTITIES.items() if quantity.error}
