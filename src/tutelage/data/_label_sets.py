"""Items with any number of labels: which part and which subset they belong to.

Labels are rows of 0 and 1, one column a class, as `torchmetrics` and `scikit-learn` have them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tutelage.data.splits import SPLIT_SEED
from tutelage.errors import UserError

ITEM = 10_000


def stratified_sets(
    labels: Tensor, shares: Sequence[float], seed: int = SPLIT_SEED
) -> list[Tensor]:
    """Cut items into disjoint parts in which every class has about its share of the items.

    Iterative stratification: the rarest class is dealt out first, each of its items to the part
    that wants it most. K. Sechidis, G. Tsoumakas and I. Vlahavas, "On the Stratification of
    Multi-Label Data", ECML PKDD 2011.

    >>> rows = torch.tensor([[1, 0], [1, 1], [0, 1], [0, 0]] * 5)
    >>> train, test = stratified_sets(rows, [0.8, 0.2])
    >>> len(train), rows[test].sum(0).tolist()
    (16, [2, 2])

    Args:
        labels: (N, C) of 0 and 1.
        shares: of each part; they sum to 1.
        seed: of the order; the same seed gives the same parts.

    Returns:
        Sorted positions of each part.
    """
    generator = torch.Generator().manual_seed(seed)
    rows = labels.bool()
    # Whole numbers, in units of 1 / ITEM, so that parts of equal need are equal exactly.
    units = [round(share * ITEM) for share in shares]
    wanted = [unit * len(rows) for unit in units]
    counts = rows.sum(0).tolist()
    wanted_by_class = [[unit * count for count in counts] for unit in units]
    parts: list[list[int]] = [[] for _ in shares]
    order = torch.randperm(len(rows), generator=generator)
    classes_of = [row.nonzero().flatten().tolist() for row in rows]
    is_left = [True] * len(rows)
    remaining = list(counts)

    def deal(position: int, label: int | None) -> None:
        def need(part: int) -> tuple[int, int, int]:
            of_class = 0 if label is None else wanted_by_class[part][label]
            return of_class, wanted[part], -part

        part = max(range(len(shares)), key=need)
        parts[part].append(position)
        is_left[position] = False
        wanted[part] -= ITEM
        for other in classes_of[position]:
            wanted_by_class[part][other] -= ITEM
            remaining[other] -= 1

    members = [order[rows[order, label]].tolist() for label in range(rows.shape[1])]
    while any(remaining):
        label = min((n, c) for c, n in enumerate(remaining) if n)[1]
        for position in members[label]:
            if is_left[position]:
                deal(position, label)
    for position in order.tolist():
        if is_left[position]:
            deal(position, None)
    return [torch.tensor(sorted(part), dtype=torch.int64) for part in parts]


def random_subset(num_items: int, count: int, seed: int) -> Tensor:
    """Draw items; a larger subset of the same seed contains the smaller one.

    >>> len(random_subset(10, 4, seed=0))
    4

    Raises:
        UserError: If that is fewer than one, or more than there are.
    """
    if not 1 <= count <= num_items:
        raise UserError(
            f"num_labels is {count}, but the training part has {num_items} items; choose 1 to "
            f"{num_items}, or leave it out for all"
        )
    generator = torch.Generator().manual_seed(seed)
    return torch.randperm(num_items, generator=generator)[:count].sort().values
