"""Alignment of many matrices of patches, cut from the maps block by block instead of all at once.

The cut moves every element, so a whole map's patches need as much memory as the map, and moving them costs more than
the products. Blocks that fit a core's cache are cut, multiplied and forgotten; only the small Gram matrices are kept,
and the backward pass cuts again. That needs no memory of a map's size beside the gradient itself.
"""

from __future__ import annotations

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
        mine, theirs = _Block(student, grid, dtype), _Block(teacher, grid, dtype)
        shape = mine.matrices, grid.patches, grid.patches
        products = [student.new_empty(shape, dtype=dtype) for _ in range(3 if want[1] else 2)]
        with full_precision(student.device):
            for part in mine.parts():
                x, y = theirs.cut(teacher, part), mine.cut(student, part)
                for product, (a, b) in zip(products, ((x, x), (y, y), (x, y)), strict=False):
                    torch.bmm(a, b.mT, out=product[part])
            alive = ~(products[0].diagonal(0, -2, -1).sum(-1) <= SMALLEST)
            grams, cross = (products[0], products[1]), products[2] if want[1] else None
            values, _, slope = from_products(grams, cross, want[0], (False, ctx.needs_input_grad[0]))
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
        mine = _Block(student, grid, ctx.dtype)
        theirs = None if teacher is None else _Block(teacher, grid, ctx.dtype)
        grad = torch.empty_like(student)
        target = grid.view(grad)
        with full_precision(student.device):
            for part in mine.parts():
                y = mine.cut(student, part)
                x = None if theirs is None else theirs.cut(teacher, part)
                slope = Slope(*(None if each is None else each[part] for each in slopes))
                d = (_part(d_intra, part), _part(d_inter, part))
                target[part].copy_(slope.pull(y, x, d).view(target[part].shape))
        return grad, None, None, None


def _part(d: Tensor | None, part: slice) -> Tensor | None:
    return None if d is None else d[part, None, None]


class _Block:
    """A piece of memory that the patches of a few channels or images are cut into, again and again."""

    def __init__(self, maps: Tensor, grid: Grid, dtype: torch.dtype) -> None:
        self.axis = 1 if grid.over == "channel" else 0
        self.matrices = maps.shape[self.axis]
        most = ON_CPU if maps.device.type == "cpu" else ELSEWHERE
        self.step = min(self.matrices, max(1, most * self.matrices // maps.numel()))
        shape = [self.step if axis == self.axis else length for axis, length in enumerate(maps.shape)]
        self.maps = maps.new_empty(shape, dtype=dtype)
        self.view, self.rows = grid.view(self.maps), grid.patches
        self.patches = torch.empty_like(self.view, memory_format=torch.contiguous_format)

    def parts(self) -> list[slice]:
        """Return the ranges of channels or images."""
        return [slice(i, min(i + self.step, self.matrices)) for i in range(0, self.matrices, self.step)]

    def cut(self, maps: Tensor, part: slice) -> Tensor:
        """Return the matrices (m, p, q) of one range; valid until the next cut."""
        size = part.stop - part.start
        self.maps.narrow(self.axis, 0, size).copy_(maps.narrow(self.axis, part.start, size))  # in order: it streams
        patches = self.patches[:size].copy_(self.view[:size])
        return patches.view(size, self.rows, -1)
