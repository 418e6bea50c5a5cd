"""Which patches of an image the student relates as the teacher does: PCKA's agreement, patch by patch.

Channel c of an image's maps is a matrix of p patches × q positions: X for the teacher, Y for the student. With the
U-centred Gram matrices K = U(X Xᵀ) and L = U(Y Yᵀ), patch i agrees as far as its relations to all others do:

    a_i = mean_c <K_i, L_i> / (‖K_i‖ ‖L_i‖)     in [-1, 1]; about 0 for maps that have nothing to do with each other

The debiased CKA of channel c is the mean of these values, weighted by ‖K_i‖ ‖L_i‖. The loss itself is neither centred
nor debiased and near 1 for any two maps, so it would show nothing. A channel in which the teacher relates patch i to no
other (dead, constant) leaves the mean of a_i; one in which the student alone does not counts as 0.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tutelage.errors import UserError
from tutelage.methods.patches import Grid, Patches
from tutelage.similarity.gram import centred, full_precision, product, promote, u_centred

LEAST, FEWEST = 4, 16  # patches that U-centring needs, and that a picture wants
BLOCK = 2**24  # elements of the Gram matrices that are held at once
NOISE = 1e-5  # relations that are so small beside the others are rounding


@torch.no_grad()
def patch_map(student: Tensor, teacher: Tensor, patch: int | str = "auto") -> Tensor:
    """Return the agreement of every patch, (rows, columns); NaN where the teacher has no relations.

    >>> maps = torch.arange(64 * 64.0).view(1, 1, 64, 64).sin().cumsum(2)
    >>> patch_map(3 * maps + 1, maps).shape, patch_map(3 * maps + 1, maps).mean().round(decimals=4)
    (torch.Size([4, 4]), tensor(1.))

    Args:
        student, teacher: maps (1, C, H, W) of one image; H, W may differ if they round up to one grid.
        patch: largest height and width of a patch; halved until there are 16 of them. "auto" starts from 16.

    Raises:
        UserError: the maps do not fit, see `Patches.grid`.
    """
    grid = _grid(student, teacher, patch)
    if grid.patches < LEAST:
        return torch.full((grid.rows, grid.columns), torch.nan)
    total = torch.zeros(grid.patches, device=student.device)
    count = torch.zeros_like(total)
    with full_precision(student.device):
        mine, theirs = (grid.cut(promote(grid.resized(maps))) for maps in (student, teacher))
        step = max(1, BLOCK // grid.patches**2)
        for y, x in zip(torch.split(mine, step), torch.split(theirs, step), strict=True):
            values, alive = _agreement(_relations(x), _relations(y))
            total += values.sum(0)
            count += alive.sum(0)
    return (total / count).view(grid.rows, grid.columns).clamp(-1.0, 1.0).cpu()  # 0 / 0 is NaN


def _grid(student: Tensor, teacher: Tensor, patch: int | str) -> Grid:
    grid = Patches(patch).grid(student, teacher)
    while grid.patches < FEWEST and grid.patch > 1:
        try:
            grid = Patches(grid.patch // 2).grid(student, teacher)
        except UserError:  # maps of two sizes that only have the larger patches in common
            break
    return grid


def _relations(x: Tensor) -> Tensor:
    """Return U-centred Gram matrices (M, p, p) of matrices (M, p, q), up to a scale."""
    side = centred(x)
    return u_centred(product(side, side))


def _agreement(k: Tensor, m: Tensor) -> tuple[Tensor, Tensor]:
    """Return the cosine of each row of two stacks of matrices (M, p, p), 0 without relations, and where K has any."""
    k, m = _unit_rows(k), _unit_rows(m)
    return (k * m).sum(-1), k.any(-1)


def _unit_rows(k: Tensor) -> Tensor:
    """Return rows of length 1, and zeros for rows of nothing but rounding."""
    lengths: Tensor = torch.linalg.vector_norm(k, dim=-1, keepdim=True)
    return k / lengths.masked_fill(lengths <= NOISE * lengths.amax(-2, keepdim=True), torch.inf)
