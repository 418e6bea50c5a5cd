"""Alignment between the patches of two maps, matrix by matrix, and which matrices count."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

import torch
from torch import Tensor

from tutelage.core.precision import promote
from tutelage.errors import UserError
from tutelage.methods.pcka._blocks import BlockedAlignment
from tutelage.methods.pcka.patches import Over, PatchGrid, PatchSize, patch_grid
from tutelage.similarity._fused import SMALLEST
from tutelage.similarity.alignment import Estimator, Scale, alignment, alignment_pair

TERMS = ("intra", "inter")


class PatchAlignment(NamedTuple):
    """Alignments of M matrices of patches.

    Attributes:
        value: (M,) alignments.
        alive: (M,) False where the teacher's matrix has no relations that could be learned.
    """

    value: Tensor
    alive: Tensor

    def loss(self) -> Tensor:
        """Return the mean of 1 - A over the matrices that are alive, 0 if none is.

        NaN passes through.
        """
        return ((1.0 - self.value) * self.alive).sum() / self.alive.sum().clamp_min(1)


def patch_alignment(
    student: Tensor,
    teacher: Tensor,
    *,
    terms: Collection[str],
    patch_size: PatchSize = 16,
    over: Over = "channel",
    scale: Scale | None = None,
    center: bool = False,
    estimator: Estimator = "biased",
    strict: bool = True,
) -> dict[str, PatchAlignment]:
    """Return the alignment between patches, `intra`, and between columns of the matrices, `inter`.

    >>> maps = torch.arange(2 * 3 * 32 * 32.0).view(2, 3, 32, 32).sin()
    >>> patch_alignment(maps, -maps, terms=["intra"])["intra"].value.round(decimals=4)
    tensor([1., 1., 1.])

    Args:
        student: maps (B, C, H, W).
        teacher: maps (B, C, H', W').
        terms: which of the two.
        patch_size: as of `patch_grid`.
        over: as of `patch_grid`.
        scale: as of `alignment`.
        center: as of `alignment`.
        estimator: as of `alignment`.
        strict: whether it is an error if there are too few patches or columns to relate; else all
            matrices count as having nothing to teach.

    Raises:
        UserError: As `patch_grid`, and as said of `strict`.
    """
    grid = patch_grid(student, teacher, patch_size=patch_size, over=over)
    _, num_patches, num_columns = grid.matrix_shape(student)
    num_items = {"intra": num_patches, "inter": num_columns}
    minimum = 4 if estimator == "debiased" else 2
    related = [name for name in TERMS if name in terms and num_items[name] >= minimum]
    if strict and len(related) < len(terms):
        raise UserError(
            f"a map of {student.shape[2]}×{student.shape[3]} gives {num_patches} patches of "
            f"{grid.patch_size}×{grid.patch_size} and {num_columns} columns, fewer than the "
            f"{minimum} that are needed to relate them; set patch_size='auto' (or a smaller "
            "patch_size), or leave this level out"
        )
    alignments: dict[str, PatchAlignment] = {}
    # The blocks are written for the default kernel and p ≤ q, need one channel or image per matrix,
    # and compute no gradient for the teacher.
    default_kernel = scale is None and not center and estimator == "biased"
    in_blocks = default_kernel and over != "position" and num_patches <= num_columns
    if related and in_blocks and not teacher.requires_grad:
        alignments = _align_in_blocks(grid.resize(student), grid.resize(teacher), grid, related)
    elif related:
        alignments = _align_at_once(
            student_patches=grid.cut(promote(grid.resize(student))),
            teacher_patches=grid.cut(promote(grid.resize(teacher))),
            terms=related,
            scale=scale,
            center=center,
            estimator=estimator,
        )
    for name in terms:
        if name not in alignments:
            alignments[name] = _nothing_to_teach(student, grid)
    return {name: alignments[name] for name in TERMS if name in terms}


def _nothing_to_teach(student: Tensor, grid: PatchGrid) -> PatchAlignment:
    """Return the limit of a single patch: A = 1 with gradient 0.

    The empty sum connects the value to the student, so that all parameters get a gradient, as
    data-parallel training wants.
    """
    num_matrices, _, _ = grid.matrix_shape(student)
    value = promote(student[:0]).sum() + torch.ones(num_matrices, device=student.device)
    return PatchAlignment(value, torch.zeros_like(value, dtype=torch.bool))


def _align_in_blocks(
    student: Tensor, teacher: Tensor, grid: PatchGrid, terms: Collection[str]
) -> dict[str, PatchAlignment]:
    """Align maps of the grid's size with the default kernel, with little memory."""
    want = ("intra" in terms, "inter" in terms)
    intra, inter, alive = BlockedAlignment.apply(student, teacher, grid, want)
    alignments = {}
    if intra is not None:
        alignments["intra"] = PatchAlignment(intra, alive)
    if inter is not None:
        alignments["inter"] = PatchAlignment(inter, alive)
    return alignments


def _align_at_once(
    *,
    student_patches: Tensor,
    teacher_patches: Tensor,
    terms: Collection[str],
    scale: Scale | None,
    center: bool,
    estimator: Estimator,
) -> dict[str, PatchAlignment]:
    """Align matrices (M, p, q) with any kernel."""
    x = teacher_patches
    y = student_patches

    def align(a: Tensor, b: Tensor) -> Tensor:
        return alignment(a, b, center=center, scale=scale, estimator=estimator)

    def alive(a: Tensor) -> Tensor:
        with torch.no_grad():
            if center or estimator == "debiased":
                # A centered kernel agrees with itself unless all items are alike. NaN counts as
                # alive, so that it reaches the loss.
                return ~(align(a, a) < 0.5)
            return ~(a.square().sum((-2, -1)) <= SMALLEST)

    if "intra" not in terms:
        return {"inter": PatchAlignment(align(x.mT, y.mT), alive(x.mT))}
    if "inter" not in terms:
        return {"intra": PatchAlignment(align(x, y), alive(x))}
    intra, inter = alignment_pair(x, y, center=center, scale=scale, estimator=estimator)
    return {
        "intra": PatchAlignment(intra, alive(x)),
        "inter": PatchAlignment(inter, alive(x.mT)),
    }
