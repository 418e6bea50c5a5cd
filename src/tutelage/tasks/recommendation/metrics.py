"""Metrics of rankings against held-out items, as sums over users, also by popularity of the items.

For a user u with held-out items R and top k items T (both sets):

    Recall@k = |T ∩ R| / |R|        Precision@k = |T ∩ R| / k
    NDCG@k   = Σ_{positions p of T that are in R} 1/log2(p + 1), over the same sum for min(k, |R|)
               positions, p = 1, 2, …

each a mean over users. For a group g of items:

    recall of g          |T ∩ R ∩ g| / |R ∩ g|, 0 for a user who has none of g in R (the form of the
                         official UnKD code: groups with fewer users are lower)
    recall of g, of users with items in g        the mean over those users alone
    share of g           places of all top-k lists that items of g fill, over places that items of
                         any group fill; items that nobody has in training are in no group
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tutelage.core import Batch, Metrics
from tutelage.core.distributed import is_distributed, sum_over_ranks
from tutelage.models.recommendation import Interactions


class RankingMetrics(Metrics):
    """Running sums of the metrics of top-k lists.

    Args:
        topks: the values of k.
        group_of_item: (I,) int64, −1 for items of no group.
        group_names: of the groups.
    """

    def __init__(
        self, topks: Sequence[int], group_of_item: Tensor, group_names: Sequence[str]
    ) -> None:
        self.topks = tuple(topks)
        self.group_of_item = group_of_item
        self.group_names = tuple(group_names)
        num_groups = len(self.group_names)
        # By k: recall, precision, NDCG; by k and group: recall, places; by group: users with items.
        self._overall = torch.zeros(len(self.topks), 3, dtype=torch.float64)
        self._recalls = torch.zeros(len(self.topks), num_groups, dtype=torch.float64)
        self._places = torch.zeros(len(self.topks), num_groups, dtype=torch.float64)
        self._users = torch.zeros(1 + num_groups, dtype=torch.float64)

    def update(self, output: Any, batch: Batch, teacher: Any = None) -> None:
        """Add the top-k lists of a batch.

        Args:
            output: (B, max k) int64, items by descending score; −1 where a user has fewer.
            batch: has `hits` (B, max k) bool, which of them are held out, and `held_out`, the held
                out items as (row, item) pairs of two int64 tensors.
            teacher: not read.
        """
        top, hits = output.cpu(), batch["hits"].cpu()
        rows, items = (values.cpu() for values in batch["held_out"])
        counts = torch.bincount(rows, minlength=len(top)).double()
        groups = self._group_masks(top)
        wanted = self._counts_by_group(rows, items, len(top))
        self._users[0] += len(top)
        self._users[1:] += (wanted > 0).sum(0)
        for number, k in enumerate(self.topks):
            found = hits[:, :k].double()
            recall = found.sum(1) / counts
            self._overall[number] += torch.stack(
                [recall.sum(), found.sum() / k, _ndcg(found, counts, k).sum()]
            )
            by_group = (hits[:, None, :k] & groups[:, :, :k]).sum(2)
            self._recalls[number] += (by_group / wanted.clamp(min=1)).sum(0)
            self._places[number] += groups[:, :, :k].sum((0, 2))

    def compute(self) -> dict[str, float]:
        """Return the metrics by name, such as `recall@10` and `recall@10/popular`.

        `recall_of_owners@10/popular` is that of the users who have such items.
        """
        overall, recalls, places, users = self._over_ranks()
        num_users = float(users[0])
        metrics: dict[str, float] = {}
        for number, k in enumerate(self.topks):
            values = (overall[number] / num_users).tolist()
            metrics |= {
                f"recall@{k}": values[0],
                f"precision@{k}": values[1],
                f"ndcg@{k}": values[2],
            }
        for number, k in enumerate(self.topks):
            filled = float(places[number].sum())
            for group, name in enumerate(self.group_names):
                total = float(recalls[number, group])
                owners = float(users[1 + group])
                place = float(places[number, group])
                metrics[f"recall@{k}/{name}"] = total / num_users
                metrics[f"recall_of_owners@{k}/{name}"] = total / owners if owners else 0.0
                metrics[f"share@{k}/{name}"] = place / filled if filled else 0.0
        return {**metrics, "num_samples": num_users}

    def _over_ranks(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        sums = (self._overall, self._recalls, self._places, self._users)
        if not is_distributed():
            return sums
        joined = sum_over_ranks(torch.cat([value.flatten() for value in sums]))
        parts = torch.split(joined, [value.numel() for value in sums])
        overall, recalls, places, users = (
            part.view_as(value) for part, value in zip(parts, sums, strict=True)
        )
        return overall, recalls, places, users

    def _group_masks(self, items: Tensor) -> Tensor:
        """Return which places are of which group, (B, K, k) bool."""
        groups = self.group_of_item[items.clamp(min=0)].where(items >= 0, -1)
        return groups[:, None, :] == torch.arange(len(self.group_names))[:, None]

    def _counts_by_group(self, rows: Tensor, items: Tensor, num_rows: int) -> Tensor:
        """Return how many held-out items of each group every user has, (B, K) float64."""
        counts = torch.zeros(num_rows, len(self.group_names), dtype=torch.float64)
        groups = self.group_of_item[items]
        is_grouped = groups >= 0
        ones = torch.ones(int(is_grouped.sum()), dtype=torch.float64)
        counts.index_put_((rows[is_grouped], groups[is_grouped]), ones, accumulate=True)
        return counts


def random_ndcg(interactions: Interactions, held_out: Interactions, k: int) -> float:
    """Return the NDCG@k that a random ranking is expected to have, a mean over users.

    Every place of a user's ranking is a held-out item with probability |R| / (I − items in
    training).

    Args:
        interactions: of the training part, whose items are not ranked.
        held_out: the items that are to be found; users without any do not count.
        k: length of the ranking.
    """
    counts = held_out.user_counts
    free = interactions.num_items - interactions.user_counts
    users = (counts > 0).nonzero().flatten()
    places = torch.arange(k) < free[users, None]
    chances = (counts[users] / free[users]).double()[:, None] * places
    return float(_ndcg(chances, counts[users], k).mean())


def _ndcg(found: Tensor, counts: Tensor, k: int) -> Tensor:
    """Return NDCG@k of every user, with binary grades."""
    gains = 1 / torch.arange(2, k + 2, dtype=torch.float64).log2()
    ideal = gains.cumsum(0)[counts.long().clamp(max=k) - 1]
    return (found * gains[: found.shape[1]]).sum(1) / ideal
