"""The losses of EmbedDistill on vectors and scores, see `embed_distill`.

Equation numbers are those of arXiv 2301.12005 v2. Sums run over the rows of a batch, whose mean a
loss is. `margin_mse_loss` is S. Hofstätter et al., arXiv 2010.02666.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from tutelage.core.precision import full_precision
from tutelage.errors import UserError
from tutelage.methods._checks import check_choice, check_floating, check_positive
from tutelage.similarity._checks import as_same_dtype

Metric = Literal["l2", "squared_l2", "mse", "cosine"]
Form = Literal["kl", "ce"]


def embed_matching_loss(student: Tensor, teacher: Tensor, *, metric: Metric = "l2") -> Tensor:
    """Return the mean distance of student's and teacher's vectors: equations 7 and 8.

        l2  (1/B) Σ_i ‖p_i - t_i‖₂           squared_l2  (1/B) Σ_i ‖p_i - t_i‖₂²
        mse squared_l2 / d                   cosine      (1/B) Σ_i (1 - cos(p_i, t_i))

    The gradient of `l2` has one length wherever the vectors differ, and is 0 where they do not. On
    unit vectors squared_l2 is twice cosine.

    >>> student, teacher = torch.tensor([[3.0, 4.0], [1.0, 0.0]]), torch.zeros(2, 2)
    >>> embed_matching_loss(student, teacher).item()
    3.0
    >>> embed_matching_loss(student, teacher, metric="mse").item()
    6.5

    Args:
        student: vectors (B, d) of queries or documents, after the projection, of any floating
            dtype.
        teacher: vectors (B, d) of the same items.
        metric: which distance; `l2` is the paper's.

    Returns:
        A scalar, float32 for half-precision vectors and inside autocast; 0, connected to the graph,
        for no rows.

    Raises:
        UserError: If shapes differ or are not (B, d), or a dtype is not floating.
    """
    check_choice("metric", metric, Metric)
    _check_vectors(student, teacher)
    with full_precision(student.device):
        student, teacher = as_same_dtype(student, teacher.detach())
        if not student.numel():
            return student.sum()
        if metric == "cosine":
            return (1 - F.cosine_similarity(student, teacher, dim=1)).mean()
        difference = student - teacher
        if metric == "l2":
            # Unlike the root of a sum of squares, this norm has gradient 0 at 0, not NaN.
            lengths: Tensor = torch.linalg.vector_norm(difference, dim=1)
            return lengths.mean()
        squares = difference.square()
        return squares.mean() if metric == "mse" else squares.sum() / len(student)


def score_distillation_loss(
    student: Tensor,
    teacher: Tensor,
    *,
    student_temperature: float = 1.0,
    teacher_temperature: float = 1.0,
    form: Form = "kl",
    t_squared: bool = False,
    mask: Tensor | None = None,
) -> Tensor:
    """Return how the student's distribution over candidates differs from the teacher's: eq. 11.

        ce  -(1/B) Σ_i Σ_j softmax_j(S_t / τ_t) log softmax_j(S_s / τ_s)
        kl  ce minus the entropy of the teacher's softmax: the same gradient, and 0 at the optimum

    >>> scores = torch.tensor([[1.0, 0.0]])
    >>> score_distillation_loss(scores, scores).item()
    0.0
    >>> round(score_distillation_loss(scores, scores, form="ce").item(), 4)
    0.5822

    Args:
        student: scores (B, m) of m candidates a query, of any floating dtype.
        teacher: scores (B, m) of the same candidates.
        student_temperature: τ_s.
        teacher_temperature: τ_t.
        form: `kl` or `ce`.
        t_squared: multiply by τ_s², as sentence-transformers' `DistillKLDivLoss` does. At
            temperatures far below 1 the term then nearly vanishes.
        mask: bool (B, m), True for candidates to leave out; None takes all.

    Returns:
        A scalar, float32 for half-precision scores and inside autocast; 0, connected to the graph,
        for no rows.

    Raises:
        UserError: If shapes differ, a dtype is not floating, or a temperature is not positive.
    """
    check_choice("form", form, Form)
    check_positive("student_temperature of EmbedDistill", student_temperature)
    check_positive("teacher_temperature of EmbedDistill", teacher_temperature)
    _check_scores(student, teacher)
    with full_precision(student.device):
        student, teacher = as_same_dtype(student, teacher.detach())
        if mask is not None:
            student = student.masked_fill(mask, -math.inf)
            teacher = teacher.masked_fill(mask, -math.inf)
        log_student = F.log_softmax(student / student_temperature, dim=1)
        log_teacher = F.log_softmax(teacher / teacher_temperature, dim=1)
        target = log_teacher if form == "kl" else torch.zeros_like(log_teacher)
        terms = log_teacher.exp() * (target - log_student)
        if mask is not None:
            terms = terms.masked_fill(mask, 0.0)  # 0 · infinity
        factor = student_temperature**2 if t_squared else 1.0
        return factor * terms.sum() / max(len(student), 1)


def margin_mse_loss(
    student: Tensor,
    teacher: Tensor,
    positives: Tensor | None = None,
    mask: Tensor | None = None,
) -> Tensor:
    """Return the mean squared difference of the margins between a positive and the negatives.

        mean over i and j ≠ +   ((S_s[i, +] - S_s[i, j]) - (S_t[i, +] - S_t[i, j]))²

    >>> student = torch.tensor([[2.0, 1.0, 0.0]])
    >>> margin_mse_loss(student, torch.tensor([[2.0, 1.0, 1.0]])).item()
    0.5

    Args:
        student: scores (B, m) of m candidates a query, of any floating dtype.
        teacher: scores (B, m) of the same candidates.
        positives: int64 (B,), the column of each query's positive; None is column 0.
        mask: bool (B, m), True for candidates that are no negatives; None is none.

    Returns:
        A scalar, float32 for half-precision scores and inside autocast; 0, connected to the graph,
        without negatives.

    Raises:
        UserError: If shapes differ, or a dtype is not floating.
    """
    _check_scores(student, teacher)
    with full_precision(student.device):
        student, teacher = as_same_dtype(student, teacher.detach())
        difference = student - teacher
        if positives is None:
            positives = torch.zeros(len(student), dtype=torch.int64, device=student.device)
        columns = positives.unsqueeze(1)
        margins = difference.gather(1, columns) - difference
        left_out = torch.zeros_like(margins, dtype=torch.bool).scatter(1, columns, True)
        if mask is not None:
            left_out = left_out | mask
        count = (~left_out).sum().clamp(min=1)
        return margins.masked_fill(left_out, 0.0).square().sum() / count


def _check_vectors(student: Tensor, teacher: Tensor) -> None:
    check_floating("EmbedDistill needs floating-point vectors", student, teacher)
    if student.ndim != 2 or teacher.ndim != 2 or len(student) != len(teacher):
        raise UserError(
            f"EmbedDistill needs vectors (B, d) of the same items, got {tuple(student.shape)} from "
            f"the student and {tuple(teacher.shape)} from the teacher; give both the same batch"
        )
    if student.shape[1] != teacher.shape[1]:
        raise UserError(
            f"the vectors have different widths, student {student.shape[1]}, teacher "
            f"{teacher.shape[1]}: pass a projection"
        )


def _check_scores(student: Tensor, teacher: Tensor) -> None:
    check_floating("EmbedDistill needs floating-point scores", student, teacher)
    if student.ndim != 2 or student.shape != teacher.shape or not student.shape[1]:
        raise UserError(
            f"EmbedDistill needs scores (B, m) of the same candidates, got {tuple(student.shape)} "
            f"from the student and {tuple(teacher.shape)} from the teacher"
        )
