"""Symmetries of the data: what a real active region keeps of itself, and who gets which."""

from __future__ import annotations

import pytest
import torch

from sunpipe.fits import read_segment
from sunpipe.physics import measure
from sunpipe.physics.channels import apply_symmetry
from sunpipe.train.chance import Chance
from sunpipe.train.symmetries import apply_symmetries, check_symmetries
from tests.conftest import REPO

Tensor = torch.Tensor
CPU = torch.device("cpu")
VECTOR = ("Br", "Bt", "Bp")
NAMES = ("flip_horizontal", "flip_vertical", "rotate90", "reverse_polarity")
KEPT = ("USFLUX", "TOTUSJZ", "TOTUSJH", "ABSNJZH", "MEANGAM", "MEANGBT", "MEANSHR", "TOTPOT",
        "R_VALUE", "POLSEP")  # fmt: skip
# What a symmetry negates; all else it keeps.
NEGATED = {
    "flip_horizontal": {"MEANALP", "MEANJZH", "MEANJZD"},
    "flip_vertical": {"MEANALP", "MEANJZH", "MEANJZD"},
    "rotate90": set(),
    "reverse_polarity": {"NETFLUX", "FLUXIMB", "MEANJZD"},
}


def chance(count: int, seed: int = 3) -> Chance:
    return Chance.of(seed, 0, "symmetries", range(count), CPU)


@pytest.fixture(scope="module")
def region() -> Tensor:
    """Br, Bt, Bp of NOAA 11158 on 2011-02-15, and the strong field as a mask, (4, 96, 96)."""
    stem = REPO / "sunpipe/samples/hmi.sharp_cea_720s.377.20110215_020000_TAI"
    parts = [read_segment(stem.with_name(f"{stem.name}.{name}.fits")).data for name in VECTOR]
    field = torch.stack([torch.from_numpy(part)[140:236, 310:406] for part in parts]).double()
    assert bool(field.isfinite().all())
    return torch.cat((field, (field.norm(dim=0) > 200)[None].double()))


@pytest.mark.parametrize("name", NAMES)
def test_measured_quantities_of_a_real_region(region: Tensor, name: str) -> None:
    images = region.expand(8, -1, -1, -1)
    turned = apply_symmetries(images, (*VECTOR, "mask"), (name,), chance(8))
    same = (turned == images).flatten(1).all(dim=1)
    assert 0 < int(same.sum()) < 8
    names = (*KEPT, "NETFLUX", "FLUXIMB", "MEANALP", "MEANJZH", "MEANJZD")
    both = torch.stack((region, turned[~same][0]))
    found = measure(both[:, :3], 3.6e7, both[:, 3] > 0.5, names)
    for quantity in names:
        before, after = found[quantity].tolist()
        assert abs(before) > 1e-9, quantity  # a zero would keep any sign
        sign = -1 if quantity in NEGATED[name] else 1
        assert after == pytest.approx(sign * before, rel=1e-9), quantity


def test_a_wrong_sign_would_be_measured(region: Tensor) -> None:
    """Mirrored as if the components were intensities, the region has other currents."""
    wrong = region[None, :3].flip(-1)
    right = apply_symmetry(region[None, :3], VECTOR, "flip_horizontal")
    found = measure(torch.cat((wrong, right)), 3.6e7, (region[3] > 0.5).flip(-1).expand(2, -1, -1),
                    ("TOTUSJZ", "USFLUX"))  # fmt: skip
    assert found["USFLUX"][0] == pytest.approx(float(found["USFLUX"][1]))
    assert float(found["TOTUSJZ"][0] / found["TOTUSJZ"][1]) > 1.2


def test_each_sample_tosses_its_own_coin() -> None:
    x = torch.rand(4000, 1, 2, 2) + torch.arange(4.0).reshape(2, 2)
    y = apply_symmetries(x, ("magnetogram",), NAMES, chance(4000))
    reversed_ = y[:, 0, 0, 0] < 0
    assert float(reversed_.double().mean()) == pytest.approx(0.5, abs=0.03)
    # Two mirrors and a turn: the place of the first corner and of its right neighbour.
    first = y.abs().flatten(1).argmin(dim=1)
    second = (y.abs().flatten(1) - x[:, 0, 0, 1:2]).abs().argmin(dim=1)
    pairs, counts = torch.stack((first, second)).unique(dim=1, return_counts=True)
    assert pairs.shape[1] == 8
    assert float(((counts - 500) ** 2 / 500).sum()) < 32  # chi squared of 7 degrees, once in 10^4


def test_a_sample_is_treated_alike_in_any_batch(region: Tensor) -> None:
    images = region.expand(9, -1, -1, -1) * torch.arange(1.0, 10.0)[:, None, None, None]
    channels = (*VECTOR, "mask")
    whole = apply_symmetries(images, channels, NAMES, chance(9))
    for rank in range(3):
        part = apply_symmetries(images[rank::3], channels, NAMES, chance(9).part(rank, 3))
        assert torch.equal(part, whole[rank::3])


def test_no_symmetry_is_the_image() -> None:
    x = torch.rand(2, 1, 4, 4)
    assert apply_symmetries(x, ("Br",), (), chance(2)) is x


def test_intensities_are_mirrored_with_the_field_beside_them() -> None:
    """Channels of AIA and HMI's line-of-sight field of one disk stay on top of each other."""
    x = torch.rand(32, 3, 4, 4)
    x[:, 2] = -x[:, 0]
    y = apply_symmetries(x, ("193", "171", "magnetogram"), NAMES[:3], chance(32))
    assert not torch.equal(y, x)
    assert torch.equal(y[:, 2], -y[:, 0])
    assert torch.equal(y.flatten(2).sort(dim=2).values, x.flatten(2).sort(dim=2).values)


def test_channels_that_have_rules_pass() -> None:
    check_symmetries(NAMES, VECTOR, ("Gauss",) * 3)
    check_symmetries(NAMES, ("magnetogram",), ("Gauss",))
    check_symmetries(NAMES, ("Br",), ("Gauss",))
    check_symmetries(NAMES[:3], ("193", "magnetogram"), ("DN/s", "Gauss"))
    check_symmetries((), ("Bt", "temperature"), ("Gauss", "K"))


@pytest.mark.parametrize(
    ("names", "channels", "units", "message"),
    [
        (("reverse_polarity",), ("magnetogram", "171"), ("Gauss", "DN/s"),
         "channel 171 is an intensity in DN/s"),
        (("flip_horizontal",), ("Bt",), ("Gauss",), "no sign rules for channel Bt"),
        (("flip_vertical",), ("Br", "Bp"), ("Gauss", "Gauss"), "no sign rules for channel Bp"),
        (("rotate90",), ("inclination",), ("Gauss",), "no sign rules for channel inclination"),
        (("rotate90",), ("velocity",), ("m/s",), "no symmetries are known for channel velocity"),
        (("rotate45",), ("Br",), ("Gauss",), "unknown symmetries rotate45; known: flip_horizontal"),
    ],
)  # fmt: skip
def test_the_rest_is_refused(
    names: tuple[str, ...], channels: tuple[str, ...], units: tuple[str, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        check_symmetries(names, channels, units)
