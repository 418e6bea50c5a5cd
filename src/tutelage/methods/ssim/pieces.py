"""Sums over large maps, computed piece by piece with their gradients.

The graph of SSIM holds some sixty maps of the size of its inputs, a gigabyte for 64 channels of
256 × 256 positions, and fetching that memory takes longer than computing in it. Pieces keep one
piece in memory with its graph, and the gradient.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd import Function

# Elements of a piece: a megabyte in float32.
PIECE = 2**18

Sum = Callable[[Tensor, Tensor, slice], Tensor]


def sum_in_pieces(function: Sum, student: Tensor, teacher: Tensor) -> Tensor:
    """Return the sum of a function over pieces of two maps, cut along dimension 1.

    On a CPU the gradient of each piece is computed at once, so that a single piece is in memory
    with its graph. Small maps, and those on an accelerator, which has little to gain from it, are
    one piece.

    >>> maps = torch.ones(1, 3, 400, 400, requires_grad=True)
    >>> total = sum_in_pieces(lambda s, t, part: (s * t).sum(), maps, 2 * torch.ones_like(maps))
    >>> total.backward()
    >>> total.item(), maps.grad.unique().item()
    (960000.0, 2.0)

    Args:
        function: from pieces (B, n, H, W) of both maps, and which channels they are, to a scalar.
            The value of the whole is the sum of those of its pieces.
        student: (B, C, H, W).
        teacher: of the same shape.
    """
    is_small = student.numel() < 2 * PIECE
    if is_small or student.device.type != "cpu" or torch.compiler.is_compiling():
        return function(student, teacher, slice(None))
    return cast(Tensor, _SumInPieces.apply(function, student, teacher))


class _SumInPieces(Function):
    @staticmethod
    def forward(ctx: Any, function: Sum, student: Tensor, teacher: Tensor) -> Tensor:
        ctx.function = function
        ctx.save_for_backward(student, teacher)
        needs = ctx.needs_input_grad[1:]
        ctx.grads = [
            torch.empty_like(maps) if need else None
            for maps, need in zip((student, teacher), needs, strict=True)
        ]
        channels = max(1, PIECE * student.shape[1] // student.numel())
        total = student.new_zeros((), dtype=torch.promote_types(student.dtype, torch.float32))
        for start in range(0, student.shape[1], channels):
            part = slice(start, start + channels)
            pieces = [
                maps[:, part].detach().requires_grad_(need)
                for maps, need in zip((student, teacher), needs, strict=True)
            ]
            with torch.set_grad_enabled(any(needs)):
                value = function(pieces[0], pieces[1], part)
            wanted = [piece for piece in pieces if piece.requires_grad]
            found = iter(torch.autograd.grad(value, wanted) if wanted else ())
            for grad in ctx.grads:
                if grad is not None:
                    grad[:, part] = next(found)
            total = total + value.detach()
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor | None, Tensor | None]:
        student, teacher = ctx.saved_tensors
        if torch.is_grad_enabled():  # a graph of the gradient is wanted: from the whole
            wanted = [maps for maps in (student, teacher) if maps.requires_grad]
            with torch.enable_grad():
                total = ctx.function(student, teacher, slice(None))
            found = iter(torch.autograd.grad(total, wanted, grad, create_graph=True))
            grads = [next(found) if need else None for need in ctx.needs_input_grad[1:]]
            return None, grads[0], grads[1]
        scaled = [None if found is None else found * grad.to(found.dtype) for found in ctx.grads]
        return None, scaled[0], scaled[1]
