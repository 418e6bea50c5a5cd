"""Deviations of rows from their means, for Pearson's correlation."""

from __future__ import annotations

import torch
from torch import Tensor

from tutelage.similarity._gram import FAR, centered
from tutelage.similarity._products import may_read


def deviations(rows: Tensor) -> Tensor:
    """Return rows (R, P) minus their means; 0, without gradient, where only rounding is left.

    >>> import torch
    >>> deviations(torch.tensor([[1.0, 3.0], [0.1, 0.1]])).tolist()
    [[-1.0, 1.0], [0.0, 0.0]]
    """
    # As a stack of R columns (P, 1), each row is centered and measured by itself.
    data, unit = centered(rows.unsqueeze(-1))
    return data.masked_fill(unit <= 0, 0.0).squeeze(-1)


def deviations_and_norms(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return `deviations(rows)` and their lengths (R, 1), with fewer operators and no gradient.

    >>> [part.tolist() for part in deviations_and_norms(torch.tensor([[1.0, 3.0, 5.0]]))]
    [[[-2.0, 0.0, 2.0]], [[2.8284270763397217]]]

    Args:
        rows: (R, P), float32 or float64.
    """
    mean = rows.mean(1, keepdim=True)
    data = rows - mean
    sizes = _lengths(data)
    if may_read(data):
        limits = torch.finfo(data.dtype)
        # Far from both: the rounding of the mean, and what cannot be squared.
        far = FAR * 4 * limits.eps * data.shape[1] ** 0.5
        if float(sizes.sub(mean.abs(), alpha=far).amin()) > 16 * limits.tiny**0.5:
            return data, sizes
    data = deviations(rows)
    return data, _lengths(data)


def _lengths(rows: Tensor) -> Tensor:
    """Return the lengths (R, 1) of rows."""
    if rows.stride(1) == 1:
        lengths: Tensor = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
        return lengths
    # Which vector_norm would read value by value.
    return rows.square().sum(1, keepdim=True).sqrt()
