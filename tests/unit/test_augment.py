"""DiffAugment: where pixels go, what fills them, what belongs to a sample, and its derivatives."""

from __future__ import annotations

import pytest
import torch

from sunpipe.train.augment import POLICIES, Draw, augment, check_policy, hole, shift
from sunpipe.train.chance import Chance

Tensor = torch.Tensor
CPU = torch.device("cpu")
ALL = ("color", "translation", "cutout")


def chance(count: int, seed: int = 1) -> Chance:
    return Chance.of(seed, 0, "test", range(count), CPU)


def images(*shape: int, seed: int = 0) -> Tensor:
    """Distinct values well away from any fill."""
    return 5 + torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_shift_moves_whole_pixels_and_fills_each_channel() -> None:
    x = torch.arange(1.0, 25.0).reshape(1, 2, 3, 4)
    fill = torch.tensor([-1.0, 0.5]).reshape(2, 1, 1)
    moved = shift(x, [1], [-2], fill)
    assert moved[0, 0].tolist() == [[-1, -1, -1, -1], [3, 4, -1, -1], [7, 8, -1, -1]]
    assert moved[0, 1, 0].tolist() == [0.5] * 4
    assert moved[0, 1, 2].tolist() == [19, 20, 0.5, 0.5]
    assert torch.equal(shift(x, [0], [0], fill), x)


def test_shift_agrees_with_a_padded_copy() -> None:
    x = images(40, 3, 9, 16)
    generator = torch.Generator().manual_seed(2)
    down = torch.randint(-3, 4, (40,), generator=generator).tolist()
    right = torch.randint(-5, 6, (40,), generator=generator).tolist()
    padded = torch.nn.functional.pad(x, (5, 5, 3, 3), value=-1.0)
    wanted = [p[:, 3 - dy : 12 - dy, 5 - dx : 21 - dx]
              for p, dy, dx in zip(padded, down, right, strict=True)]  # fmt: skip
    assert torch.equal(shift(x, down, right, torch.tensor(-1.0)), torch.stack(wanted))


def test_shift_keeps_the_memory_format() -> None:
    x = images(2, 3, 8, 8).contiguous(memory_format=torch.channels_last)
    moved = shift(x, [1, 0], [0, 2], torch.tensor(0.0))
    assert moved.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(moved, shift(x.contiguous(), [1, 0], [0, 2], torch.tensor(0.0)))


def test_translation_reaches_an_eighth_each_way_equally_often() -> None:
    x = images(1000, 1, 16, 16)
    y = augment(x, ("translation",), -1.0, chance(1000))
    seen = torch.zeros(5, 5)
    for before, after in zip(x, y, strict=True):
        inside = (after[0] != -1).nonzero()
        low, high = inside.min(0).values.tolist(), inside.max(0).values.tolist()
        dy, dx = (a if a > 0 else b - 15 for a, b in zip(low, high, strict=True))
        source = before[0, max(-dy, 0) : 16 - max(dy, 0), max(-dx, 0) : 16 - max(dx, 0)]
        assert torch.equal(after[0, low[0] : high[0] + 1, low[1] : high[1] + 1], source)
        seen[dy + 2, dx + 2] += 1
    # 25 cells of 40: chi squared of 24 degrees, beyond 60 once in 10^5
    assert float(((seen - 40) ** 2 / 40).sum()) < 60


def test_hole_is_one_square_at_its_centre() -> None:
    x = images(2, 2, 6, 8)
    fill = torch.tensor([-1.0, -2.0], dtype=torch.float64).reshape(2, 1, 1)
    y = hole(x, torch.tensor([3, 0]), torch.tensor([4, 8]), (3, 4), fill)
    covered = torch.zeros(2, 6, 8, dtype=torch.bool)
    covered[0, 2:5, 2:6] = True
    covered[1, 0:2, 6:8] = True  # the rest of the square lies outside
    assert torch.equal(y, torch.where(covered[:, None], fill, x))


@pytest.mark.parametrize("side", [16, 13])
def test_cutout_covers_half_of_each_side(side: int) -> None:
    x = images(400, 1, side, side)
    holes = augment(x, ("cutout",), -1.0, chance(400)) == -1
    tall, wide = holes.any(dim=3).sum(dim=2), holes.any(dim=2).sum(dim=2)
    half = int(side / 2 + 0.5)
    assert torch.equal(holes.sum(dim=(1, 2, 3)), (tall * wide).flatten())
    assert int(tall.max()) == int(wide.max()) == half
    least = half // 2 if half % 2 == 0 else half // 2 + 1  # the centre on the edge
    assert int(tall.min()) == int(wide.min()) == least
    places = holes.any(dim=3)[:, 0].double().mean(dim=0)
    assert bool((places > 0.15).all())  # every row is covered now and then, edges included


def color_of(x: Tensor, name: str) -> Tensor:
    return POLICIES["color"][name](x, torch.tensor(0.0), Draw(chance(len(x)), "c", None))


def test_color_against_its_formulas() -> None:
    x = images(64, 3, 4, 4)
    u = chance(64).uniform("c").double()[:, None, None, None]
    torch.testing.assert_close(color_of(x, "brightness"), x + u - 0.5)
    grey = x.mean(dim=1, keepdim=True)
    torch.testing.assert_close(color_of(x, "saturation"), (x - grey) * (2 * u) + grey)
    middle = x.mean(dim=(1, 2, 3), keepdim=True)
    torch.testing.assert_close(color_of(x, "contrast"), (x - middle) * (u + 0.5) + middle)
    assert torch.equal(color_of(x[:, :1], "saturation"), x[:, :1])  # one channel has no colour


def test_color_draws_its_three_numbers_apart() -> None:
    x = images(4000, 2, 2, 2)
    y = augment(x, ("color",), -1.0, chance(4000))
    shifted = (y - x).mean(dim=(1, 2, 3))  # only brightness moves the mean
    spread = [(t[:, 0] - t[:, 1]).abs().mean(dim=(1, 2)) for t in (y, x)]
    gain = spread[0] / spread[1]  # saturation times contrast
    assert float(shifted.abs().max()) <= 0.5
    assert float(shifted.std()) == pytest.approx(12**-0.5, rel=0.05)
    assert float(gain.mean()) == pytest.approx(1.0, abs=0.05)  # 1 on average only if independent
    assert abs(float(torch.corrcoef(torch.stack((shifted, gain)))[0, 1])) < 0.06


def test_policy_is_applied_in_its_order() -> None:
    """Cut, then moved: the hole moves along. Moved, then cut: it does not."""
    x = images(200, 1, 16, 16)
    first = augment(x, ("cutout", "translation"), -1.0, chance(200))
    numbers = chance(200)
    row, column = (numbers.integers(f"augment.0.cutout.{axis}", 0, 17) for axis in "yx")
    cut = hole(x, row, column, (8, 8), torch.tensor(-1.0))
    down = numbers.integers("augment.1.translation.y", -2, 3).tolist()
    right = numbers.integers("augment.1.translation.x", -2, 3).tolist()
    assert torch.equal(first, shift(cut, down, right, torch.tensor(-1.0)))
    assert not torch.equal(first, augment(x, ("translation", "cutout"), -1.0, chance(200)))


def test_a_sample_is_augmented_alike_in_any_batch() -> None:
    x = images(12, 3, 16, 16)
    whole = augment(x, ALL, (0.0, -1.0, 0.5), chance(12), p=0.7)
    for rank in range(3):
        part = augment(x[rank::3], ALL, (0.0, -1.0, 0.5), chance(12).part(rank, 3), p=0.7)
        assert torch.equal(part, whole[rank::3])


@pytest.mark.parametrize("p", [0.0, 0.3, torch.tensor(0.3, dtype=torch.float64)])
def test_p_is_the_share_of_samples(p: float | Tensor) -> None:
    x = images(4000, 2, 8, 8)
    moved = (augment(x, ("translation",), -1.0, chance(4000), p) != x).flatten(1).any(dim=1)
    assert float(moved.double().mean()) == pytest.approx(float(p) * 8 / 9, abs=0.03)  # 1 of 9 is 0
    for policy in (("cutout",), ("color",)):
        kept = (augment(x, policy, -1.0, chance(4000), p) == x).flatten(1).all(dim=1)
        operations = 3 if policy == ("color",) else 1
        share = (1 - float(p)) ** operations
        assert float(kept.double().mean()) == pytest.approx(share, abs=0.03)
    one = torch.ones((), dtype=torch.float64)
    assert torch.equal(
        augment(x, ALL, -1.0, chance(4000), one), augment(x, ALL, -1.0, chance(4000))
    )


def test_derivatives() -> None:
    x = images(2, 2, 4, 4).requires_grad_(True)

    def squared(y: Tensor) -> Tensor:
        return augment(y, ALL, (0.25, -1.0), chance(2), 0.8).square()

    assert torch.autograd.gradcheck(squared, (x,))
    assert torch.autograd.gradgradcheck(squared, (x,))


def test_gradient_of_a_shift_is_the_shift_back() -> None:
    """<A x, y> = <x, A^T y>, with the fill taken off."""
    x, y = images(5, 2, 8, 8), images(5, 2, 8, 8, seed=1)
    x.requires_grad_(True)
    down, right = [1, -1, 0, 3, -8], [0, 2, -2, -3, 0]
    moved = shift(x, down, right, torch.tensor(0.0))
    (back,) = torch.autograd.grad((moved * y).sum(), x)
    assert torch.equal(back, shift(y, [-d for d in down], [-r for r in right], torch.tensor(0.0)))
    torch.testing.assert_close((x * back).sum(), (moved * y).sum())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_the_float_type_is_kept(dtype: torch.dtype) -> None:
    x = torch.rand(4, 2, 8, 8).to(dtype)
    assert augment(x, ALL, (0.1, -1.0), chance(4), 0.5).dtype is dtype


def test_an_empty_policy_is_the_image() -> None:
    x = images(2, 1, 8, 8)
    assert augment(x, (), 0.0, chance(2)) is x


def test_policy_is_checked_against_the_units() -> None:
    check_policy(("translation", "cutout"), ("Gauss", "DN/s"))
    check_policy(ALL, ("DN/s",) * 3)
    with pytest.raises(ValueError, match=r"color.*channel 2 of 2 is in Gauss"):
        check_policy(ALL, ("DN/s", "Gauss"))
    with pytest.raises(ValueError, match="color must come first"):
        check_policy(("translation", "color"), ("DN/s",))
    with pytest.raises(ValueError, match="unknown augmentation blur"):
        check_policy(("blur",), ("Gauss",))


def test_numbers_that_do_not_fit_are_refused() -> None:
    x = images(4, 3, 8, 8)
    with pytest.raises(ValueError, match="chance for 3 samples, 4 images"):
        augment(x, ALL, 0.0, chance(3))
    with pytest.raises(ValueError, match="fill lists 2 channels, the images have 3"):
        augment(x, ALL, (0.0, 1.0), chance(4))
