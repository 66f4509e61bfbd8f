"""DiffAugment moves and cuts, and nothing else."""

from __future__ import annotations

import torch

from sunpipe.train.augment import cutout, diffaugment, translate


def test_translation_is_a_whole_pixel_shift_with_zero_fill() -> None:
    torch.manual_seed(0)
    x = torch.rand(200, 2, 16, 16) + 1.0
    y = translate(x)
    shifts = set()
    for before, after in zip(x, y, strict=True):
        rows = (after[0] != 0).any(dim=1).nonzero().flatten()
        columns = (after[0] != 0).any(dim=0).nonzero().flatten()
        kept = after[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        dy = int(rows[0]) if rows[0] > 0 else int(rows[-1]) - 15
        dx = int(columns[0]) if columns[0] > 0 else int(columns[-1]) - 15
        source = before[:, max(-dy, 0) : 16 - max(dy, 0), max(-dx, 0) : 16 - max(dx, 0)]
        assert torch.equal(kept, source)
        shifts.add((dy, dx))
    assert {dy for dy, _ in shifts} == {-2, -1, 0, 1, 2}
    assert {dx for _, dx in shifts} == {-2, -1, 0, 1, 2}


def test_cutout_zeroes_one_square() -> None:
    torch.manual_seed(0)
    x = torch.rand(300, 1, 16, 16) + 1.0
    holes = (cutout(x) == 0).sum(dim=(1, 2, 3))
    assert int(holes.max()) == 64  # 8 x 8 when it lies inside
    assert int(holes.min()) >= 16  # a quarter when its centre is a corner
    y = cutout(x)
    assert bool(((y == 0) | (y == x)).all())


def test_augmentation_is_differentiable_and_optional() -> None:
    x = torch.rand(4, 3, 8, 8, requires_grad=True)
    diffaugment(x, ("translation", "cutout")).sum().backward()
    assert x.grad is not None
    assert set(x.grad.unique().tolist()) <= {0.0, 1.0}
    assert diffaugment(x, ()) is x
