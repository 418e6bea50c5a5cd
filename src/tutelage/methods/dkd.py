"""DKD, decoupled knowledge distillation: the label's and the other classes' parts of KD, weighted.

Source: B. Zhao, Q. Cui, R. Song, Y. Qiu, J. Liang, "Decoupled Knowledge Distillation", CVPR 2022,
arXiv 2203.08679, section 3; official code megvii-research/mdistiller@a08d46f
`mdistiller/distillers/DKD.py`, `engine/cfg.py`.

    KL(p_t ‖ p_s) = TCKD + (1 - p_t[y]) · NCKD,    p = softmax(z / T)
    TCKD = KL(b_t ‖ b_s),    b = (p[y], 1 - p[y])             the label y against all the rest
    NCKD = KL(q_t ‖ q_s),    q = softmax of z / T without y   the rest among themselves
    L = CE(z_s, y) + ramp · T² · (alpha · TCKD + beta · NCKD)

In plain KD a confident teacher, p_t[y] near 1, silences NCKD; here it has a weight of its own.
Symbols → arguments: α `alpha`, β `beta`, T `temperature`.

Differs from the official code:
- The terms are built on the log-sigmoid of z_y - logsumexp of the others, and on the log-softmax
  without the label's column. The official code takes log(softmax), which is log(0) from a logit gap
  of 100 T on, and subtracts 1000 from the label's logit, which is too little beyond that gap.
- The loss is always computed in float32 or better.
- The warm-up is a share of the run, linear from 0: 20 of 240 epochs are (0, 1/12). The official one
  steps by epochs from 1/20.
- Items with the label -100 leave both terms: means are over labeled items.
- With two classes NCKD is 0 and is left out.

Cost: a few softmaxes of the logits, three to five KD losses. The teacher may be a cache.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tutelage.core.batch import IGNORE_INDEX
from tutelage.core.distributed import mean_over_ranks
from tutelage.core.method import Method, MethodInfo
from tutelage.core.output import Step
from tutelage.core.precision import full_precision
from tutelage.core.search_space import Around, Between
from tutelage.methods._checks import (
    check_labels,
    check_logits,
    check_positive,
    check_weights,
)
from tutelage.methods._divergence import HIGH, too_small
from tutelage.methods._fused_dkd import FusedDivergences, divergences
from tutelage.methods._ramp import Ramp, check_ramp, fade_in
from tutelage.similarity._checks import as_same_dtype


def dkd_loss(
    student: Tensor,
    teacher: Tensor,
    labels: Tensor,
    *,
    alpha: float | None = 1.0,
    beta: float | None = 8.0,
    temperature: float = 4.0,
) -> dict[str, Tensor]:
    """Return alpha · T² · TCKD and beta · T² · NCKD, averaged over the items that have a label.

    >>> student, teacher = torch.zeros(1, 3), torch.tensor([[0.0, 0.0, 1000.0]])
    >>> terms = dkd_loss(student, teacher, torch.tensor([0]), beta=1.0, temperature=1.0)
    >>> {name: round(term.item(), 4) for name, term in terms.items()}
    {'tckd': 0.4055, 'nckd': 0.6931}

    Args:
        student: logits (N, C) of any floating dtype.
        teacher: logits of the same shape.
        labels: classes (N,) of int64; -100 is no label.
        alpha: weight of TCKD; None or 0 is off.
        beta: weight of NCKD; None or 0 is off.
        temperature: T > 0.

    Returns:
        The scalars `tckd` and `nckd` that have a weight, float32 for half-precision logits and
        inside autocast. They are 0 if no item has a label.

    Raises:
        UserError: If shapes, dtypes or the temperature do not fit, or a label is none of the C
            classes (labels on an accelerator are not checked).
    """
    check_positive("the temperature of DKD", temperature)
    check_weights("DKD", alpha, beta, optional=True)
    check_logits("DKD", student, teacher, maps=False, min_classes=2)
    check_labels("DKD", labels, student)
    with full_precision(student.device):
        unlabeled = labels == IGNORE_INDEX
        index = labels.clamp(min=0).unsqueeze(1)
        student, teacher = as_same_dtype(student, teacher)
        wanted = (bool(alpha), bool(beta and student.shape[1] > 2))
        totals = _totals(student, teacher, index, unlabeled, temperature, wanted)
        count = len(labels) - unlabeled.sum()
        scales = {"tckd": alpha, "nckd": beta}
        return {
            name: mean_over_ranks(total, count) * (float(scales[name] or 0) * temperature**2)
            for name, total in totals.items()
        }


class DKD(Method):
    """Decoupled knowledge distillation; terms `dkd/tckd` and `dkd/nckd`.

    >>> DKD(beta=2.0, ramp=None)
    DKD(alpha=1.0, beta=2.0, temperature=4.0, ramp=None, task_weight=1.0)

    Args:
        alpha: weight of TCKD; None or 0 is off.
        beta: weight of NCKD; None or 0 is off.
        temperature: T of all probabilities.
        ramp: shares of the run between which both terms fade in linearly; None is at once.
        task_weight: factor of the supervised loss.

    Raises:
        UserError: If the temperature is not positive or the ramp is not within the run.
    """

    needs_one_class = True
    info = MethodInfo(
        paper="B. Zhao et al., Decoupled Knowledge Distillation, CVPR 2022, arXiv 2203.08679",
        tasks="classification",
        needs="labels; logits of the same shape from both networks; the teacher may be cached",
        caution="beta 8, the value for CIFAR-100: -1.6 [-2.0, -1.2] points with 4000 labels of "
        "Fashion-MNIST, -3.8 [-4.3, -3.4] from a ViT; begin with 0.5",
    )
    search_space = (Around("alpha", 10.0), Around("beta", 10.0), Between("temperature", 1.0, 8.0))

    def __init__(
        self,
        *,
        alpha: float | None = 1.0,
        beta: float | None = 8.0,
        temperature: float = 4.0,
        ramp: Ramp | None = (0.0, 1 / 12),
        task_weight: float = 1.0,
    ) -> None:
        super().__init__()
        check_weights("DKD", alpha, beta, optional=True)
        check_weights("DKD", task_weight)
        check_positive("the temperature of DKD", temperature)
        check_ramp(ramp)
        self.alpha = alpha
        self.beta = beta
        self.temperature = temperature
        self.ramp = ramp
        self.task_weight = task_weight

    def forward(self, step: Step) -> dict[str, Tensor]:
        """Return the terms that have a weight."""
        terms = dkd_loss(
            step.student.logits,
            step.teacher.logits,
            step.batch.labels,
            alpha=self.alpha,
            beta=self.beta,
            temperature=self.temperature,
        )
        factor = fade_in(step.progress, self.ramp)
        return {f"dkd/{name}": factor * term for name, term in terms.items()}


def _totals(
    student: Tensor,
    teacher: Tensor,
    index: Tensor,
    unlabeled: Tensor,
    temperature: float,
    wanted: tuple[bool, bool],
) -> dict[str, Tensor]:
    """Return TCKD and NCKD, summed over the items that have a label, where they are wanted."""
    precise = temperature > HIGH
    arguments = student, teacher, index, unlabeled, temperature
    if all(wanted) and not (precise or teacher.requires_grad or torch.compiler.is_compiling()):
        totals = dict(zip(("tckd", "nckd"), FusedDivergences.apply(*arguments), strict=True))
    else:
        totals = divergences(*arguments, wanted, precise)
    if not precise and any(too_small(kl, len(index)) for kl in totals.values()):
        totals = divergences(*arguments, wanted, True)
    # Other ranks may not need what is precise: what is summed over ranks has one dtype.
    return {name: total.to(student.dtype) for name, total in totals.items()}
