"""Alignment of the patches of two maps: matrix by matrix, and what of it counts."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

import torch
from torch import Tensor

from tutelage.errors import UserError
from tutelage.methods.patch_blocks import BlockedAlignment
from tutelage.methods.patches import Grid, Patches
from tutelage.similarity import Kernel
from tutelage.similarity.fused import SMALLEST
from tutelage.similarity.gram import promote

PLAIN = Kernel()
BOTH = ("intra", "inter")


class Aligned(NamedTuple):
    """Alignments (M,) of M matrices; `alive` is False where the teacher's has no relations to teach."""

    value: Tensor
    alive: Tensor

    def loss(self) -> Tensor:
        """Return the mean of 1 - A over what is alive; 0 if nothing is. NaN is never hidden."""
        return ((1.0 - self.value) * self.alive).sum() / self.alive.sum().clamp_min(1)


def patch_alignment(
    student: Tensor, teacher: Tensor, patches: Patches, kernel: Kernel, want: Collection[str], strict: bool = True
) -> dict[str, Aligned]:
    """Return the alignment between patches, "intra", and between the columns of the matrices, "inter".

    >>> maps = torch.arange(2 * 3 * 32 * 32.0).view(2, 3, 32, 32).sin()
    >>> patch_alignment(maps, -maps, Patches(), PLAIN, ["intra"])["intra"].value.round(decimals=4)
    tensor([1., 1., 1.])

    Args:
        student, teacher: maps (B, C, H, W).
        patches: how they are cut.
        kernel: options of `alignment`.
        want: which of the two.
        strict: whether too few patches (columns) to relate are an error, or else have nothing to teach.

    Raises:
        UserError: as `Patches.grid`, and as said of `strict`.
    """
    grid = patches.grid(student, teacher)
    found, least = {}, 4 if kernel.estimator == "debiased" else 2
    _, rows, columns = grid.shape(student)
    enough = [name for name, count in zip(BOTH, (rows, columns), strict=True) if name in want and count >= least]
    if strict and len(enough) < len(want):
        raise UserError(
            f"a map of {student.shape[2]}×{student.shape[3]} gives {rows} patches of {grid.patch}×{grid.patch} and "
            f"{columns} columns, fewer than the {least} that are needed to relate them; set patch='auto' (or a smaller "
            "patch), or leave this level out"
        )
    if enough:
        found = _aligned(grid.resized(student), grid.resized(teacher), grid, kernel, enough)
    for name in set(want) - set(enough):
        found[name] = _nothing(student, grid)
    return {name: found[name] for name in BOTH if name in want}


def _nothing(student: Tensor, grid: Grid) -> Aligned:
    """Return the limit of a single patch: A is 1, and its gradient is 0 but still reaches every parameter."""
    value = promote(student[:0]).sum() + torch.ones(grid.shape(student)[0], device=student.device)
    return Aligned(value, torch.zeros_like(value, dtype=torch.bool))


def _aligned(student: Tensor, teacher: Tensor, grid: Grid, kernel: Kernel, want: Collection[str]) -> dict[str, Aligned]:
    _, rows, columns = grid.shape(student)
    if kernel == PLAIN and grid.over != "position" and rows <= columns and not teacher.requires_grad:
        *values, alive = BlockedAlignment.apply(student, teacher, grid, tuple(name in want for name in BOTH))
        return {name: Aligned(value, alive) for name, value in zip(BOTH, values, strict=True) if value is not None}
    y, x = grid.cut(promote(student)), grid.cut(promote(teacher))
    if len(want) == 2:
        one, two = kernel.pair(x, y)
        return {"intra": Aligned(one, _alive(x, kernel)), "inter": Aligned(two, _alive(x.mT, kernel))}
    if "inter" in want:
        x, y = x.mT, y.mT
    return {name: Aligned(kernel.between(x, y), _alive(x, kernel)) for name in want}


@torch.no_grad()
def _alive(x: Tensor, kernel: Kernel) -> Tensor:
    """Return where x has relations: a centred kernel agrees with itself unless all its items are alike."""
    if kernel.center or kernel.estimator == "debiased":
        return ~(kernel.between(x, x) < 0.5)
    return ~(x.square().sum((-2, -1)) <= SMALLEST)
