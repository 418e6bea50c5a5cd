"""Which pairs of ranked items the student learns a user's ranking from.

Of the L ranked candidates of a user and a group, two different ranks are drawn with

    P(rank r) = p_r ∝ exp(−(r + 1)/μ),  r = 0, 1, …, L − 1

both redrawn until they differ; the better one is the positive. So for a < b

    P(a, b) = 2 p_a p_b / (1 − Σ p²)

A rank is drawn exactly, without a table, by the inverse of the truncated exponential law:
r = floor(−μ · log1p(−v (1 − e^(−L/μ)))), v uniform in [0, 1). So all users, groups and pairs are
drawn at once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from tutelage.methods._rankings import Rankings, generator_of

STREAM = 1  # of random numbers, apart from those of other methods
MIN_RATIO = 0.1


def allocate_pairs(mean_counts: Tensor, num_pairs: int, *, gamma: float = 0.0) -> Tensor:
    """Return how many pairs every group gets: more for rarer items where gamma is positive.

    With a_g the mean count of group g and b_g = max a + min a − a_g, the ratio of a group is
    r_g = max(round(b_g / Σ b, 2), 0.1), its weight r_g^γ / Σ r^γ, and its pairs that weight times
    `num_pairs`, rounded. If they are too few, the first groups get one more; a surplus stays.

    >>> allocate_pairs(torch.tensor([90.0, 10.0]), 30).tolist()
    [15, 15]
    >>> allocate_pairs(torch.tensor([90.0, 10.0]), 30, gamma=1.0).tolist()
    [3, 27]

    Args:
        mean_counts: (K,), interactions per item of each group.
        num_pairs: of a user, over all groups.
        gamma: exponent of the ratios; 0 gives every group the same.

    Returns:
        (K,) int64.
    """
    weights = group_ratios(mean_counts) ** gamma
    weights /= weights.sum()
    # Python's rounding, to the even one of two neighbors, as in the official code.
    counts = torch.tensor([round(weight * num_pairs) for weight in weights.tolist()])
    missing = num_pairs - int(counts.sum())
    counts[: max(missing, 0)] += 1
    return counts


def group_ratios(mean_counts: Tensor) -> Tensor:
    """Return r_g of `allocate_pairs`, (K,) float64."""
    mean_counts = mean_counts.double()
    inverted = mean_counts.max() + mean_counts.min() - mean_counts
    shares = [round(share, 2) for share in (inverted / inverted.sum()).tolist()]
    return torch.tensor(shares, dtype=torch.float64).clamp(min=MIN_RATIO)


def pair_law(length: int, *, mu: float = 20.0) -> Tensor:
    """Return P(a, b), the law of the pairs over L candidates.

    >>> pair_law(2).round(decimals=9).tolist()
    [[0.0, 1.0], [0.0, 0.0]]

    Args:
        length: L, at least 2.
        mu: μ.

    Returns:
        (L, L) float64: row = rank of the positive, column = rank of the negative; sums to 1.
    """
    p = torch.softmax(-torch.arange(length, dtype=torch.float64) / mu, 0)
    return (2 * p[:, None] * p / (1 - p.square().sum())).triu(1)


def draw_pairs(lengths: Tensor, mu: float, generator: torch.Generator) -> Tensor:
    """Draw one pair of different ranks for every entry.

    Args:
        lengths: int64 of any shape, L of each entry; entries with L < 2 get ranks 0 and 0.
        mu: μ.
        generator: of the draws.

    Returns:
        (2, *lengths.shape) int64: the better rank, and the worse one.
    """
    shape = lengths.shape
    lengths = lengths.flatten()
    highest = (lengths - 1).clamp(min=0).int()
    # In single precision v has steps of 2⁻²⁴, so a rank's probability is off by at most 1.2e-7.
    scale = torch.expm1(-lengths.float() / mu)

    def draw(scale: Tensor, highest: Tensor) -> Tensor:
        uniform = torch.rand(2, len(scale), generator=generator)
        ranks = uniform.mul_(scale).log1p_().mul_(-mu).int()
        return torch.minimum(ranks, highest)  # v close to 1 may round up to L

    ranks = draw(scale, highest)
    tied = ((ranks[0] == ranks[1]) & (lengths > 1)).nonzero().flatten()
    while len(tied):
        drawn = draw(scale[tied], highest[tied])
        ranks[:, tied] = drawn
        tied = tied[drawn[0] == drawn[1]]
    better, worse = torch.minimum(ranks[0], ranks[1]), torch.maximum(ranks[0], ranks[1])
    return torch.stack([better, worse]).long().view(2, *shape)


class PairSampler:
    """The pairs of every user, drawn anew in every epoch; a pure function of seed and epoch.

    Args:
        rankings: the ranked candidates of every user and group.
        pairs_per_group: (K,) int64.
        mu: μ.
        seed: of the run.
        row_weights: (U,), what is said of every user in the field `unkd_weights`; None has none.
    """

    def __init__(
        self,
        rankings: Rankings,
        pairs_per_group: Tensor,
        *,
        mu: float,
        seed: int,
        row_weights: Tensor | None = None,
    ) -> None:
        self.rankings = rankings
        self.mu = mu
        self.seed = seed
        self.row_weights = row_weights
        # The group of every column of the table of pairs.
        self.groups = torch.repeat_interleave(torch.arange(len(pairs_per_group)), pairs_per_group)
        self.lengths = rankings.lengths[:, self.groups]
        self.mask = self.lengths > 1
        num_users, num_groups, width = rankings.items.shape
        rows = torch.arange(num_users)[:, None] * num_groups
        # Where the candidates of every column begin in the flat table of candidates.
        self._starts = (rows + self.groups) * width
        self._epoch: int | None = None
        self._table = (self.mask, self.mask)

    @property
    def num_pairs(self) -> int:
        """How many pairs of all users are drawn in an epoch."""
        return int(self.mask.sum())

    def table(self, epoch: int) -> tuple[Tensor, Tensor]:
        """Return the positives and the negatives of all users in an epoch, (U, P) int32 each."""
        if self._epoch != epoch:
            generator = generator_of(self.seed, epoch, STREAM)
            ranks = draw_pairs(self.lengths, self.mu, generator)
            places = (self._starts + ranks).view(-1)
            items = self.rankings.items.view(-1).index_select(0, places).view(ranks.shape)
            self._table = (items[0], items[1])
            self._epoch = epoch
        return self._table

    def __call__(self, epoch: int, users: Tensor) -> Mapping[str, Tensor]:
        """Return the fields of a batch: `unkd_positives`, `unkd_negatives`, `unkd_mask`, …"""
        positives, negatives = self.table(epoch)
        mask = self.mask[users]
        fields = {
            # What is masked is −1, which no table has.
            "unkd_positives": positives[users].long().where(mask, 0),
            "unkd_negatives": negatives[users].long().where(mask, 0),
            "unkd_mask": mask,
        }
        if self.row_weights is not None:
            fields["unkd_weights"] = self.row_weights[users]
        return fields


def default_candidates(mu: float) -> int:
    """Return 8 μ: beyond it lie 3e-4 of the draws.

    >>> default_candidates(20.0)
    160
    """
    return math.ceil(8 * mu)
