"""Deviations of rows from their means, for Pearson's correlation."""

from __future__ import annotations

from torch import Tensor

from tutelage.similarity._gram import centered


def deviations(rows: Tensor) -> Tensor:
    """Return rows (R, P) minus their means; 0, without gradient, where only rounding is left.

    >>> import torch
    >>> deviations(torch.tensor([[1.0, 3.0], [0.1, 0.1]])).tolist()
    [[-1.0, 1.0], [0.0, 0.0]]
    """
    # As a stack of R columns (P, 1), each row is centered and measured by itself.
    data, unit = centered(rows.unsqueeze(-1))
    return data.masked_fill(unit <= 0, 0.0).squeeze(-1)
