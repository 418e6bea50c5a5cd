"""RD, ranking distillation: the teacher's best items are positives of the student.

Source: J. Tang, K. Wang, "Ranking Distillation: Learning Compact Ranking Models With High
Performance for Recommender System", KDD 2018, arXiv 1809.07428. The form is that of the RD baseline
in chengang95/UnKD@57abd1a3, with the position weights alone.

    L = L_BPR + weight · mean over batch rows and j of −w_j log σ(s_j),   w_j ∝ exp(−j/λ), Σ w = 1

s_j is the student's score of the item that the teacher ranks at j = 1 … k among those that the user
does not have. Symbols → arguments: k `num_items`, λ `decay`.

Differs from the official code: the loss is added to BPR's, like that of every other method here,
where the code takes (1 − w) · BPR + w · RD; log σ is never log of a rounded 0; and there are no
weights by the student's own ranks, which the code adds after 100 epochs.

With normalized weights the sum over j is 1, and the mean divides it by k: weight 1 is a weak term.

Cost: the teacher ranks once; k item vectors per batch row.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from tutelage.core.method import Method, MethodInfo
from tutelage.core.output import Step
from tutelage.core.precision import full_precision, promote
from tutelage.core.search_space import Around
from tutelage.core.teacher import Teacher
from tutelage.errors import UserError
from tutelage.methods._checks import check_positive, check_weights
from tutelage.methods._ranked_items import (
    RankedItems,
    batch_items,
    check_count,
    check_mask,
    check_scores,
)
from tutelage.methods._rankings import (
    interactions_of,
    one_group,
    rank_candidates,
    teacher_scores,
)
from tutelage.models.recommendation import item_scores


def rd_loss(student: Tensor, mask: Tensor | None = None, *, decay: float = 1.0) -> Tensor:
    """Return the weighted −log σ of the student's scores, a mean over rows and ranks.

    >>> round(rd_loss(torch.zeros(4, 30)).item(), 6)  # log 2 / 30
    0.023105

    Args:
        student: (N, k) the student's scores of the teacher's items, best first.
        mask: (N, k) bool, which of them are items; None takes all.
        decay: λ; how slowly the weights fall with the rank.

    Returns:
        A scalar, float32 for half-precision scores and inside autocast.

    Raises:
        UserError: If the scores are no floating-point tensor (N, k).
    """
    check_scores("RD", student)
    check_mask("RD", mask, student)
    check_positive("decay of RD", decay)
    with full_precision(student.device):
        scores = promote(student)
        ranks = torch.arange(1, scores.shape[1] + 1, dtype=scores.dtype, device=scores.device)
        losses = F.softplus(-scores) * torch.softmax(-ranks / decay, 0)
        return (losses if mask is None else losses.where(mask, 0.0)).mean()


class RD(Method):
    """Ranking distillation of a recommender; the term is `rd`.

    >>> RD(num_items=10).extra_repr()
    'num_items=10, decay=1.0, weight=1.0, task_weight=1.0'

    Args:
        num_items: k, the teacher's best items of a user.
        decay: λ of the weights.
        weight: of the term.
        task_weight: factor of the supervised loss.

    Raises:
        UserError: If an option is out of range.
    """

    info = MethodInfo(
        paper="J. Tang, K. Wang, Ranking Distillation: Learning Compact Ranking Models With High "
        "Performance for Recommender System, KDD 2018, arXiv 1809.07428",
        tasks="recommendation",
        needs="a teacher that scores all items of a user",
    )
    search_space = (Around("weight", 10.0),)

    def __init__(
        self,
        *,
        num_items: int = 30,
        decay: float = 1.0,
        weight: float = 1.0,
        task_weight: float = 1.0,
    ) -> None:
        super().__init__()
        check_count("num_items of RD", num_items)
        check_positive("decay of RD", decay)
        check_weights("RD", weight, task_weight)
        self.num_items = num_items
        self.decay = decay
        self.weight = weight
        self.task_weight = task_weight

    def build_data(self, train: Any, teacher: Teacher) -> Any:
        """Return the training samples with the teacher's best items of their users.

        Raises:
            UserError: If the data knows no interactions, or the teacher gives no scores.
        """
        samples = interactions_of("RD", train)
        rankings = rank_candidates(
            teacher_scores("RD", teacher, samples.interactions),
            samples.interactions,
            one_group(samples.interactions),
            self.num_items,
        )
        if not bool(rankings.lengths.any()):
            raise UserError("every user has all items already, so that RD has nothing to teach")
        return samples.with_fields(RankedItems("rd", rankings.items[:, 0]))

    def forward(self, step: Step) -> dict[str, Tensor]:
        """Return the term of the teacher's best items.

        Raises:
            UserError: If the batch has none.
        """
        items, mask = batch_items("rd", step.batch, "RD")
        scores = item_scores(step.student.output, items)
        return {"rd": self.weight * rd_loss(scores, mask, decay=self.decay)}
