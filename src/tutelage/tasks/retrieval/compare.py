"""Is one system better than another on the same queries? A paired test over them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tutelage.errors import UserError


@dataclass(frozen=True)
class PairedTest:
    """The mean difference over queries.

    Attributes:
        difference: mean of first - second.
        standard_error: of that mean.
        p_value: of no difference, two-sided, from random signs of the differences.
    """

    difference: float
    standard_error: float
    p_value: float


def paired_test(first: Tensor, second: Tensor, draws: int = 10_000, seed: int = 0) -> PairedTest:
    """Compare the metric of two systems, query by query, by a randomization test.

    If the systems were alike, each difference could as well have the other sign. The p-value is the
    share of random signs whose mean is at least as far from 0. Source: M. D. Smucker, J. Allan,
    B. Carterette, CIKM 2007.

    >>> same = torch.tensor([0.5, 0.2, 0.9])
    >>> paired_test(same, same).p_value
    1.0

    Args:
        first: (Q,), a metric by query.
        second: (Q,), of the same queries.
        draws: number of random signs.
        seed: of the signs.

    Raises:
        UserError: If the shapes differ or there is no query.
    """
    if first.ndim != 1 or first.shape != second.shape or not len(first):
        raise UserError(
            f"a paired test needs one value a query of both systems, got {tuple(first.shape)} and "
            f"{tuple(second.shape)}"
        )
    differences = first.double() - second.double()
    mean = differences.mean()
    generator = torch.Generator().manual_seed(seed)
    extreme = 0
    for start in range(0, draws, 1000):
        count = min(1000, draws - start)
        signs = torch.randint(0, 2, (count, len(differences)), generator=generator) * 2 - 1
        drawn = (signs * differences).mean(1)
        extreme += int((drawn.abs() >= mean.abs() * (1 - 1e-12)).sum())
    error = float(differences.std() / len(differences) ** 0.5) if len(differences) > 1 else 0.0
    return PairedTest(float(mean), error, (extreme + 1) / (draws + 1))
