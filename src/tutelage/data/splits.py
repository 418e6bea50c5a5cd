"""Which image belongs to which part: a fixed seed cuts validation from train, the run's seed draws label subsets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor

from tutelage.data.image_set import ImageSet
from tutelage.errors import UserError

SPLIT_SEED = 20240803


@dataclass(frozen=True)
class Splits:
    """Three disjoint parts: learn from `train`, choose on `validation`, report `test` once."""

    train: ImageSet
    validation: ImageSet
    test: ImageSet


def stratified(labels: Tensor, shares: Sequence[float], seed: int = SPLIT_SEED) -> list[Tensor]:
    """Cut items into disjoint parts with the class balance of the whole.

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
    exact = [Fraction(share).limit_denominator(10_000) for share in shares]
    for label in sorted(set(labels.tolist())):
        members = (labels == label).nonzero().flatten()
        members = members[torch.randperm(len(members), generator=generator)]
        done, passed = 0, Fraction(0)
        for part, share in zip(parts, exact, strict=True):
            passed += share
            end = round(passed * len(members))
            part.append(members[done:end])
            done = end
    return [torch.cat(part).sort().values for part in parts]


def label_subset(labels: Tensor, count: int, seed: int) -> Tensor:
    """Return sorted positions of `count` items, as equal in number per class as can be, drawn by the seed.

    A larger subset of the same seed contains the smaller one.

    Raises:
        UserError: fewer than one label per class, or more than there are.
    """
    classes = sorted(set(labels.tolist()))
    if not len(classes) <= count <= len(labels):
        raise UserError(
            f"labels is {count}, but the training part has {len(labels)} images of {len(classes)} classes; "
            f"choose {len(classes)} to {len(labels)}, or leave it out for all"
        )
    generator = torch.Generator().manual_seed(seed)
    shuffled = []
    for label in classes:
        members = (labels == label).nonzero().flatten()
        shuffled.append(members[torch.randperm(len(members), generator=generator)].tolist())
    rounds = max(len(members) for members in shuffled)
    in_turn = [members[i] for i in range(rounds) for members in shuffled if i < len(members)]
    return torch.tensor(sorted(in_turn[:count]))
