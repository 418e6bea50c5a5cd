"""Alignment of many matrices of patches, cut from the maps block by block instead of all at once.

The cut moves every element, so a whole map's patches need as much memory as the map, and moving them costs more than
the products. Blocks that fit a core's cache are cut, multiplied and forgotten; only the small Gram matrices are kept,
and the backward pass cuts again. That needs no memory of a map's size beside the gradient itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from tutelage.methods.patches import Grid
from tutelage.similarity.fused import SMALLEST, Slope, from_products
from tutelage.similarity.gram import full_precision, promote

ON_CPU, ELSEWHERE = 2**18, 2**24  # elements of a block of maps: 1 MiB of float32 in a core's cache; few launches


class BlockedAlignment(Function):
    """Uncentred intra and inter alignment of p ≤ q patches per channel or image, and which teachers are alive."""

    @staticmethod
    def forward(
        ctx: Any, student: Tensor, teacher: Tensor, grid: Grid, want: tuple[bool, bool]
    ) -> tuple[Tensor | None, Tensor | None, Tensor]:
        """Return (M,) each; what is not wanted is None."""
        dtype = torch.promote_types(promote(student[:0]).dtype, promote(teacher[:0]).dtype)
        block = _Block(student, grid, dtype, want[1])
        shape = block.matrices, grid.patches, grid.patches
        gram_x, gram_y, *cross = (student.new_empty(shape, dtype=dtype) for _ in range(3 if want[1] else 2))
        with full_precision(student.device):
            maps, products = block.pieces(teacher, student), block.rows_of(gram_x, gram_y, *cross)
            for told, own, to_x, to_y, *to_cross in zip(*maps, *products, strict=True):
                x = block.cut(told, 0)
                torch.bmm(x, x.mT, out=to_x)
                y = block.cut(own, -1)
                torch.bmm(y, y.mT, out=to_y)
                for product in to_cross:
                    torch.bmm(x, y.mT, out=product)
            alive = ~(gram_x.diagonal(0, -2, -1).sum(-1) <= SMALLEST)
            need = False, ctx.needs_input_grad[0]
            values, _, slope = from_products((gram_x, gram_y), cross[0] if cross else None, want[0], need)
        ctx.mark_non_differentiable(alive)
        ctx.grid, ctx.dtype = grid, dtype
        ctx.save_for_backward(student, teacher if want[1] else None, *slope)
        intra, inter = (None if value is None else value[..., 0, 0] for value in values)
        return intra, inter, alive

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_intra: Tensor | None, d_inter: Tensor | None, _: Tensor) -> tuple[Tensor | None, ...]:
        """Cut the maps again and pull the gradients of both values back to the student's."""
        student, teacher, *slopes = ctx.saved_tensors
        grid: Grid = ctx.grid
        block = _Block(student, grid, ctx.dtype, teacher is not None)
        grad = torch.empty_like(student)
        wide = (None if d is None else d[:, None, None] for d in (d_intra, d_inter))
        with full_precision(student.device):
            maps, small = block.pieces(teacher, student), block.rows_of(grid.view(grad), *wide, *slopes)
            for told, own, target, in_intra, in_inter, *slope in zip(*maps, *small, strict=True):
                x = None if told is None else block.cut(told, 0)
                y = block.cut(own, -1)
                target.copy_(Slope(*slope).pull(y, x, (in_intra, in_inter)).view(target.shape))
        return grad, None, None, None


class _Block:
    """A piece of memory that the patches of a few channels or images are cut into, again and again."""

    def __init__(self, maps: Tensor, grid: Grid, dtype: torch.dtype, two: bool) -> None:
        self.axis = 1 if grid.over == "channel" else 0
        self.matrices, self.patches = maps.shape[self.axis], grid.patches
        most = ON_CPU if maps.device.type == "cpu" else ELSEWHERE
        self.step = min(self.matrices, max(1, most * self.matrices // maps.numel()))
        self.maps = torch.empty_like(maps.narrow(self.axis, 0, self.step), dtype=dtype)
        self.view = grid.view(self.maps)
        self.sides = [self.maps.new_empty(self.view.shape) for _ in range(2 if two else 1)]

    def pieces(self, *maps: Tensor | None) -> list[Sequence[Tensor | None]]:
        """Return maps in pieces of some channels or images."""
        return [self._split(each, self.axis) for each in maps]

    def rows_of(self, *stacks: Tensor | None) -> list[Sequence[Tensor | None]]:
        """Return stacks of matrices, one for every channel or image, in the same pieces."""
        return [self._split(each, 0) for each in stacks]

    def _split(self, stack: Tensor | None, axis: int) -> Sequence[Tensor | None]:
        return [None] * -(-self.matrices // self.step) if stack is None else torch.split(stack, self.step, axis)

    def cut(self, piece: Tensor, side: int) -> Tensor:
        """Return the matrices (m, p, q) of one piece; valid until the next cut into the same side."""
        maps, view, patches, size = self.maps, self.view, self.sides[side], piece.shape[self.axis]
        if size < self.step:
            maps, view, patches = maps.narrow(self.axis, 0, size), view[:size], patches[:size]
        maps.copy_(piece)  # in order, so that it streams; the cut then reads from the cache
        return patches.copy_(view).view(size, self.patches, -1)
