"""Relations over the batch of all processes: a gather through which gradients flow.

A loss between items changes its meaning when each process sees its own share of the batch only. Joined, every
process computes the loss of the whole batch; data-parallel training averages the gradients over the processes,
which then equal those of one process with the whole batch.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, distributed
from torch.autograd import Function


def joined(x: Tensor) -> Tensor:
    """Return the rows of all processes in the order of their ranks; x itself when there is one process.

    >>> joined(torch.ones(2, 3)).shape
    torch.Size([2, 3])

    Args:
        x: (N, ...), of the same shape on every rank.

    Returns:
        (world · N, ...); its gradient is summed over ranks and handed to the rank that the rows came from.
    """
    if not (distributed.is_available() and distributed.is_initialized()) or distributed.get_world_size() == 1:
        return x
    return cast(Tensor, _Joined.apply(x))


class _Joined(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.rows = len(x)
        parts = [
            torch.empty_like(x, memory_format=torch.contiguous_format) for _ in range(distributed.get_world_size())
        ]
        distributed.all_gather(parts, x.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        total = grad.contiguous().clone()
        distributed.all_reduce(total)
        start = distributed.get_rank() * ctx.rows
        return total[start : start + ctx.rows]
