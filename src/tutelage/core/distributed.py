"""Several processes: are there any, a gather with gradient, sums and lists over all ranks.

A loss between items changes its meaning when each process sees only its own share of the batch.
Gathered, every process computes the loss of the whole batch; data-parallel training averages the
gradients over the processes, which then equal those of one process with the whole batch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, distributed
from torch.autograd import Function

from tutelage.errors import UserError


def is_distributed() -> bool:
    """Return whether this process is one of several.

    >>> is_distributed()
    False
    """
    initialized = distributed.is_available() and distributed.is_initialized()
    return initialized and distributed.get_world_size() > 1


def all_gather_with_grad(x: Tensor) -> Tensor:
    """Return the rows of all processes in the order of their ranks.

    Raw `all_gather` cuts the graph, and raw `all_reduce` is not differentiated by autograd.

    >>> all_gather_with_grad(torch.ones(2, 3)).shape
    torch.Size([2, 3])

    Args:
        x: (N, ...), of the same shape on every rank.

    Returns:
        (world · N, ...), or x itself if there is one process. Its gradient is summed over ranks,
        and each rank gets the part that belongs to its rows.
    """
    return cast(Tensor, _AllGather.apply(x)) if is_distributed() else x


class _AllGather(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.rows = len(x)
        parts = [
            torch.empty_like(x, memory_format=torch.contiguous_format)
            for _ in range(distributed.get_world_size())
        ]
        distributed.all_gather(parts, x.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        # Every rank used the gathered rows, so the gradients of all ranks add up.
        return cast(Tensor, _SumOfRows.apply(grad, ctx.rows))


class _SumOfRows(Function):
    """This rank's rows of the sum over ranks: a function of its own, to be differentiated again."""

    @staticmethod
    def forward(ctx: Any, grad: Tensor, rows: int) -> Tensor:
        total = grad.contiguous().clone()
        distributed.all_reduce(total)
        start = distributed.get_rank() * rows
        return total[start : start + rows]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return cast(Tensor, _AllGather.apply(grad)), None


def sum_over_ranks(value: Tensor) -> Tensor:
    """Return the sum of a tensor over all ranks, on the CPU."""
    total = value.to(_group_device(), copy=True)
    distributed.all_reduce(total)
    return total.cpu()


def mean_of_ranks(tensors: Sequence[Tensor]) -> Sequence[Tensor]:
    """Return the mean of each tensor over all ranks; the tensors themselves on one process."""
    if not is_distributed():
        return tensors
    joined = torch.cat([tensor.flatten() for tensor in tensors])
    distributed.all_reduce(joined)
    joined /= distributed.get_world_size()
    parts = torch.split(joined, [tensor.numel() for tensor in tensors])
    return [part.view_as(tensor) for part, tensor in zip(parts, tensors, strict=True)]


def mean_over_ranks(total: Tensor, count: Tensor) -> Tensor:
    """Return a sum over items, divided by their number so that the mean over ranks is right.

    Ranks that hold different numbers of labeled items would weigh their items differently if each
    divided by its own count. Data-parallel training averages over the ranks, so each rank gives
    total · world / (count of all ranks). Without gradient, where no rank waits for another, it is
    the mean of this rank.

    >>> mean_over_ranks(torch.tensor(6.0), torch.tensor(3)).item()
    2.0

    Args:
        total: the sum of this rank, a scalar.
        count: how many items are in it; 0 on all ranks gives 0.
    """
    if not (is_distributed() and torch.is_grad_enabled()):
        return total / count.clamp(min=1)
    everyone = count.detach().to(total.dtype, copy=True)
    distributed.all_reduce(everyone)
    return total * distributed.get_world_size() / everyone.clamp(min=1)


def gather_numbers(numbers: list[int]) -> list[list[int]]:
    """Return the integers of every rank, without pickling."""
    own = torch.tensor(numbers, dtype=torch.int64, device=_group_device())
    rows = [torch.empty_like(own) for _ in range(distributed.get_world_size())]
    distributed.all_gather(rows, own)
    return [row.tolist() for row in rows]


def gather_lists(lists: list[list[Any]]) -> list[list[Any]]:
    """Return each list joined over all ranks; the lists themselves if there is one process.

    >>> gather_lists([[1, 2], [3]])
    [[1, 2], [3]]
    """
    if not is_distributed():
        return lists
    ranks: list[Any] = [None] * distributed.get_world_size()
    torch.distributed.all_gather_object(ranks, lists)
    return [[item for rank in ranks for item in rank[index]] for index in range(len(lists))]


def check_same_on_all_ranks(description: str) -> None:
    """Raise on every rank if the ranks do different things.

    Raises:
        UserError: If the descriptions differ.
    """
    digest = hashlib.blake2b(description.encode(), digest_size=7).digest()
    rows = gather_numbers([int.from_bytes(digest, "big")])
    if len({row[0] for row in rows}) > 1:
        raise UserError(
            "the ranks compare different layers or draw different numbers of permutations; "
            "use the same"
        )


def _group_device() -> torch.device:
    """Return the device on which the process group can add tensors."""
    return torch.device("cuda" if distributed.get_backend() == "nccl" else "cpu")
