"""Rows of an image over ranks: arithmetic, and striped maps on threads that stand for ranks."""

from __future__ import annotations

import copy
import queue
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch

from sunpipe.models import exchange, geometry, striped
from sunpipe.models.exchange import own_rows
from sunpipe.models.filters import Resample, binomial
from sunpipe.models.geometry import Geometry
from sunpipe.models.stripes import Stripes, between, check, data_rank, data_world, unsplit
from sunpipe.models.stylegan2 import Discriminator, Generator
from sunpipe.train_settings import ComputeSettings, ModelSettings

Tensor = torch.Tensor
AT = [Geometry("same", 3), Geometry("same", 1), Geometry("up", 3), Geometry("down", 3),
      Geometry("down", 1)]  # fmt: skip


def test_neighbouring_ranks_share_samples() -> None:
    assert [data_rank(rank, 2) for rank in range(6)] == [0, 0, 1, 1, 2, 2]
    assert data_world(6, 2) == 3
    assert [data_rank(rank, 1) for rank in range(3)] == [0, 1, 2]
    assert data_world(3, 1) == 3


def test_ranks_that_are_no_whole_groups_are_refused() -> None:
    with pytest.raises(ValueError, match=r"compute\.stripes=4 does not divide the 6 ranks"):
        data_world(6, 4)
    with pytest.raises(ValueError, match=r"compute\.stripes=2 does not divide the 1 ranks"):
        Stripes.make(1, 0, 2)
    assert Stripes.make(6, 3, 1) is None  # needs no process group


def test_rows_that_do_not_divide_are_refused() -> None:
    check(1, 256, 128)  # one stripe is no stripes
    check(4, 8, 8)
    check(128, 256, 1024)
    with pytest.raises(ValueError, match=r"compute\.stripes=3 does not divide the 128 rows"):
        check(3, 256, 1024)
    with pytest.raises(ValueError, match=r"compute\.stripes=8 does not divide the 4 rows"):
        check(8, 8, 64)
    check(8, 9, 64)  # begins at 16 pixels, with 8 rows
    with pytest.raises(ValueError, match=r"stripes_from=256 is above the resolution 128"):
        check(2, 256, 128)


def test_a_copied_network_talks_over_the_same_group() -> None:
    handle = object()
    stripes = Stripes(4, 2, handle)
    assert copy.deepcopy([stripes])[0] is stripes
    assert own_rows(stripes, 16) == slice(8, 12)
    assert torch.equal(stripes.own(torch.arange(8.0)[:, None]), torch.tensor([[4.0], [5.0]]))


def test_the_strip_keeps_both_edges_apart() -> None:
    halo = torch.arange(1.0, 5.0).reshape(1, 1, 4, 1)
    assert between(halo).flatten().tolist() == [1, 2, 0, 0, 0, 0, 3, 4]


class Threads:
    """`exchange.swap` between threads: one queue from each stripe to each neighbour."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.queues: dict[tuple[int, int], queue.Queue[Tensor]] = {
            (i, j): queue.Queue() for i in range(count) for j in (i - 1, i + 1)
        }

    def swap(self, up: Tensor, down: Tensor, group: Stripes) -> tuple[Tensor, Tensor]:
        here = group.index
        for there, rows in ((here - 1, up), (here + 1, down)):
            self.queues[here, there].put(rows.clone())
        received = []
        for there, like in ((here - 1, down), (here + 1, up)):
            inside = 0 <= there < self.count
            received.append(self.queues[there, here].get(timeout=30) if inside
                            else torch.zeros_like(like))  # fmt: skip
        return received[0], received[1]

    def run(self, function: Callable[[Stripes], Tensor]) -> list[Tensor]:
        def one(index: int) -> Tensor:
            with torch.no_grad():
                return function(Stripes(self.count, index, None))

        with ThreadPoolExecutor(self.count) as pool:
            return list(pool.map(one, range(self.count)))


@pytest.mark.parametrize("at", AT, ids=str)
@pytest.mark.parametrize("rows", [2, 8])
@pytest.mark.parametrize("count", [2, 4])
def test_striped_convolutions_equal_whole_ones(
    at: Geometry, rows: int, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = Threads(count)
    monkeypatch.setattr(exchange, "swap", threads.swap)
    torch.manual_seed(0)
    x = torch.randn(2, 3, rows * count, 8, dtype=torch.float64)
    weight = torch.randn(4, 3, at.size, at.size, dtype=torch.float64)
    bias = None if at.mode == "up" else torch.randn(4, dtype=torch.float64)
    kernel = {"same": None, "up": binomial(4.0), "down": binomial()}[at.mode]
    whole = geometry.convolve(x, weight, kernel, at, bias)
    gradient = torch.randn_like(whole)

    def own(stripes: Stripes, of: Tensor) -> Tensor:
        return stripes.own(of).clone()

    found = threads.run(
        lambda s: striped.convolve(own(s, x), weight, kernel, at, bias, s)
    )  # fmt: skip
    torch.testing.assert_close(torch.cat(found, dim=2), whole, rtol=0, atol=1e-12)
    found = threads.run(lambda s: striped.transpose(own(s, gradient), weight, kernel, at, s))
    wanted = geometry.transpose(gradient, weight, kernel, at)
    torch.testing.assert_close(torch.cat(found, dim=2), wanted, rtol=0, atol=1e-12)
    found = threads.run(
        lambda s: striped.weight_gradient(own(s, gradient), own(s, x), weight, kernel, at, s)
    )
    wanted = geometry.weight_gradient(gradient, x, weight, kernel, at)
    torch.testing.assert_close(torch.stack(found).sum(dim=0), wanted, rtol=0, atol=1e-11)


@pytest.mark.parametrize("mode", ["up", "down"])
@pytest.mark.parametrize("rows", [2, 8])
def test_striped_resampling_equals_whole(
    mode: str, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = Threads(4)
    monkeypatch.setattr(exchange, "swap", threads.swap)
    x = torch.randn(2, 3, rows * 4, 8)
    resample = Resample(mode)  # type: ignore[arg-type]
    found = threads.run(lambda stripes: resample(stripes.own(x).clone(), stripes))
    torch.testing.assert_close(torch.cat(found, dim=2), resample(x), rtol=0, atol=1e-6)


def test_layout_survives(monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch of one in channels-last stays so: a copy per layer would double what is kept."""
    threads = Threads(2)
    monkeypatch.setattr(exchange, "swap", threads.swap)
    weight = torch.randn(4, 4, 3, 3)

    def strides(stripes: Stripes) -> Tensor:
        x = torch.randn(1, 4, 8, 8).contiguous(memory_format=torch.channels_last)
        rows = exchange.split(x, stripes)
        y = striped.convolve(rows, weight, binomial(4.0), Geometry("up"), None, stripes)
        return torch.tensor([*rows.stride()[1:], *y.stride()[1:]])

    for found in threads.run(strides):
        assert found.tolist() == [1, 32, 4, 1, 64, 4]


def test_a_copy_of_g_may_work_alone() -> None:
    model = ModelSettings(z_dim=4, w_dim=4, mapping_layers=1, channel_base=32, channel_max=2)
    compute = ComputeSettings(stripes=2, stripes_from=8)
    striped_g = Generator(16, 1, model, compute, Stripes(2, 0, None))
    alone = copy.deepcopy(striped_g)
    unsplit(alone)
    whole = Generator(16, 1, model, compute)
    whole.load_state_dict(alone.state_dict())
    z = torch.randn(2, 4)
    assert torch.equal(alone(z, noise="const"), whole(z, noise="const"))
    blocks: Any = striped_g.synthesis.blocks
    assert [blocks[str(size)].compute.stripes is None for size in (4, 8, 16)] == [
        True,
        False,
        False,
    ]
    with pytest.raises(ValueError, match=r"stripes_from=32 is above the resolution 16"):
        Generator(16, 1, model, ComputeSettings(stripes_from=32), Stripes(2, 0, None))
    with pytest.raises(ValueError, match=r"does not divide the 4 rows"):
        Discriminator(16, 1, model, compute, Stripes(8, 0, None))
