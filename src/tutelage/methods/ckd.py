"""CKD, sample-wise contrastive distillation: logits point to the teacher's of the same item, off the other items'.

Source: W. Zhu, X. Zhou, P. Zhu, Y. Wang, Q. Hu, "CKD: Contrastive Knowledge Distillation from A Sample-Wise
Perspective", arXiv 2404.14109v2, in the form of the official code, ZhouXinzzzzz/CKD@f16a145 `distillers/CKD.py`.

    a_i = t_i / max(‖t_i‖, ε)    b_j = s_j / max(‖s_j‖, ε)    Z_ij = a_i · b_j / τ
    L = CE(s, y) + weight · mean_i [logsumexp_j Z_ij - Z_ii]

s, t: logits (B, C). Symbols → arguments: λ_cl `weight`, λ_ce `task_weight`, τ `temperature`, ε `eps`. A teacher row is
an anchor, the student's row of the same item its positive, all other student rows its negatives. A row's gradient is
orthogonal to it and scales as 1/‖s_j‖, hence weights of 10 to 100. The value lies between its floor,
log(1 + (B-1) exp(-B / ((B-1) τ))), and about log B, of unrelated networks: follow `ckd_agreement` instead.

Differs from the official code: several processes contrast the items of the whole batch, there each replica its share
(`gather=False`); accumulation does not enlarge it. float32 outside autocast. Rows of almost no length, whose gradient
reaches 1/(τ ε), and batches below 8 give a warning. Unlabelled items (-100) take part. Ours, all off by default:
`centre`, `symmetric`, `mask_same_class`, `learn_temperature`, `blocked`. Cost: B² C products, B² memory.
"""

from __future__ import annotations

import math
import warnings

import torch
from torch import Tensor, nn

from tutelage.core import Method, Step, Teacher
from tutelage.core.batch import IGNORED, batch_labels
from tutelage.core.method import Card
from tutelage.methods.contrast import ckd_cosines, ckd_loss
from tutelage.methods.parts import check_finite, check_labels, check_positive
from tutelage.similarity.gather import joined


class CKD(Method):
    """Contrastive distillation of logits; one term, `ckd`.

    Args:
        weight, task_weight: factors of the term and of the supervised loss.
        temperature, eps, centre, symmetric: see `ckd_cosines` and `ckd_loss`.
        mask_same_class: other items of the anchor's label are no negatives; -100 is no label.
        learn_temperature, gather: train log τ with the student; contrast the items of all processes, not each one's.
    """

    card = Card(
        paper="W. Zhu et al., CKD: Contrastive Knowledge Distillation from A Sample-Wise Perspective, arXiv 2404.14109",
        tasks="classification",
        needs="logits of the same shape from both networks; batches of 8 or more; the teacher may be cached",
        trains="nothing, or the temperature",
    )

    def __init__(
        self, weight: float = 10.0, temperature: float = 1.0, eps: float = 1e-12, centre: bool = False,
        symmetric: bool = False, mask_same_class: bool = False, learn_temperature: bool = False, gather: bool = True,
        task_weight: float = 1.0,
    ) -> None:  # fmt: skip
        super().__init__()
        check_positive("the temperature of CKD", temperature)
        check_positive("the eps of CKD", eps)
        self.weight, self.task_weight, self.temperature, self.eps = weight, task_weight, temperature, eps
        self.centre, self.symmetric, self.mask_same_class = centre, symmetric, mask_same_class
        self.learn_temperature, self.gather = learn_temperature, gather
        self.log_temperature: nn.Parameter | None = None

    def setup(self, example: Step, teacher: Teacher) -> None:
        """Make the temperature, if it is learnt, and try the term once."""
        check_finite(example)
        if self.learn_temperature:
            self.log_temperature = nn.Parameter(torch.tensor(math.log(self.temperature)))
        self(example)

    def forward(self, step: Step) -> dict[str, Tensor]:
        """Return the term `ckd`."""
        student, teacher = (joined(o.logits) if self.gather else o.logits for o in (step.student, step.teacher))
        if student.device.type == "cpu" or not student.requires_grad:  # else only in `setup`: a look makes steps wait
            _warn(student)
        blocked = None
        if self.mask_same_class:
            labels = batch_labels(step.batch)
            check_labels("CKD", labels, step.student.logits)
            labels = joined(labels) if self.gather else labels
            blocked = (labels == labels[:, None]) & (labels != IGNORED)
        cosines = ckd_cosines(student=student, teacher=teacher, eps=self.eps, centre=self.centre)
        temperature = self.temperature if self.log_temperature is None else self.log_temperature.exp()
        return {"ckd": self.weight * ckd_loss(cosines, temperature, self.symmetric, blocked)}


def _warn(student: Tensor) -> None:  # Python shows each of them once
    if len(student) < 8:
        warnings.warn("CKD has almost no signal from fewer than 8 items; enlarge train.batch_size", stacklevel=2)
    if bool((student.detach().norm(dim=1) < 1e-4).any()):
        warnings.warn("logits shorter than 1e-4 make CKD's gradient huge; set its eps to 1e-2, or clip", stacklevel=2)
