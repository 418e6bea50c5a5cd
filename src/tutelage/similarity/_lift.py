"""Rows and columns that are too short for the row-scaled alignment, made long enough for it.

Row scaling divides by the length of an item, and of a column. The square of a length of 1e-20
beside others of 1 is no float32, and its inverse, squared, is none either. Such a row counts by its
direction only: as a part of columns it is below rounding, before and after it is multiplied by some
factor. So what is shorter than ε² times the longest one is brought to that length (that of its
largest entry), and the gradient of the original row is that of the longer one times the factor.
(Not so for the single entries where a row and a column of less than 1e-20 meet: their gradient
comes out too large.)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor

LARGEST_INVERSE = 1e10  # of a length relative to the norm of the matrix, that needs no lift


def needs_lift(inverse_lengths: Tensor, unit: Tensor | None = None) -> bool:
    """Return whether a row or column is too short, zero or NaN.

    Args:
        inverse_lengths: 1 / length of every row or column.
        unit: 1 / the squared norm of each matrix (...,), to which lengths are relative; None if
            they are already.
    """
    limit = LARGEST_INVERSE
    if unit is not None:
        if unit.numel() == 1:
            limit *= float(unit) ** 0.5
        else:
            inverse_lengths = inverse_lengths / unit.sqrt()
    if not inverse_lengths.numel():
        return False
    # Negated, so that NaN counts as true.
    return not float(inverse_lengths.max()) < limit


def lift(x: Tensor, want: Sequence[bool]) -> tuple[Tensor, Tensor]:
    """Return x with rows and columns that are long enough, and the factors (..., n, p).

    Args:
        x: (..., n, p).
        want: whether (rows, columns) are looked at.
    """
    factors = torch.ones_like(x[..., :1])
    if want[0]:
        factors = _factors(x, -1)
    if want[1]:
        factors = factors * _factors(x * factors, -2)
    return x * factors, factors


def _factors(x: Tensor, dim: int) -> Tensor:
    """Return by what rows (-1) or columns (-2) have to be multiplied; 1 for zeros."""
    # The largest entry stands for the length, whose square may leave the dtype's range.
    largest = cast(Tensor, torch.linalg.vector_norm(x, torch.inf, dim=dim, keepdim=True))
    info = torch.finfo(x.dtype)
    shortest = largest.amax((-2, -1), keepdim=True) * info.eps**2
    factors = (shortest / largest.clamp_min(info.tiny)).clamp_min(1.0)
    # Where a row and a column of zeros meet, the product of their factors would be infinite.
    return factors.where(largest > 0, 1.0)
