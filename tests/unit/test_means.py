"""Means over one rank: nothing is exchanged, and a group of one gives the same.

The proof with several ranks is in tests/integration/test_means.py.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import torch.distributed as torch_dist

from sunpipe.train import means
from sunpipe.train.means import mean_over_ranks


@pytest.fixture
def group_of_one() -> Iterator[None]:
    torch_dist.init_process_group("gloo", store=torch_dist.HashStore(), rank=0, world_size=1)
    yield
    torch_dist.destroy_process_group()


def test_one_rank_needs_no_process_group() -> None:
    assert not torch_dist.is_initialized()
    x = torch.randn(3)
    assert mean_over_ranks(x, 1) is x


def test_derivatives_against_finite_differences(group_of_one: None) -> None:
    """In a group of one rank, told that it is two: the factor 1/2 enters each derivative once."""
    x = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)

    def squared(y: torch.Tensor) -> torch.Tensor:
        return means._Mean.apply(y, 2).square()

    torch.testing.assert_close(squared(x), (x / 2).square())
    assert torch.autograd.gradcheck(squared, (x,))
    assert torch.autograd.gradgradcheck(squared, (x,))


def test_a_view_is_averaged_and_kept(group_of_one: None) -> None:
    x = torch.arange(6.0).reshape(2, 3)
    column = x[:, 1]  # not contiguous
    assert mean_over_ranks(column, 2).tolist() == [0.5, 2.0]
    assert x.flatten().tolist() == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
