"""Which sample belongs to which part, and which training samples have labels.

A fixed seed cuts validation and test from the training part; the run's seed draws label subsets.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor

from tutelage.errors import UserError

SPLIT_SEED = 20240803


def stratified(labels: Tensor, shares: Sequence[float], seed: int = SPLIT_SEED) -> list[Tensor]:
    """Cut samples into disjoint parts with the class balance of the whole.

    >>> [len(part) for part in stratified(torch.tensor([0, 1] * 10), [0.5, 0.3, 0.2])]
    [10, 6, 4]

    Args:
        labels: (N,) integer.
        shares: of each part; they sum to 1.
        seed: of the order inside each class; the same seed gives the same parts.

    Returns:
        Sorted positions of each part.
    """
    generator = torch.Generator().manual_seed(seed)
    parts: list[list[Tensor]] = [[] for _ in shares]
    # Fractions, so that shares such as 0.1 sum to 1 exactly and no sample is left out.
    exact_shares = [Fraction(share).limit_denominator(10_000) for share in shares]
    for members in _shuffled_by_class(labels, generator):
        start = 0
        cumulated = Fraction(0)
        for part, share in zip(parts, exact_shares, strict=True):
            cumulated += share
            end = round(cumulated * len(members))
            part.append(members[start:end])
            start = end
    return [torch.cat(part).sort().values for part in parts]


def label_subset(labels: Tensor, count: int, seed: int) -> Tensor:
    """Draw samples, as nearly equal in number per class as possible.

    A larger subset of the same seed contains the smaller one.

    Args:
        labels: (N,) integer.
        count: how many samples to draw.
        seed: of the draw.

    Returns:
        Sorted positions (count,).

    Raises:
        UserError: If that is fewer than one per class, or more than there are.
    """
    num_classes = len(np.unique(labels.numpy()))
    if not num_classes <= count <= len(labels):
        raise UserError(
            f"num_labels is {count}, but the training part has {len(labels)} images of "
            f"{num_classes} classes; choose {num_classes} to {len(labels)}, or leave it out for "
            "all"
        )
    generator = torch.Generator().manual_seed(seed)
    by_class = _shuffled_by_class(labels, generator)
    # Deal out one sample of every class in turn: all firsts, then all seconds, ...
    rounds = torch.cat([torch.arange(len(members)) for members in by_class])
    in_turn = torch.cat(by_class)[rounds.argsort(stable=True)]
    return in_turn[:count].sort().values


def _shuffled_by_class(labels: Tensor, generator: torch.Generator) -> list[Tensor]:
    """Return the positions of every class in random order, the classes sorted.

    One stable sort finds the members of all classes, so that a thousand classes take no longer than
    ten.
    """
    order = labels.argsort(stable=True)
    _, counts = np.unique(labels.numpy(), return_counts=True)
    ends = counts.cumsum()[:-1].tolist()
    return [
        members[torch.randperm(len(members), generator=generator)]
        for members in order.tensor_split(ends)
    ]
