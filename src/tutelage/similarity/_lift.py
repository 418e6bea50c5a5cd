"""Rows and columns that are too short for the row-scaled alignment, made long enough for it.

Row scaling divides by the length of an item, and of a column. The square of a length of 1e-20
beside others of 1 is no float32, and its inverse, squared, is none either. Such a row counts by its
direction only: as a part of columns it is below rounding, before and after it is multiplied by some
factor. So what is shorter than ε² times the longest one is brought to that length, and the gradient
of the original row is that of the longer one times the factor.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor

from tutelage.similarity._gram import inverse

SHORTEST = 1e-20  # squared length, relative to all of the matrix, that needs no lift


def needs_lift(squared_lengths: Sequence[Tensor]) -> bool:
    """Return whether a squared length is too small, zero or NaN; always False on accelerators.

    Reading a value would make an accelerator wait in every step.

    Args:
        squared_lengths: of rows or columns, relative to the squared norm of their matrix.
    """
    if squared_lengths[0].device.type != "cpu":
        return False
    # Negated, so that NaN counts as true.
    return not all(
        float(lengths.amin()) > SHORTEST for lengths in squared_lengths if lengths.numel()
    )


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
    # The largest entry is taken out first, so that the squares stay in the dtype's range.
    largest = x.abs().amax(dim, keepdim=True)
    scaled = x * inverse(largest, floor=torch.finfo(x.dtype).tiny)
    lengths = cast(Tensor, torch.linalg.vector_norm(scaled, dim=dim, keepdim=True)) * largest
    shortest = lengths.amax((-2, -1), keepdim=True) * torch.finfo(x.dtype).eps ** 2
    return (shortest * inverse(lengths, floor=torch.finfo(x.dtype).tiny)).clamp_min(1.0)
