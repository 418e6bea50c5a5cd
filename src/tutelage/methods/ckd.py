"""CKD: logits point to the teacher's logits of the same item, away from those of other items.

Source: W. Zhu, X. Zhou, P. Zhu, Y. Wang, Q. Hu, "CKD: Contrastive Knowledge Distillation from A
Sample-Wise Perspective", arXiv 2404.14109v2, in the form of the official code,
ZhouXinzzzzz/CKD@f16a145 `distillers/CKD.py`.

    a_i = t_i / max(‖t_i‖, ε)    b_j = s_j / max(‖s_j‖, ε)    Z_ij = a_i · b_j / τ
    L = CE(s, y) + weight · mean_i [logsumexp_j Z_ij - Z_ii]

s, t: logits (B, C). A teacher row is an anchor; the student's row of the same item is its positive,
all other student rows are its negatives. Symbols → arguments: λ_cl `weight`, λ_ce `task_weight`,
τ `temperature`, ε `eps`.

The gradient of a row is orthogonal to it and scales as 1/‖s_j‖, hence weights of 10 to 100. The
value lies between its floor, log(1 + (B-1) exp(-B / ((B-1) τ))), and about log B, that of unrelated
networks, so it says little about progress: follow `ckd_agreement` instead.

Differs from the official code:
- Several processes contrast the items of the whole batch, not of their own share
  (`gather_distributed=False`). Gradient accumulation does not enlarge the batch.
- The loss is computed in float32, outside autocast.
- Rows of almost no length, whose gradient reaches 1/(τ ε), and batches below 8 give a warning.
- `mask_same_class`, off by default, is ours: there duplicates and items of one class are pushed
  apart although the teacher sees them as alike.

Items without a label (-100), such as those of `UnlabeledData`, take part.

Cost: B² C products, B² memory. The teacher may be a cache.
"""

from __future__ import annotations

import warnings

import torch
from torch import Tensor
from torch.nn import functional as F

from tutelage.core.batch import IGNORE_INDEX
from tutelage.core.distributed import all_gather_with_grad
from tutelage.core.method import Method, MethodInfo
from tutelage.core.output import Step
from tutelage.core.precision import full_precision
from tutelage.core.search_space import Around
from tutelage.errors import UserError
from tutelage.methods._checks import check_labels, check_positive, check_weights
from tutelage.methods._logits import check_logits_layer, logits_of
from tutelage.similarity._checks import as_same_dtype, check_tensors
from tutelage.similarity._products import matmul


def ckd_loss(
    *,
    student: Tensor,
    teacher: Tensor,
    ignored_pairs: Tensor | None = None,
    temperature: float = 1.0,
    eps: float = 1e-12,
) -> Tensor:
    """Return the contrastive loss, averaged over items; 0 for one item or none.

    All arguments are keywords: with student and teacher swapped it is another loss.

    >>> round(ckd_loss(student=torch.eye(3), teacher=2 * torch.eye(3)).item(), 4)  # log(1 + 2 / e)
    0.5514

    Args:
        student: logits (B, C) of any floating dtype.
        teacher: logits of the same items; they get no gradient.
        ignored_pairs: (B, B) bool, the teacher's items by the student's: pairs that are neither
            positive nor negative, such as items of one class or proposals of other images. The
            diagonal always counts.
        temperature: τ > 0.
        eps: ε > 0, the smallest length that a row is divided by; 1e-2 tames rows of almost no
            length.

    Returns:
        A scalar, float32 for half-precision logits and inside autocast.

    Raises:
        UserError: If shapes or dtypes do not fit, or τ or ε is not positive.
    """
    check_positive("the temperature of CKD", temperature)
    cosines = _cosines(student, teacher, eps)
    similarity = cosines / temperature
    if ignored_pairs is not None:
        check_tensors("CKD (ignored_pairs)", ignored_pairs)
        if ignored_pairs.shape != similarity.shape or ignored_pairs.dtype != torch.bool:
            raise UserError(
                f"ignored_pairs is {tuple(similarity.shape)} of torch.bool, got "
                f"{tuple(ignored_pairs.shape)} of {ignored_pairs.dtype}"
            )
        positives = torch.eye(len(similarity), dtype=torch.bool, device=similarity.device)
        similarity = similarity.masked_fill(ignored_pairs & ~positives, -torch.inf)
    if not len(similarity):
        return cosines.sum()  # 0, connected to the graph
    return (similarity.logsumexp(1) - similarity.diagonal()).mean()


def ckd_agreement(*, student: Tensor, teacher: Tensor, eps: float = 1e-12) -> dict[str, Tensor]:
    """Return how well the student's rows are aligned with the teacher's; no gradient.

    `cosine` is the mean cosine of an item's two rows, `accuracy` the share of teacher rows whose
    nearest student row is that of the same item. Of equally near rows the first one counts, so a
    student that says the same of all items has an accuracy of 1 / B.

    >>> ckd_agreement(student=torch.ones(4, 4), teacher=torch.eye(4))["accuracy"].item()
    0.25

    Args:
        student: logits (B, C) of any floating dtype.
        teacher: logits of the same items.
        eps: the smallest length that a row is divided by.

    Raises:
        UserError: If shapes or dtypes do not fit, there are no items, or ε is not positive.
    """
    check_tensors("CKD", student, teacher)
    cosines = _cosines(student.detach(), teacher, eps)
    if not len(cosines):
        raise UserError("the agreement of no items is undefined; give a batch of 1 item or more")
    positives = torch.arange(len(cosines), device=cosines.device)
    nearest = cosines.argmax(1)
    return {
        "cosine": cosines.diagonal().mean(),
        "accuracy": (nearest == positives).to(cosines.dtype).mean(),
    }


class CKD(Method):
    """Contrastive distillation of logits; one term, `ckd`.

    >>> CKD(weight=100.0)
    CKD(weight=100.0, temperature=1.0, eps=1e-12, mask_same_class=False, gather_distributed=True, \
task_weight=1.0, logits_layer=None)

    Args:
        weight: factor of the term.
        temperature: τ of the similarities.
        eps: the smallest length that a row is divided by.
        mask_same_class: leave items of the anchor's class out of its negatives; needs labels, of
            which -100 is no class.
        gather_distributed: contrast the items of all processes, not of each one alone.
        task_weight: factor of the supervised loss.
        logits_layer: layer of both networks that gives the logits; None takes their outputs. With
            `roi_heads.box_predictor[0]` of a Faster R-CNN they are those of the student's
            proposals, the background first.

    Raises:
        UserError: If the temperature or ε is not positive.
    """

    needs_one_class = True
    info = MethodInfo(
        paper="W. Zhu et al., CKD: Contrastive Knowledge Distillation from A Sample-Wise "
        "Perspective, arXiv 2404.14109",
        tasks="classification, two-stage detection",
        needs="logits of the same shape from both networks; batches of 8 or more; "
        "the teacher may be cached",
    )
    search_space = (Around("weight", 10.0), Around("temperature", 4.0))

    def __init__(
        self,
        *,
        weight: float = 10.0,
        temperature: float = 1.0,
        eps: float = 1e-12,
        mask_same_class: bool = False,
        gather_distributed: bool = True,
        task_weight: float = 1.0,
        logits_layer: str | None = None,
    ) -> None:
        super().__init__()
        check_weights("CKD", weight, task_weight)
        check_positive("the temperature of CKD", temperature)
        check_positive("the eps of CKD", eps)
        self.weight = weight
        self.temperature = temperature
        self.eps = eps
        self.mask_same_class = mask_same_class
        self.gather_distributed = gather_distributed
        self.task_weight = task_weight
        self.logits_layer = logits_layer
        self.student_layers = check_logits_layer("CKD", logits_layer)
        self.teacher_layers = self.student_layers

    def forward(self, step: Step) -> dict[str, Tensor]:
        """Return the term `ckd`."""
        student, teacher = map(self._gathered, logits_of(step, self.logits_layer))
        # On an accelerator reading values makes a step wait, so there only `setup` warns.
        if student.device.type == "cpu" or not student.requires_grad:
            _warn_of_weak_rows(student)
        same_class = None
        if self.mask_same_class:
            check_labels("CKD", step.batch.labels, step.student.logits)
            labels = self._gathered(step.batch.labels)
            same_class = (labels == labels[:, None]) & (labels != IGNORE_INDEX)
        loss = ckd_loss(
            student=student,
            teacher=teacher,
            ignored_pairs=same_class,
            temperature=self.temperature,
            eps=self.eps,
        )
        return {"ckd": self.weight * loss}

    def _gathered(self, x: Tensor) -> Tensor:
        return all_gather_with_grad(x) if self.gather_distributed else x


def _cosines(student: Tensor, teacher: Tensor, eps: float) -> Tensor:
    """Return a_i · b_j, (B, B): the teacher's items by the student's."""
    check_positive("the eps of CKD", eps)
    _check_rows(student, teacher)
    with full_precision(student.device):
        s, t = as_same_dtype(student, teacher.detach())
        return matmul(F.normalize(t, dim=1, eps=eps), F.normalize(s, dim=1, eps=eps).mT)


def _check_rows(student: Tensor, teacher: Tensor) -> None:
    check_tensors("CKD", student, teacher)
    floating = student.is_floating_point() and teacher.is_floating_point()
    rows_fit = student.ndim == teacher.ndim == 2 and len(student) == len(teacher)
    if not (floating and rows_fit):
        raise UserError(
            "CKD needs floating-point logits (B, C) of the same items, got "
            f"{tuple(student.shape)} of {student.dtype} and {tuple(teacher.shape)} of "
            f"{teacher.dtype}; flatten maps to rows"
        )
    student_classes = student.shape[1]
    teacher_classes = teacher.shape[1]
    if student_classes != teacher_classes or student_classes < 2:
        raise UserError(
            f"CKD compares logits: student {student_classes} classes, teacher {teacher_classes}; "
            "give both as many, 2 or more"
        )


def _warn_of_weak_rows(student: Tensor) -> None:
    """Warn of small batches and of rows of almost no length; Python shows each warning once."""
    if len(student) < 8:
        warnings.warn(
            "CKD has almost no signal from fewer than 8 items; enlarge train.batch_size",
            stacklevel=2,
        )
    if bool((student.detach().norm(dim=1) < 1e-4).any()):
        warnings.warn(
            "logits shorter than 1e-4 make CKD's gradient huge; set its eps to 1e-2, or clip",
            stacklevel=2,
        )
