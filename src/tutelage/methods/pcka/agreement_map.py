"""Agreement of student and teacher patch by patch: a map over one image, for a report.

Channel c of an image's maps is a matrix of p patches × q positions: X for the teacher, Y for the
student. With the U-centered Gram matrices K = U(X Xᵀ) and L = U(Y Yᵀ), patch i agrees as far as its
relations to all other patches do:

    a_i = mean_c <K_i, L_i> / (‖K_i‖ ‖L_i‖)

in [-1, 1], about 0 for unrelated maps. The debiased CKA of channel c is the mean of these values,
weighted by ‖K_i‖ ‖L_i‖. PCKA's own alignment would show nothing: it is neither centered nor
debiased, and near 1 for any two maps.

A channel in which the teacher relates patch i to no other patch (zero or constant) leaves the mean
of a_i; one in which only the student has no relations counts as 0.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tutelage.core.precision import full_precision, promote
from tutelage.errors import UserError
from tutelage.methods.pcka.patches import PatchGrid, PatchSize, patch_grid
from tutelage.similarity._gram import centered, product, u_centered

MIN_RELATED = 4  # fewer patches cannot be U-centered
MIN_SHOWN = 16  # fewer patches make no picture
BLOCK = 2**24  # elements of the Gram matrices that are held at once
NOISE = 1e-5  # relations that are this small beside those of other patches are rounding


@torch.no_grad()
def agreement_map(student: Tensor, teacher: Tensor, patch_size: PatchSize = "auto") -> Tensor:
    """Return the agreement of every patch of one image.

    >>> maps = torch.arange(64 * 64.0).view(1, 1, 64, 64).sin().cumsum(2)
    >>> agreement = agreement_map(3 * maps + 1, maps)
    >>> agreement.shape, agreement.mean().round(decimals=4)
    (torch.Size([4, 4]), tensor(1.))

    Args:
        student: maps (1, C, H, W).
        teacher: maps (1, C, H', W'); the sizes may differ if they round up to one grid of patches.
        patch_size: largest height and width of a patch; halved until there are 16 patches.
            `"auto"` starts from 16.

    Returns:
        (rows, columns), on the CPU; NaN where the teacher has no relations.

    Raises:
        UserError: If the maps do not fit each other, as `patch_grid`.
    """
    grid = _fine_grid(student, teacher, patch_size)
    if grid.num_patches < MIN_RELATED:
        return torch.full((grid.rows, grid.columns), torch.nan)
    total = torch.zeros(grid.num_patches, device=student.device)
    count = torch.zeros_like(total)
    with full_precision(student.device):
        student_patches = grid.cut(promote(grid.resize(student)))
        teacher_patches = grid.cut(promote(grid.resize(teacher)))
        # Some channels at a time: their Gram matrices are large where there are many patches.
        step = max(1, BLOCK // grid.num_patches**2)
        for start in range(0, len(student_patches), step):
            student_relations = _relations(student_patches[start : start + step])
            teacher_relations = _relations(teacher_patches[start : start + step])
            # Rows of length 1, so that the cosines are sums of products.
            student_rows = _unit_rows(student_relations)
            teacher_rows = _unit_rows(teacher_relations)
            total += (teacher_rows * student_rows).sum(-1).sum(0)
            count += teacher_rows.any(-1).sum(0)
    agreement = total / count  # 0 / 0, without any relation of the teacher, is NaN
    return agreement.view(grid.rows, grid.columns).clamp(-1.0, 1.0).cpu()


def _fine_grid(student: Tensor, teacher: Tensor, patch_size: PatchSize) -> PatchGrid:
    grid = patch_grid(student, teacher, patch_size=patch_size)
    while grid.num_patches < MIN_SHOWN and grid.patch_size > 1:
        try:
            grid = patch_grid(student, teacher, patch_size=grid.patch_size // 2)
        except UserError:  # maps of two sizes that have only the larger patches in common
            break
    return grid


def _relations(patches: Tensor) -> Tensor:
    """Return the U-centered Gram matrices (M, p, p) of matrices (M, p, q), up to a scale."""
    side = centered(patches)
    return u_centered(product(side, side))


def _unit_rows(relations: Tensor) -> Tensor:
    """Return rows of length 1; a row of nothing but rounding becomes zeros."""
    lengths: Tensor = torch.linalg.vector_norm(relations, dim=-1, keepdim=True)
    noise = NOISE * lengths.amax(-2, keepdim=True)
    return relations / lengths.masked_fill(lengths <= noise, torch.inf)
