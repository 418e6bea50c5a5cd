"""RRD, relaxed ranking distillation: the teacher's order of its good items, above all others.

Source: S. Kang, J. Hwang, W. Kweon, H. Yu, "DE-RRD: A Knowledge Distillation Framework for
Recommender System", CIKM 2020, arXiv 2012.04357. The form is that of the RRD baseline in
chengang95/UnKD@57abd1a3.

    L = L_BPR + weight · mean over batch rows of Σ_i [log(Σ_{j ≥ i} e^{S_j} + Σ_m e^{Z_m}) − S_i]

S_1 … S_K are σ of the student's scores of K interesting items in the teacher's order, Z those of M
uninteresting ones: the likelihood of the teacher's order in which the M items come last, in any
order. Interesting items are drawn from the first `num_candidates` ranks without replacement, with
P(rank r) ∝ exp(−(r + 1)/μ); uninteresting ones uniformly from all items that are neither the
user's nor among these ranks. Both are drawn anew in every epoch, a pure function of its seed.
Symbols → arguments: K `num_interesting`, M `num_uninteresting`, μ `mu`.

Differs from the official code: it draws once, before training; uninteresting items are drawn there
without replacement. The distillation of experts (DE) of the paper is not part of it.

Cost: the teacher ranks once; K + M item vectors per batch row.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from tutelage.core.method import Method, MethodInfo
from tutelage.core.output import Step
from tutelage.core.precision import full_precision, promote
from tutelage.core.search_space import Around
from tutelage.core.teacher import Teacher
from tutelage.errors import UserError
from tutelage.methods._checks import check_weights
from tutelage.methods._ranked_items import (
    batch_items,
    check_count,
    check_mask,
    check_mu,
    check_scores,
    item_fields,
)
from tutelage.methods._rankings import (
    Rankings,
    draw_items,
    generator_of,
    interactions_of,
    one_group,
    rank_candidates,
    teacher_scores,
)
from tutelage.models.recommendation import Interactions, item_scores

STREAM = 3  # of random numbers, apart from those of other methods


def rrd_loss(student: Tensor, uninteresting: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return the relaxed list-wise loss of the teacher's order, a mean over rows.

    >>> round(rrd_loss(torch.zeros(2, 2), torch.zeros(2, 1)).item(), 4)  # log 3 + log 2
    1.7918

    Args:
        student: (N, K) the student's scores S of interesting items, in the teacher's order; RRD
            gives σ of them.
        uninteresting: (N, M) its scores Z of other items, likewise.
        mask: (N, K) bool, which of the first are items; None takes all.

    Returns:
        A scalar, float32 for half-precision scores and inside autocast.

    Raises:
        UserError: If the scores are no floating-point tensors with the same number of rows.
    """
    check_scores("RRD", student, uninteresting)
    check_mask("RRD", mask, student)
    if len(student) != len(uninteresting):
        raise UserError(
            f"RRD needs scores of the same rows, got {len(student)} of interesting items and "
            f"{len(uninteresting)} of others"
        )
    with full_precision(student.device):
        liked = promote(student)
        others = promote(uninteresting).logsumexp(1, keepdim=True)
        left = liked if mask is None else liked.masked_fill(~mask, -torch.inf)
        from_here_on = left.flip(1).logcumsumexp(1).flip(1)
        losses = torch.logaddexp(from_here_on, others) - liked
        return (losses if mask is None else losses.where(mask, 0.0)).sum(1).mean()


class RRD(Method):
    """Relaxed ranking distillation of a recommender; the term is `rrd`.

    >>> RRD(weight=0.1).extra_repr()[:62]
    'num_interesting=20, num_uninteresting=20, num_candidates=100, '

    Args:
        num_interesting: K.
        num_uninteresting: M.
        num_candidates: ranks that interesting items are drawn from.
        mu: how far down they are drawn.
        weight: of the term.
        task_weight: factor of the supervised loss.

    Raises:
        UserError: If an option is out of range.
    """

    info = MethodInfo(
        paper="S. Kang, J. Hwang, W. Kweon, H. Yu, DE-RRD: A Knowledge Distillation Framework for "
        "Recommender System, CIKM 2020, arXiv 2012.04357",
        tasks="recommendation",
        needs="a teacher that scores all items of a user",
    )
    search_space = (Around("weight", 10.0),)

    def __init__(
        self,
        *,
        num_interesting: int = 20,
        num_uninteresting: int = 20,
        num_candidates: int = 100,
        mu: float = 30.0,
        weight: float = 1.0,
        task_weight: float = 1.0,
    ) -> None:
        super().__init__()
        check_count("num_interesting of RRD", num_interesting)
        check_count("num_uninteresting of RRD", num_uninteresting)
        check_count("num_candidates of RRD", num_candidates)
        check_mu("mu of RRD", mu)
        check_weights("RRD", weight, task_weight)
        self.num_interesting = num_interesting
        self.num_uninteresting = num_uninteresting
        self.num_candidates = num_candidates
        self.mu = mu
        self.weight = weight
        self.task_weight = task_weight

    def build_data(self, train: Any, teacher: Teacher) -> Any:
        """Return the training samples with interesting and uninteresting items of their users.

        Raises:
            UserError: If the data knows no interactions, the teacher gives no scores, or there are
                not more items than candidates.
        """
        samples = interactions_of("RRD", train)
        interactions = samples.interactions
        if interactions.num_items <= self.num_candidates:
            raise UserError(
                f"RRD ranks {self.num_candidates} candidates, but the data has "
                f"{interactions.num_items} items; lower num_candidates"
            )
        blocks = teacher_scores("RRD", teacher, interactions)
        rankings = rank_candidates(
            blocks, interactions, one_group(interactions), self.num_candidates
        )
        sampler = ItemSampler(
            rankings,
            interactions,
            num_interesting=self.num_interesting,
            num_uninteresting=self.num_uninteresting,
            mu=self.mu,
            seed=samples.seed,
        )
        return samples.with_fields(sampler)

    def forward(self, step: Step) -> dict[str, Tensor]:
        """Return the term of the drawn items.

        Raises:
            UserError: If the batch has none.
        """
        items, mask = batch_items("rrd", step.batch, "RRD")
        others = step.batch["rrd_others"]
        scores = item_scores(step.student.output, torch.cat([items, others], 1)).sigmoid()
        count = items.shape[1]
        return {"rrd": self.weight * rrd_loss(scores[:, :count], scores[:, count:], mask)}


class ItemSampler:
    """Interesting and uninteresting items of every user; a pure function of seed and epoch.

    Args:
        rankings: of every user, one group of all items.
        interactions: of the training data.
        num_interesting: K.
        num_uninteresting: M.
        mu: how far down the ranking interesting items are drawn.
        seed: of the run.
    """

    def __init__(
        self,
        rankings: Rankings,
        interactions: Interactions,
        *,
        num_interesting: int,
        num_uninteresting: int,
        mu: float,
        seed: int,
    ) -> None:
        self.ranked = rankings.items[:, 0]
        self.lengths = rankings.lengths[:, 0]
        self.num_interesting = num_interesting
        self.num_uninteresting = num_uninteresting
        self.log_weights = -torch.arange(self.ranked.shape[1]) / mu
        self.seed = seed
        rows, columns = (self.ranked >= 0).nonzero(as_tuple=True)
        # What a user has and what the teacher ranks first: neither is uninteresting.
        ranked = self.ranked[rows, columns].long()
        self.excluded = interactions.union(
            Interactions.of_pairs(rows, ranked, interactions.num_users, interactions.num_items)
        )
        if int(self.excluded.user_counts.max()) == interactions.num_items:
            raise UserError(
                "a user has all items but the first of the teacher's ranking, so that none is left "
                "as uninteresting to RRD; lower num_candidates"
            )
        self._epoch: int | None = None
        self._table = (self.ranked, self.ranked)

    def table(self, epoch: int) -> tuple[Tensor, Tensor]:
        """Return the interesting (U, K) and uninteresting (U, M) items of all users."""
        if self._epoch != epoch:
            generator = generator_of(self.seed, epoch, STREAM)
            interesting, _ = draw_items(
                self.ranked, self.log_weights, self.lengths, self.num_interesting, generator
            )
            self._table = (interesting, self._others(generator))
            self._epoch = epoch
        return self._table

    def __call__(self, epoch: int, users: Tensor) -> Mapping[str, Tensor]:
        """Return the fields of a batch."""
        interesting, others = self.table(epoch)
        return {**item_fields("rrd", interesting[users]), "rrd_others": others[users]}

    def _others(self, generator: torch.Generator) -> Tensor:
        num_users = len(self.ranked)
        users = torch.arange(num_users).repeat_interleave(self.num_uninteresting)
        return self.excluded.draw_others(users, generator).view(num_users, self.num_uninteresting)
