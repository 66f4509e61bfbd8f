"""Data movements between the ranks that share an image, each with its adjoint.

Each is a linear map of what all ranks of a group hold together, and its backward
pass is another one of them, so that derivatives of any order are right. See
`sunpipe.models.stripes` for what they are for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as torch_dist
from torch.autograd import Function

Tensor = torch.Tensor


@dataclass(frozen=True, eq=False)
class Group:
    """Ranks that share an image.

    Attributes
    ----------
    count, index : int
        Number of ranks, and our place among them, from the top of the image.
    handle : ProcessGroup
        torch's group of these ranks, in order.
    """

    count: int
    index: int
    handle: Any

    def __deepcopy__(self, memo: object) -> Group:
        """The same group: a copied network talks over it too."""
        return self


def own_rows(group: Group, size: int) -> slice:
    """Rows of this rank in an image of `size` rows."""
    rows, rest = divmod(size, group.count)
    assert not rest, (size, group.count)
    return slice(group.index * rows, (group.index + 1) * rows)


def _channels_last(x: Tensor) -> bool:
    return x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()


def swap(up: Tensor, down: Tensor, group: Group) -> tuple[Tensor, Tensor]:
    """Send rows to both neighbours; returns those from above and from below, zero at a border."""
    sent = [rows.permute(0, 2, 3, 1).contiguous() for rows in (up, down)]
    from_above, from_below = torch.zeros_like(sent[1]), torch.zeros_like(sent[0])
    operations = []
    for step, out, received in ((-1, sent[0], from_above), (1, sent[1], from_below)):
        place = group.index + step
        if 0 <= place < group.count:
            peer = torch_dist.get_global_rank(group.handle, place)
            operations += [
                torch_dist.P2POp(torch_dist.isend, out, peer, group.handle),
                torch_dist.P2POp(torch_dist.irecv, received, peer, group.handle),
            ]
    for work in torch_dist.batch_isend_irecv(operations):
        work.wait()
    return from_above.permute(0, 3, 1, 2), from_below.permute(0, 3, 1, 2)


class _Split(Function):
    """Own rows, copied: a view would keep the whole image in memory."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: Group) -> Tensor:
        ctx.group = group
        return x[:, :, own_rows(group, x.shape[2])].clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return _Gather.apply(gradient, ctx.group), None


class _Gather(Function):
    """Rows of all ranks; adjoint of `_Split` on gradients that are the same on every rank."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: Group) -> Tensor:
        ctx.group = group
        own = x.permute(0, 2, 3, 1).contiguous()
        rows = [torch.empty_like(own) for _ in range(group.count)]
        torch_dist.all_gather(rows, own, group=group.handle)
        whole = torch.cat(rows, dim=1).permute(0, 3, 1, 2)
        return whole if _channels_last(x) else whole.contiguous()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return _Split.apply(gradient, ctx.group), None


class _Halo(Function):
    """x to (x, neighbours' rows)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: Group, reach: int) -> tuple[Tensor, Tensor]:
        assert x.shape[2] >= reach, (x.shape, reach)
        ctx.group, ctx.reach = group, reach
        rows = swap(x[:, :, :reach], x[:, :, -reach:], group)
        # not view_as, which spoils the strides that tell channels-last for a batch of one
        return x[:], torch.cat(rows, dim=2)

    @staticmethod
    def backward(ctx: Any, own: Tensor, halo: Tensor) -> tuple[Tensor, None, None]:
        return _GiveBack.apply(own, halo, ctx.group, ctx.reach, False), None, None


class _GiveBack(Function):
    """(own rows, rows of the neighbours) to own rows, each with what its neighbours had of it.

    In place where the own rows were made for this.
    """

    @staticmethod
    def forward(
        ctx: Any, own: Tensor, halo: Tensor, group: Group, reach: int, in_place: bool
    ) -> Tensor:
        ctx.group, ctx.reach = group, reach
        above, below = swap(halo[:, :, :reach], halo[:, :, reach:], group)
        if in_place:
            ctx.mark_dirty(own)
        else:
            own = own.clone()
        own[:, :, :reach] += above
        own[:, :, -reach:] += below
        return own

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        return *_Halo.apply(gradient, ctx.group, ctx.reach), None, None, None


class _Share(Function):
    """Identity; the gradients are summed over the ranks in one message."""

    @staticmethod
    def forward(ctx: Any, group: Group, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.group = group
        return tuple(tensor.view_as(tensor) for tensor in tensors)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        needed = ctx.needs_input_grad[1:]
        wanted = [g for g, need in zip(gradients, needed, strict=True) if need]
        summed = iter(_Reduce.apply(ctx.group, *wanted))
        return None, *(next(summed) if need else None for need in needed)


class _Reduce(Function):
    """Sums over the ranks, the same bits on each."""

    @staticmethod
    def forward(ctx: Any, group: Group, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.group = group
        assert len({tensor.dtype for tensor in tensors}) == 1, "one type per message"
        message = torch.cat([tensor.reshape(-1) for tensor in tensors])
        torch_dist.all_reduce(message, group=group.handle)
        parts = message.split([tensor.numel() for tensor in tensors])
        return tuple(
            part.clone().view(tensor.shape) for part, tensor in zip(parts, tensors, strict=True)
        )

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return None, *_Share.apply(ctx.group, *gradients)


class _AddEdges(Function):
    """Add to the first and to the last rows, in place."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, edges: Tensor) -> Tensor:
        ctx.edge = edge = edges.shape[2] // 2
        x[:, :, :edge] += edges[:, :, :edge]
        x[:, :, -edge:] += edges[:, :, edge:]
        ctx.mark_dirty(x)
        return x

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        edge = ctx.edge
        return gradient, torch.cat([gradient[:, :, :edge], gradient[:, :, -edge:]], dim=2)


# The movements as functions, called with the arguments of their forward after ctx.
split, gather, halo, give_back = _Split.apply, _Gather.apply, _Halo.apply, _GiveBack.apply
share, add_edges = _Share.apply, _AddEdges.apply
