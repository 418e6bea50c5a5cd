"""Groups of items of similar popularity, each with an equal share of all interactions.

The rule `greedy` is that of the official code of UnKD (chengang95/UnKD@57abd1a3): items in the
order of their counts fill a group until the next one would exceed total/K. It gives from 1 to about
2K − 1 groups: an item that has more than total/K interactions is a group by itself. The rule
`balanced` cuts the cumulated counts at g/K and gives at most K groups.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from tutelage.errors import UserError

PartitionRule = Literal["greedy", "balanced"]


@dataclass(frozen=True)
class Partition:
    """Groups of items, the most popular first.

    Attributes:
        group_of_item: (I,) int64; −1 for an item that nobody has.
        order: the items that somebody has, group after group, by descending count.
        sizes: (K,) int64, items in each group.
        mean_counts: (K,) float64, interactions per item of each group.
    """

    group_of_item: Tensor
    order: Tensor
    sizes: Tensor
    mean_counts: Tensor

    def __len__(self) -> int:
        return len(self.sizes)


def popularity_groups(
    items: Tensor,
    num_items: int,
    num_groups: int,
    *,
    partition: PartitionRule = "greedy",
) -> Partition:
    """Return groups of items of similar popularity.

    >>> popularity_groups(torch.tensor([0, 0, 0, 1, 1, 2]), 4, 2).group_of_item.tolist()
    [0, 1, 1, -1]

    Args:
        items: (N,) int64, the item of every training interaction, user after user. Of items with
            equal counts the one that occurs first comes first.
        num_items: I.
        num_groups: K.
        partition: "greedy" or "balanced".

    Raises:
        UserError: If there are fewer items with interactions than groups, or K < 1.
    """
    counts = torch.bincount(items, minlength=num_items)
    seen = int((counts > 0).sum())
    is_count = isinstance(num_groups, int) and not isinstance(num_groups, bool)
    if not is_count or not 1 <= num_groups <= seen:
        raise UserError(
            f"num_groups must be from 1 to the number of items with an interaction, {seen}, got "
            f"{num_groups!r}"
        )
    order = _by_popularity(items, counts)
    sorted_counts = counts[order]
    if partition == "greedy":
        groups = _greedy(sorted_counts.tolist(), num_groups)
    else:
        groups = _balanced(sorted_counts, num_groups)
    group_of_item = torch.full((num_items,), -1)
    group_of_item[order] = groups
    sizes = torch.bincount(groups)
    totals = torch.zeros(len(sizes), dtype=torch.float64)
    totals.index_add_(0, groups, sorted_counts.double())
    return Partition(group_of_item, order, sizes, totals / sizes)


def _by_popularity(items: Tensor, counts: Tensor) -> Tensor:
    """Return the items that occur, by descending count, then by first appearance."""
    first = torch.full((len(counts),), len(items))
    first.scatter_reduce_(0, items, torch.arange(len(items)), "amin")
    by_appearance = torch.argsort(first)[: int((counts > 0).sum())]
    return by_appearance[torch.argsort(counts[by_appearance], descending=True, stable=True)]


def _greedy(counts: list[int], num_groups: int) -> Tensor:
    """Return the group of each item, given their counts in descending order."""
    limit = sum(counts) / num_groups
    sizes: list[int] = []
    size = 0
    total = 0
    for count in counts:
        if total + count <= limit:
            size += 1
            total += count
        elif size == 0:
            sizes.append(1)  # more than a whole share by itself
        else:
            sizes.append(size)
            size = 1
            total = count
    if size and (total > limit / 2 or not sizes):
        sizes.append(size)
    elif size:
        sizes[-1] += size
    return torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))


def _balanced(counts: Tensor, num_groups: int) -> Tensor:
    """Return the group of each item by where its interactions begin in the cumulated counts."""
    before = counts.cumsum(0) - counts
    groups = (before * num_groups) // counts.sum()
    numbers: Tensor = torch.unique(groups, return_inverse=True)[1]
    return numbers
