"""UnKD: the teacher's rankings, transferred only inside groups of items of similar popularity.

Source: G. Chen, J. Chen, F. Feng, S. Zhou, X. He, "Unbiased Knowledge Distillation for
Recommendation", WSDM 2023, arXiv 2211.14729. Official code: chengang95/UnKD@57abd1a3.

    L = L_BPR + weight · L_KD
    L_KD = mean over batch rows of the mean over the user's pairs of −log σ(s_ua − s_ub)     (code)
    L_G  = 1/|U| Σ_u Σ_pairs −log σ(s_ua − s_ub)                                            (paper)

s are the student's scores, (a, b) pairs of the user's candidates in one group, a ranked above b by
the teacher. A batch row is an interaction, so that active users weigh more in the code's form; with
one row per user L_G = L_KD · (number of pairs). Symbols → arguments: K `num_groups`, sample_num
`num_pairs`, μ `mu`, the code's `lamda` γ `gamma`, kd_weight λ `weight`.

Differs from the official code:
- Its sampler swaps through a view, so that a pair drawn in the wrong order becomes (a, a): half of
  all pairs add log 2 and no gradient. Here every pair has two items; weight 0.5 has the strength
  of its weight 1.
- −log σ(Δ) is softplus(−Δ). The code's −log(σ(Δ) + 1e-10) is bounded by 23 and loses its gradient
  for badly wrong pairs: half of it at Δ = −23.
- A user without two candidates in a group has no pair there, and the mean is over the pairs that
  there are; the code fails or never ends.
- 8 μ candidates of a group instead of 1000: beyond them lie 3e-4 of the draws.
- Pairs are drawn for all users at once, and raw scores are ranked, not a sigmoid in float32, which
  makes ties above 17.

Cost: the teacher scores every user once. A step gathers 2 · num_pairs item vectors per batch row;
the table of candidates takes 4 · 8μ bytes per user and group twice (items and scores).
"""

from __future__ import annotations

import warnings
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from tutelage.core.method import Method, MethodInfo
from tutelage.core.output import Step
from tutelage.core.precision import full_precision, promote
from tutelage.core.search_space import Around
from tutelage.core.teacher import Teacher
from tutelage.errors import UserError
from tutelage.methods._checks import check_choice, check_weights
from tutelage.methods._ranked_items import check_mask, check_mu
from tutelage.methods._ranking_cache import RankingFile, ranking_file
from tutelage.methods._rankings import (
    Rankings,
    interactions_of,
    rank_candidates,
    teacher_scores,
)
from tutelage.methods.unkd.pairs import PairSampler, allocate_pairs, default_candidates
from tutelage.models.recommendation import item_scores, popularity_groups
from tutelage.models.recommendation.popularity import PartitionRule

Reduction = Literal["code", "paper"]

MAX_GAMMA = 100  # powers of ratios from 0.1 to 1 stay in range


def unkd_loss(
    student: Tensor,
    mask: Tensor | None = None,
    row_weights: Tensor | None = None,
    *,
    reduction: Reduction = "code",
) -> Tensor:
    """Return −log σ(s_ua − s_ub), averaged as in the official code, or summed as in the paper.

    >>> round(unkd_loss(torch.zeros(4, 30)).item(), 6)
    0.693147

    Args:
        student: (N, P) differences s_ua − s_ub of the student's scores, a row for every batch row.
        mask: (N, P) bool, which of them are pairs; None takes all.
        row_weights: (N,) factors of the rows; None is 1.
        reduction: "code" takes the mean over the pairs of a row, 0 for a row without any; "paper"
            their sum. Both take the mean over rows.

    Returns:
        A scalar, float32 for half-precision scores and inside autocast.

    Raises:
        UserError: If the differences are no floating-point tensor (N, P), or empty.
    """
    if not isinstance(student, Tensor) or not student.is_floating_point() or student.ndim != 2:
        raise UserError("UnKD needs floating-point differences of scores (N, P), a row per item")
    if not student.numel():
        raise UserError(f"UnKD has no pairs in a batch {tuple(student.shape)}; give some")
    check_mask("UnKD", mask, student)
    if row_weights is not None and row_weights.shape != student.shape[:1]:
        raise UserError(
            f"UnKD takes a weight for each of {len(student)} rows, got {tuple(row_weights.shape)}"
        )
    with full_precision(student.device):
        losses = F.softplus(-promote(student))
        if mask is not None:
            losses = losses.where(mask, 0.0)
        rows = losses.sum(1)
        if reduction == "code":
            rows = rows / (student.shape[1] if mask is None else mask.sum(1).clamp(min=1))
        if row_weights is not None:
            rows = rows * row_weights.to(rows.dtype)
        return rows.mean()


class UnKD(Method):
    """Unbiased distillation of a recommender; the term is `unkd`.

    >>> UnKD(num_groups=2, weight=0.5).extra_repr()[:39]
    'num_groups=2, num_pairs=30, mu=20.0, ga'

    Args:
        num_groups: groups of items of similar popularity.
        num_pairs: of a user in every epoch, over all groups.
        mu: how far down the ranking pairs are drawn: 63 % of them in the first μ ranks; from
            0.25 to 1e9.
        gamma: gives rarer groups more pairs if it is positive.
        weight: of the term.
        partition: "greedy" as the official code, or "balanced", see `popularity_groups`.
        reduction: "code", or "paper": a sum over pairs, and every user counts once an epoch.
        num_candidates: ranked items of a user and a group; None is 8 μ.
        cache: a .safetensors file to keep the teacher's rankings in; None keeps none.
        task_weight: factor of the supervised loss.

    Raises:
        UserError: If an option is out of range.
    """

    info = MethodInfo(
        paper="G. Chen, J. Chen, F. Feng, S. Zhou, X. He, Unbiased Knowledge Distillation for "
        "Recommendation, WSDM 2023, arXiv 2211.14729",
        tasks="recommendation",
        needs="a teacher that scores all items of a user, or a file of its rankings",
    )
    search_space = (Around("weight", 10.0), Around("mu", 4.0))

    def __init__(
        self,
        *,
        num_groups: int = 4,
        num_pairs: int = 30,
        mu: float = 20.0,
        gamma: float = 0.0,
        weight: float = 1.0,
        partition: PartitionRule = "greedy",
        reduction: Reduction = "code",
        num_candidates: int | None = None,
        cache: str | None = None,
        task_weight: float = 1.0,
    ) -> None:
        super().__init__()
        check_mu("mu of UnKD", mu)
        check_weights("UnKD", weight, task_weight)
        check_choice("partition", partition, PartitionRule)
        check_choice("reduction", reduction, Reduction)
        for name, value, least in (
            ("num_groups", num_groups, 1),
            ("num_pairs", num_pairs, 1),
            ("num_candidates", 2 if num_candidates is None else num_candidates, 2),
        ):
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise UserError(f"{name} of UnKD is a whole number from {least} on, got {value!r}")
        is_number = isinstance(gamma, (int, float)) and not isinstance(gamma, bool)
        if not is_number or not abs(gamma) <= MAX_GAMMA:
            raise UserError(
                f"gamma of UnKD is a number from -{MAX_GAMMA} to {MAX_GAMMA}, got {gamma!r}"
            )
        self.num_groups = num_groups
        self.num_pairs = num_pairs
        self.mu = mu
        self.gamma = gamma
        self.weight = weight
        self.partition: PartitionRule = partition
        self.reduction: Reduction = reduction
        self.num_candidates = num_candidates
        self.cache = cache
        self.task_weight = task_weight
        self._file: RankingFile | None = None

    def build_data(self, train: Any, teacher: Teacher) -> Any:
        """Return the training samples with the pairs of their users in every batch.

        Raises:
            UserError: If the data knows no interactions, the teacher gives no scores, or no user
                has two candidates in a group.
        """
        samples = interactions_of("UnKD", train)
        interactions = samples.interactions
        groups = popularity_groups(
            interactions.items,
            interactions.num_items,
            self.num_groups,
            partition=self.partition,
        )
        if len(groups) != self.num_groups:
            warnings.warn(
                f"the {self.partition} partition gives {len(groups)} groups of items instead of "
                f"{self.num_groups}, since some items are so popular",
                stacklevel=2,
            )
        count = self.num_candidates or default_candidates(self.mu)

        def make() -> Rankings:
            blocks = teacher_scores("UnKD", teacher, interactions)
            return rank_candidates(blocks, interactions, groups.group_of_item, count)

        settings = f"unkd num_groups={self.num_groups} partition={self.partition} count={count}"
        if self.cache is None:
            rankings = make()
        else:
            self._file = ranking_file(self.cache, interactions, settings, teacher, make)
            if self._file.is_written and teacher.models():
                self._file.check_scores(teacher_scores("UnKD", teacher, interactions))
            rankings = self._file.rankings
        sampler = PairSampler(
            rankings,
            allocate_pairs(groups.mean_counts, self.num_pairs, gamma=self.gamma),
            mu=self.mu,
            seed=samples.seed,
            row_weights=_user_weights(interactions.user_counts)
            if self.reduction == "paper"
            else None,
        )
        if not sampler.num_pairs:
            raise UserError(
                "no user has two candidates in a group of items, so that there are no pairs; take "
                "fewer groups, or check the data"
            )
        return samples.with_fields(sampler)

    def on_step_start(self, progress: float) -> None:
        """Write the cache at the first step of a run.

        Trials before it have progress 1, and perhaps a teacher that is not trained yet.
        """
        if self._file is not None and progress < 1:
            if not self._file.is_written:
                self._file.write()
            self._file = None

    def forward(self, step: Step) -> dict[str, Tensor]:
        """Return the term of the pairs in the batch.

        Raises:
            UserError: If the batch has none.
        """
        if "unkd_positives" not in step.batch:
            raise UserError(
                "the batch has no pairs of items; train on the samples that "
                "UnKD.build_data(train, teacher) returns"
            )
        differences = item_scores(
            step.student.output,
            step.batch["unkd_positives"],
            minus=step.batch["unkd_negatives"],
        )
        loss = unkd_loss(
            differences,
            step.batch["unkd_mask"],
            step.batch.get("unkd_weights"),
            reduction=self.reduction,
        )
        return {"unkd": self.weight * loss}


def _user_weights(counts: Tensor) -> Tensor:
    """Return what makes the mean over interactions one over users: N / (U · n_u)."""
    weights = counts.sum() / (len(counts) * counts.clamp(min=1).double())
    return weights.to(torch.float32)
