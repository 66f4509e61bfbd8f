"""Views are fields that the Sun could have: signs, places, scale."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from sunpipe.errors import DataError, UsageError
from sunpipe.normalize_settings import NormalizeSettings
from sunpipe.physics import measure, symmetry
from sunpipe.physics.channels import apply_symmetry, orbit
from sunpipe.ssl_settings import SslSettings
from sunpipe.train.chance import Chance
from sunpipe.train.ssl_begin import check_views
from sunpipe.train.ssl_views import draw_view, shift, window
from sunpipe.train.symmetries import check_symmetries

NAMES = ("flip_horizontal", "flip_vertical", "rotate90", "reverse_polarity")
VECTOR = ("Br", "Bt", "Bp")
STILL = SslSettings(symmetries=(), crop=1.0, shift=0.0, noise_g=0.0)


def blob(size: int = 32) -> torch.Tensor:
    """Two patches with twisted bipoles, gauss, nothing symmetric about them."""
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")

    def spot(cy: float, cx: float, width: float) -> torch.Tensor:
        return torch.exp(-((y - cy) ** 2 + (x - cx) ** 2) / width**2)

    br = 1500 * spot(12, 9, 4) - 900 * spot(17, 22, 5)
    bt = 400 * spot(15, 13, 6) + 150 * spot(9, 20, 3)
    bp = -300 * spot(14, 16, 5)
    first = torch.stack((br, bt, bp))
    return torch.stack((first, 0.6 * first.roll((2, -3), (1, 2))))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def view_of(
    fields: torch.Tensor, mask: torch.Tensor, settings: SslSettings, seed: int = 0
) -> torch.Tensor:
    """A view of vector fields in gauss."""
    chance = Chance.of(seed, 0, "view", range(len(fields)), fields.device)
    return draw_view(fields, mask, VECTOR, ["Gauss"] * 3, settings, chance)


@pytest.mark.parametrize("name", NAMES)
def test_vector_channels_follow_the_physics_in_any_order(name: str) -> None:
    fields = blob()
    wanted = getattr(symmetry, name)(fields)
    assert torch.equal(apply_symmetry(fields, VECTOR, name), wanted)
    mixed = fields[:, [2, 0, 1]]
    assert torch.equal(apply_symmetry(mixed, ("Bp", "Br", "Bt"), name), wanted[:, [2, 0, 1]])


@pytest.mark.parametrize("name", NAMES)
def test_mask_travels_with_the_field(name: str) -> None:
    fields = blob()
    mask = (fields[:, :1].abs() > 50).float()
    both = apply_symmetry(torch.cat((fields, mask), 1), (*VECTOR, "mask"), name)
    assert torch.equal((both[:, :1].abs() > 50).float(), both[:, 3:])


def test_signs_of_components() -> None:
    fields = torch.zeros(1, 3, 4, 4)
    fields[0, :, 0, 1] = torch.tensor([10.0, 20.0, 30.0])
    east_west = apply_symmetry(fields, VECTOR, "flip_horizontal")
    assert east_west[0, :, 0, 2].tolist() == [10, 20, -30]
    north_south = apply_symmetry(fields, VECTOR, "flip_vertical")
    assert north_south[0, :, 3, 1].tolist() == [10, -20, 30]
    assert apply_symmetry(fields, VECTOR, "reverse_polarity")[0, :, 0, 1].tolist() == [
        -10,
        -20,
        -30,
    ]
    turned = apply_symmetry(fields, VECTOR, "rotate90")
    y, x = (turned[0, 0] == 10).nonzero()[0].tolist()
    assert turned[0, :, y, x].tolist() == [10, -30, 20]


@pytest.mark.parametrize("name", NAMES)
def test_keywords_that_must_be_invariant_stay_so(name: str) -> None:
    fields = blob().double()
    quantities = ("USFLUX", "MEANGAM", "TOTUSJH", "ABSNJZH", "POLSEP", "MEANSHR", "TOTPOT")
    before = measure(fields, 7.3e7, names=quantities)
    after = measure(apply_symmetry(fields, VECTOR, name), 7.3e7, names=quantities)
    for quantity in quantities:
        torch.testing.assert_close(after[quantity], before[quantity], rtol=1e-9, atol=0)


def test_line_of_sight_alone_is_a_signed_scalar() -> None:
    los = blob()[:, :1]
    assert torch.equal(apply_symmetry(los, ("magnetogram",), "flip_horizontal"), los.flip(-1))
    assert torch.equal(apply_symmetry(los, ("magnetogram",), "reverse_polarity"), -los)
    turned = apply_symmetry(los, ("Br",), "rotate90")
    assert torch.equal(turned, apply_symmetry(blob(), VECTOR, "rotate90")[:, :1])


@pytest.mark.parametrize(
    "channels", [("continuum",), ("Br", "Bt"), ("Bp",), ("Br", "Bt", "Bp", "1700")]
)
def test_channels_without_rules_are_refused(channels: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="no sign rules for channel"):
        check_symmetries(NAMES, channels, ["Gauss"] * len(channels))


def test_known_channels_pass() -> None:
    for channels in (
        VECTOR,
        ("Bp", "Br", "Bt"),
        ("Br",),
        ("magnetogram",),
        (*VECTOR, "magnetogram"),
    ):
        check_symmetries(NAMES, channels, ["Gauss"] * len(channels))
    mixed = ("171", "193", "magnetogram")
    check_symmetries(NAMES[:3], mixed, ["DN/s", "DN/s", "Gauss"])


def test_shift_moves_whole_pixels_and_fills_with_zero() -> None:
    fields = torch.arange(1.0, 17.0).reshape(1, 1, 4, 4).repeat(2, 1, 1, 1)
    moved = shift(fields, torch.tensor([1, 0]), torch.tensor([0, -2]))
    assert torch.equal(moved[0, 0, 1:], fields[0, 0, :-1])
    assert not moved[0, 0, 0].any()
    assert torch.equal(moved[1, 0, :, :2], fields[1, 0, :, 2:])
    assert not moved[1, 0, :, 2:].any()


def test_window_hides_but_does_not_move_or_scale() -> None:
    fields = torch.rand(64, 1, 32, 32) + 1
    seen = window(fields, 0.5, torch.rand(3, 64, generator=generator()))
    kept = seen != 0
    assert torch.equal(seen[kept], fields[kept])
    share = kept.float().mean(dim=(1, 2, 3))
    assert share.min() >= 0.25
    assert share.max() <= 1
    assert share.std() > 0.05


def test_nothing_asked_nothing_changed() -> None:
    fields = blob()
    mask = torch.ones(2, 32, 32, dtype=torch.bool)
    assert torch.equal(view_of(fields, mask, STILL), fields)


def test_noise_has_the_level_of_hmi_and_only_where_valid() -> None:
    settings = SslSettings(symmetries=(), crop=1.0, shift=0.0, noise_g=6.4)
    fields = torch.zeros(8, 3, 64, 64)
    mask = torch.ones(8, 64, 64, dtype=torch.bool)
    mask[:, :, :20] = False
    view = view_of(fields, mask, settings)
    assert not view[..., :20].any()
    assert view[..., 20:].std().item() == pytest.approx(6.4, rel=0.02)


def test_views_are_pure_in_the_seed_and_never_stretch() -> None:
    settings = SslSettings(noise_g=0.0, crop=1.0, shift=0.0)
    fields = blob().repeat(16, 1, 1, 1)
    mask = torch.ones(32, 32, 32, dtype=torch.bool)
    view = view_of(fields, mask, settings, 3)
    assert torch.equal(view, view_of(fields, mask, settings, 3))
    assert not torch.equal(view, view_of(fields, mask, settings, 4))
    # Every view holds exactly the gauss of its patch, at other places.
    before = fields[:, 0].abs().flatten(1).sort(dim=1).values
    assert torch.equal(view[:, 0].abs().flatten(1).sort(dim=1).values, before)
    # All sixteen combinations of mirrors, turns and polarity come up.
    one = view_of(blob()[:1].repeat(400, 1, 1, 1), mask[:1].repeat(400, 1, 1),
                      settings, 5)  # fmt: skip
    assert len({tuple(image.flatten().tolist()) for image in one}) == 16


def test_orbit_lists_every_combination_once() -> None:
    ways = orbit(VECTOR, NAMES)
    assert len(ways) == 16
    assert ways[0] == ()
    assert len(orbit(("Br",), NAMES)) == 16
    assert orbit(VECTOR, ()) == [()]
    assert len(orbit(VECTOR, ("rotate90",))) == 4
    assert len(orbit(VECTOR, ("flip_vertical", "reverse_polarity"))) == 4
    # Negating a scalar mask does nothing: a polarity reversal is then no new way.
    assert len(orbit(("mask",), NAMES)) == 8


def test_a_patch_has_the_same_view_at_any_number_of_ranks() -> None:
    fields, mask = blob().repeat(4, 1, 1, 1), torch.ones(8, 32, 32, dtype=torch.bool)
    about = (VECTOR, ["Gauss"] * 3, SslSettings())

    def view(places: range) -> torch.Tensor:
        chance = Chance.of(3, 640, "ssl-one", places, torch.device("cpu"))
        rows = list(places)
        return draw_view(fields[rows], mask[rows], *about, chance)

    whole = view(range(8))
    for rank in range(2):
        assert torch.equal(view(range(rank, 8, 2)), whole[rank::2])
    assert not torch.equal(whole[0], whole[2])


def test_intensities_are_mirrored_and_turned_but_never_made_noisy_or_negative() -> None:
    images = torch.rand(16, 2, 16, 16, generator=generator()) * 900
    mask = torch.ones(16, 16, 16, dtype=torch.bool)
    settings = SslSettings(
        symmetries=("flip_horizontal", "flip_vertical", "rotate90"), crop=1.0, shift=0.0
    )
    chance = Chance.of(1, 0, "view", range(16), torch.device("cpu"))
    view = draw_view(images, mask, ("171", "193"), ("DN/s", "DN/s"), settings, chance)
    assert not torch.equal(view, images)
    assert torch.equal(view.flatten(2).sort().values, images.flatten(2).sort().values)
    # both wavelengths are turned alike
    assert torch.equal(view[:, 1], draw_view(images[:, [1, 0]], mask, ("193", "171"),
                                             ("DN/s", "DN/s"), settings, chance)[:, 0])  # fmt: skip


def test_polarity_of_an_intensity_and_unknown_channels_are_refused() -> None:
    def dataset(channels: list[str], units: list[str]) -> Any:
        return SimpleNamespace(name="d", channels=channels, units=units)

    check_views(dataset(["Br", "Bt", "Bp"], ["Gauss"] * 3), SslSettings())
    turns = SslSettings(symmetries=("flip_horizontal", "rotate90"))
    check_views(dataset(["171", "193"], ["DN/s"] * 2), turns)
    with pytest.raises(DataError, match=r"reverse_polarity is for fields: channel 171"):
        check_views(dataset(["171"], ["DN/s"]), SslSettings())
    with pytest.raises(DataError, match=r"ssl.symmetries: no sign rules for channel Bp"):
        check_views(dataset(["Bp"], ["Gauss"]), SslSettings())
    listed = SslSettings(normalize=NormalizeSettings(scale=(1.0, 2.0)))
    with pytest.raises(UsageError, match=r"ssl\.normalize lists 2 channels, dataset d has 1"):
        check_views(dataset(["Br"], ["Gauss"]), listed)
