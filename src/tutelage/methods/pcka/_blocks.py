"""Alignment of many matrices of patches, which are cut from the maps in small blocks.

Cutting a map into patches moves every element: the patches of all channels need as much memory as
the map itself, and moving them costs more than the matrix products. So a block of matrices that
fits a core's cache is cut, multiplied and overwritten by the next one. Only the small (p, p) Gram
matrices are stored; the backward pass cuts the maps a second time rather than keep the patches. The
memory needed beside the maps is that of the student's gradient.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from tutelage.core.precision import full_precision, promote
from tutelage.methods.pcka.patches import PatchGrid
from tutelage.similarity._fused import SMALLEST, Slope, from_products
from tutelage.similarity._once import once

# Elements of a map in one block. On a CPU 1 MiB of float32, which stays in a core's cache; on an
# accelerator large, since there the number of launches counts.
CPU_BLOCK = 2**18
ACCELERATOR_BLOCK = 2**24


class BlockedAlignment(Function):
    """Uncentered intra and inter alignment of p ≤ q patches, for every channel or every image.

    With teacher patches X and student patches Y, (p, q) each, and the products K = X Xᵀ, L = Y Yᵀ
    and M = X Yᵀ: intra = <K, L> / (‖K‖ ‖L‖), inter = <M, M> / (‖K‖ ‖L‖).
    """

    @staticmethod
    def forward(
        ctx: Any,
        student: Tensor,
        teacher: Tensor,
        grid: PatchGrid,
        want: tuple[bool, bool],
    ) -> tuple[Tensor | None, Tensor | None, Tensor]:
        """Return intra (M,), inter (M,), and for which matrices the teacher is not zero.

        Args:
            ctx: the context of the function.
            student: maps (B, C, H, W) of the grid's `map_size`.
            teacher: maps of the same shape; no gradient is computed for them.
            grid: the patches; over channels or images.
            want: whether intra and inter are wanted; the one that is not is None.
        """
        want_intra, want_inter = want
        # Half precision is promoted block by block, so that no map is copied as a whole.
        dtype = torch.promote_types(promote(student[:0]).dtype, promote(teacher[:0]).dtype)
        blocks = _Blocks(student, grid, dtype, want_inter)
        shape = (blocks.num_matrices, grid.num_patches, grid.num_patches)
        teacher_gram = student.new_empty(shape, dtype=dtype)
        student_gram = student.new_empty(shape, dtype=dtype)
        cross = student.new_empty(shape, dtype=dtype) if want_inter else None
        with full_precision(student.device):
            for part in blocks.parts():
                x = blocks.cut_teacher(teacher, part)
                torch.bmm(x, x.mT, out=teacher_gram[part])
                y = blocks.cut_student(student, part)  # without inter, it overwrites x
                torch.bmm(y, y.mT, out=student_gram[part])
                if cross is not None:
                    torch.bmm(x, y.mT, out=cross[part])
            # A trace is the squared norm of the patches. NaN compares as False: it counts as alive,
            # so that it reaches the loss.
            alive = ~(teacher_gram.diagonal(0, -2, -1).sum(-1) <= SMALLEST)
            # `from_products` divides every product by its detached size (a Gram by its trace)
            # before it forms norms: fourth powers of the maps then neither overflow nor underflow,
            # and alignment does not depend on scale. It also returns the slope, the derivative with
            # respect to K, L and M, as (p, p) matrices, so that `backward` needs no product of its
            # own but the one with the patches.
            need = (False, ctx.needs_input_grad[0])  # for the teacher's side and the student's
            grams = (teacher_gram, student_gram)
            values, _, slope = from_products(grams, cross, want_intra, need)
        ctx.mark_non_differentiable(alive)
        ctx.grid = grid
        ctx.dtype = dtype
        ctx.save_for_backward(student, teacher if want_inter else None, *slope)
        intra, inter = values
        return (
            None if intra is None else intra[..., 0, 0],
            None if inter is None else inter[..., 0, 0],
            alive,
        )

    @staticmethod
    def backward(
        ctx: Any, d_intra: Tensor | None, d_inter: Tensor | None, _: Tensor
    ) -> tuple[Tensor | None, ...]:
        """Cut the maps again and pull the gradients of both values back to the student's map."""
        student, teacher, *slopes = ctx.saved_tensors
        grid: PatchGrid = ctx.grid
        blocks = _Blocks(student, grid, ctx.dtype, teacher is not None)
        grad = torch.empty_like(student)
        grad_patches = grid.view(grad)  # writing to it undoes the cut
        with torch.no_grad(), full_precision(student.device):
            for part in blocks.parts():
                x = None if teacher is None else blocks.cut_teacher(teacher, part)
                y = blocks.cut_student(student, part)
                slope = Slope(*(None if stack is None else stack[part] for stack in slopes))
                d_values = (_as_matrices(d_intra, part), _as_matrices(d_inter, part))
                target = grad_patches[part]
                target.copy_(slope.pull(y, x, d_values).view(target.shape))
        return once(grad, student), None, None, None


def _as_matrices(numbers: Tensor | None, part: slice) -> Tensor | None:
    """Return some of (M,) numbers as (m, 1, 1), to multiply matrices with."""
    return None if numbers is None else numbers[part, None, None]


class _Blocks:
    """Memory that the patches of a few channels or images at a time are cut into.

    Args:
        maps: maps like those to cut, (B, C, H, W).
        grid: the patches.
        dtype: of the patches, float32 or float64.
        both: whether the patches of teacher and student are needed at the same time.
    """

    def __init__(self, maps: Tensor, grid: PatchGrid, dtype: torch.dtype, both: bool) -> None:
        self.axis = 1 if grid.over == "channel" else 0
        self.num_patches = grid.num_patches
        self.num_matrices = maps.shape[self.axis]
        limit = CPU_BLOCK if maps.device.type == "cpu" else ACCELERATOR_BLOCK
        fitting = limit * self.num_matrices // maps.numel()
        self.size = min(self.num_matrices, max(1, fitting))
        # A block of a map in its own layout, the same memory seen as patches, and the patches.
        self.maps = torch.empty_like(maps.narrow(self.axis, 0, self.size), dtype=dtype)
        self.view = grid.view(self.maps)
        self.student_patches = self.maps.new_empty(self.view.shape)
        self.teacher_patches = self.student_patches
        if both:
            self.teacher_patches = self.maps.new_empty(self.view.shape)

    def parts(self) -> list[slice]:
        """Return the blocks, each as a range of channels or images."""
        starts = range(0, self.num_matrices, self.size)
        return [slice(start, min(start + self.size, self.num_matrices)) for start in starts]

    def cut_student(self, maps: Tensor, part: slice) -> Tensor:
        """Return the matrices (m, p, q) of one block; valid until the next cut."""
        return self._cut(maps, part, self.student_patches)

    def cut_teacher(self, maps: Tensor, part: slice) -> Tensor:
        """Return the matrices (m, p, q) of one block; valid until the next cut."""
        return self._cut(maps, part, self.teacher_patches)

    def _cut(self, maps: Tensor, part: slice, patches: Tensor) -> Tensor:
        count = part.stop - part.start
        # Two copies are faster than one: the first reads the map in order, as memory is read best;
        # the second, which permutes, reads the cache. The last block may be smaller.
        self.maps.narrow(self.axis, 0, count).copy_(maps.narrow(self.axis, part.start, count))
        patches = patches[:count].copy_(self.view[:count])
        return patches.view(count, self.num_patches, -1)
