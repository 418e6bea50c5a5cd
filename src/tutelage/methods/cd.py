"""CD, collaborative distillation: the student's probabilities of some items are the teacher's.

Source: J. Lee, M. Choi, J. Lee, H. Shim, "Collaborative Distillation for Top-N Recommendation",
ICDM 2019, arXiv 1911.05276. The form is that of the CD baseline in chengang95/UnKD@57abd1a3.

    L = L_BPR + weight · mean over batch rows and items of BCE(σ(s), σ(s_T / T))

s and s_T are the scores of student and teacher for `num_items` items of the user, drawn once before
training: of the teacher's first `num_candidates` ranks, two are drawn uniformly and the better one
is taken, until there are enough different ones. So P(rank r) ∝ 2 (L − r) − 1, r = 0 … L − 1.
Symbols → arguments: T `temperature`.

Differs from the official code: BCE is computed from the scores, without the 1e-10 inside its
logarithms, which bounds it by 23 and cuts its gradient; the ranks are uniform, where the code's
weights fall by 5 % from the first rank to the last. The paper's guidance by the student's own
ranking is in neither.

Cost: the teacher ranks once; `num_items` item vectors per batch row.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from tutelage.core.method import Method, MethodInfo
from tutelage.core.output import Step
from tutelage.core.precision import full_precision
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
    Blocks,
    draw_items,
    generator_of,
    interactions_of,
    members_of,
    one_group,
    rank_block,
    teacher_scores,
)
from tutelage.models.recommendation import Interactions, item_scores
from tutelage.similarity._checks import as_same_dtype

STREAM = 2  # of random numbers, apart from those of other methods


def cd_loss(
    student: Tensor, teacher: Tensor, mask: Tensor | None = None, *, temperature: float = 2.0
) -> Tensor:
    """Return the binary cross-entropy of the student to the teacher, a mean over rows and items.

    >>> round(cd_loss(torch.zeros(4, 50), torch.zeros(4, 50)).item(), 6)
    0.693147

    Args:
        student: (N, k) the student's scores.
        teacher: (N, k) the teacher's scores of the same items.
        mask: (N, k) bool, which of them are items; None takes all.
        temperature: T, which softens the teacher's probabilities.

    Returns:
        A scalar, float32 for half-precision scores and inside autocast.

    Raises:
        UserError: If the scores are no floating-point tensors (N, k) of the same shape.
    """
    check_scores("CD", student, teacher)
    check_positive("temperature of CD", temperature)
    if student.shape != teacher.shape:
        raise UserError(
            f"CD needs the scores of the same items, got {tuple(student.shape)} from the student "
            f"and {tuple(teacher.shape)} from the teacher"
        )
    check_mask("CD", mask, student)
    with full_precision(student.device):
        scores, targets = as_same_dtype(student, teacher)
        targets = torch.sigmoid(targets / temperature)
        losses = F.binary_cross_entropy_with_logits(scores, targets, reduction="none")
        return (losses if mask is None else losses.where(mask, 0.0)).mean()


class CD(Method):
    """Collaborative distillation of a recommender; the term is `cd`.

    >>> CD(weight=0.5).extra_repr()
    'num_items=50, num_candidates=3000, temperature=2.0, weight=0.5, task_weight=1.0'

    Args:
        num_items: of every user, drawn once.
        num_candidates: ranks that they are drawn from.
        temperature: T of the teacher.
        weight: of the term.
        task_weight: factor of the supervised loss.

    Raises:
        UserError: If an option is out of range.
    """

    info = MethodInfo(
        paper="J. Lee, M. Choi, J. Lee, H. Shim, Collaborative Distillation for Top-N "
        "Recommendation, ICDM 2019, arXiv 1911.05276",
        tasks="recommendation",
        needs="a teacher that scores all items of a user",
    )
    search_space = (Around("weight", 10.0), Around("temperature", 4.0))

    def __init__(
        self,
        *,
        num_items: int = 50,
        num_candidates: int = 3000,
        temperature: float = 2.0,
        weight: float = 1.0,
        task_weight: float = 1.0,
    ) -> None:
        super().__init__()
        check_count("num_items of CD", num_items)
        check_count("num_candidates of CD", num_candidates)
        check_positive("temperature of CD", temperature)
        check_weights("CD", weight, task_weight)
        self.num_items = num_items
        self.num_candidates = num_candidates
        self.temperature = temperature
        self.weight = weight
        self.task_weight = task_weight

    def build_data(self, train: Any, teacher: Teacher) -> Any:
        """Return the training samples with items of their users and the teacher's scores of them.

        Raises:
            UserError: If the data knows no interactions, or the teacher gives no scores.
        """
        samples = interactions_of("CD", train)
        blocks = teacher_scores("CD", teacher, samples.interactions)
        items, scores = self._draw(blocks, samples.interactions, samples.seed)
        if not bool((items >= 0).any()):
            raise UserError("every user has all items already, so that CD has nothing to teach")
        return samples.with_fields(RankedItems("cd", items, scores))

    def forward(self, step: Step) -> dict[str, Tensor]:
        """Return the term of the drawn items.

        Raises:
            UserError: If the batch has none.
        """
        items, mask = batch_items("cd", step.batch, "CD")
        scores = item_scores(step.student.output, items)
        loss = cd_loss(scores, step.batch["cd_targets"], mask, temperature=self.temperature)
        return {"cd": self.weight * loss}

    def _draw(self, blocks: Blocks, interactions: Interactions, seed: int) -> tuple[Tensor, Tensor]:
        """Return the items of all users (U, k) and their scores; in blocks, to save memory."""
        generator = generator_of(seed, 0, STREAM)
        drawn: list[Tensor] = []
        targets: list[Tensor] = []
        groups = members_of(one_group(interactions))
        width = min(self.num_candidates, interactions.num_items)
        log_weights = (2 * (width - torch.arange(width)) - 1).double().log().float()
        for users, scores in blocks:
            ranked, values = rank_block(users, scores, interactions, groups, width)
            ranked, values = ranked[:, 0], values[:, 0]
            lengths = (ranked >= 0).sum(1)
            items, ranks = draw_items(ranked, log_weights, lengths, self.num_items, generator)
            drawn.append(items)
            targets.append(values.gather(1, ranks))
        return torch.cat(drawn), torch.cat(targets)
