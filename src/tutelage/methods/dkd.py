"""DKD, decoupled knowledge distillation: how sure of the label, and how the other classes rank, weighted apart.

Source: B. Zhao, Q. Cui, R. Song, Y. Qiu, J. Liang, "Decoupled Knowledge Distillation", CVPR 2022, arXiv 2203.08679,
section 3; official code megvii-research/mdistiller@a08d46f `mdistiller/distillers/DKD.py`, `engine/cfg.py`.

    KL(p_t ‖ p_s) = TCKD + (1 - p_t[y]) · NCKD,    p = softmax(z / T)
    TCKD = KL(b_t ‖ b_s),    b = (p[y], 1 - p[y])             the label y against all the rest
    NCKD = KL(q_t ‖ q_s),    q = softmax of z / T without y   the rest among themselves
    L = CE(z_s, y) + ramp · T² · (alpha · TCKD + beta · NCKD)

In plain KD a sure teacher, p_t[y] near 1, silences NCKD; here it has a weight of its own, β `beta` (α is `alpha`).

Differs from the official code:
- Log-sigmoid of z_y - logsumexp of the others, and log-softmax without the label's column. There log(softmax), which
  is log(0) from a logit gap of 100 T on, and 1000 taken off the label's logit, too little beyond. float32 always.
- The warm-up is a share of the run, linear from 0: 20 of 240 epochs are (0, 1/12). There it steps by epochs from 1/20.
- Items with the label -100 leave both terms: means are over labelled items. With two classes NCKD, 0, is left out.

Cost: a few softmaxes of the logits, three to five KD losses. The teacher may be a cache.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from tutelage.core import Method, Step, Teacher
from tutelage.core.batch import IGNORED, batch_labels
from tutelage.core.method import Card
from tutelage.errors import UserError
from tutelage.methods.parts import check_any, check_finite, check_floating, check_labels, check_positive, fade_in
from tutelage.similarity.gram import full_precision, promote


def dkd_loss(
    student: Tensor, teacher: Tensor, labels: Tensor,
    alpha: float | None = 1.0, beta: float | None = 8.0, temperature: float = 4.0,
) -> dict[str, Tensor]:  # fmt: skip
    """Return `alpha` · T² · TCKD and `beta` · T² · NCKD by name, averaged over the items that have a label.

    >>> student, teacher = torch.zeros(1, 3), torch.tensor([[0.0, 0.0, 1000.0]])
    >>> [round(term.item(), 4) for term in dkd_loss(student, teacher, torch.tensor([0]), 1.0, 1.0, 1.0).values()]
    [0.4055, 0.6931]

    Args:
        student, teacher: logits (N, C), any floating dtype.
        labels: classes (N,), integers; -100 is no label. Without any label the terms are 0.
        alpha, beta, temperature: weights of the two terms, None or 0 is off, and T > 0.

    Returns scalars, float32 for half precision and inside autocast. Raises UserError where shapes, dtypes, labels
    (looked at on the CPU only, where it is free) or the temperature do not fit.
    """
    check_positive("the temperature of DKD", temperature)
    _check(student, teacher, labels)
    with full_precision(student.device):
        kept, index = labels != IGNORED, labels.clamp(min=0).unsqueeze(1)
        (pair_s, rest_s), (pair_t, rest_t) = (_split(promote(z) / temperature, index) for z in (student, teacher))
        terms = {}
        if alpha:
            terms["tckd"] = alpha * temperature**2 * _divergence(pair_s, pair_t, kept)
        if beta and student.shape[1] > 2:
            terms["nckd"] = beta * temperature**2 * _divergence(rest_s, rest_t, kept)
        return terms


class DKD(Method):
    """Decoupled knowledge distillation; terms `dkd.tckd` and `dkd.nckd`.

    >>> DKD(beta=2.0, ramp=None).extra_repr()
    'alpha=1.0, beta=2.0, temperature=4.0, ramp=None, task_weight=1.0'

    Args:
        alpha, beta, temperature: weights of TCKD and of NCKD, None or 0 is off; T of all probabilities.
        ramp: shares of the run between which both terms fade in linearly; None is at once.
        task_weight: factor of the supervised loss.
    """

    card = Card(
        paper="B. Zhao et al., Decoupled Knowledge Distillation, CVPR 2022, arXiv 2203.08679",
        tasks="classification",
        needs="labels; logits of the same shape from both networks; the teacher may be cached",
    )

    def __init__(
        self, alpha: float | None = 1.0, beta: float | None = 8.0, temperature: float = 4.0,
        ramp: tuple[float, float] | None = (0.0, 1 / 12), task_weight: float = 1.0,
    ) -> None:  # fmt: skip
        super().__init__()
        check_positive("the temperature of DKD", temperature)
        if ramp is not None and not 0 <= ramp[0] <= ramp[1] <= 1:
            raise UserError(f"ramp is (start, stop) with 0 <= start <= stop <= 1, got {ramp}; None is no ramp")
        self.alpha, self.beta, self.temperature, self.ramp = alpha, beta, temperature, ramp
        self.task_weight = task_weight

    def setup(self, example: Step, teacher: Teacher) -> None:
        """Try both terms once, before training."""
        check_finite(example)
        check_any("DKD", self(example))

    def forward(self, step: Step) -> dict[str, Tensor]:
        """Return the terms that have a weight."""
        given = step.student.logits, step.teacher.logits, batch_labels(step.batch)
        terms = dkd_loss(*given, self.alpha, self.beta, self.temperature)
        return {f"dkd.{name}": fade_in(step.progress, self.ramp) * term for name, term in terms.items()}


def _split(z: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
    label = index == torch.arange(z.shape[1], device=z.device)
    rest = z.masked_fill(label, -torch.inf)
    margin = z.gather(1, index) - rest.logsumexp(1, keepdim=True)
    return F.logsigmoid(torch.cat((margin, -margin), 1)), F.log_softmax(rest, 1).masked_fill(label, 0.0)  # log b, log q


def _divergence(log_p: Tensor, log_q: Tensor, kept: Tensor) -> Tensor:
    each = F.kl_div(log_p, log_q, reduction="none", log_target=True).sum(1)
    return each.masked_fill(~kept, 0.0).sum() / kept.sum().clamp(min=1)


def _check(student: Tensor, teacher: Tensor, labels: Tensor) -> None:
    if student.shape != teacher.shape or student.ndim != 2 or not len(student) or student.shape[1] < 2:
        raise UserError(
            f"DKD needs logits (N, C) of one shape with two classes or more, got {tuple(student.shape)} from the "
            f"student and {tuple(teacher.shape)} from the teacher; give both the same items and classes, no maps"
        )
    check_floating("DKD needs floating-point logits", student, teacher)
    check_labels("DKD", labels, student)
