"""The losses of residual distillation, on features of one shape.

    L_S = d(f_S, f_T)
    L_A = Σ_k d(f_{A_k}, sg[f_T - f_S - Σ_{j<k} f_{A_j}])
    L_C = d(f_S + Σ_k f_{A_k}, f_T)

The student fits the teacher's feature; every assistant fits what the student and the assistants
before it left over. sg stops the gradient. d is the mean squared error over all elements, or the
attention distance

    d(x, y) = mean (n(mean_c x²) - n(mean_c y²))²,   n(v) = v / max(‖v‖₂, 1e-12), v flattened

A difference of normalized maps is not the map of a difference, so the attention distance has no
residual to fit, and L_A = Σ_k d(sg[f_S + Σ_{j<k} f_{A_j}] + f_{A_k}, f_T) instead.

Once the student is good, f_T - f_S is a small difference of large numbers: all of it is computed in
float32 or better, outside autocast. The formulas are ours, see `residual_kd.py`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from tutelage.core.precision import full_precision, promote
from tutelage.errors import UserError
from tutelage.methods._attention_maps import attention_map, attention_vectors, map_distance
from tutelage.methods._checks import check_choice, check_floating
from tutelage.similarity._checks import as_same_dtype, check_list

FeatureDistance = Literal["mse", "attention"]
Schedule = Literal["joint", "end_to_end", "stagewise"]


def feature_distance(
    student: Tensor, teacher: Tensor, *, distance: FeatureDistance = "mse"
) -> Tensor:
    """Return the distance d of two features of one shape.

    >>> feature_distance(torch.zeros(2, 3), torch.full((2, 3), 2.0)).item()
    4.0

    Args:
        student: map (N, C, H, W), or vector (N, C) for `"mse"`.
        teacher: feature of the same shape.
        distance: `"mse"`, or `"attention"`, which is blind to sign and channels.

    Returns:
        A scalar, float32 for half precision and inside autocast.

    Raises:
        UserError: If the shapes differ, or if there is no map for the attention distance.
    """
    check_choice("distance", distance, FeatureDistance)
    check_floating("a residual needs floating-point features", student, teacher)
    if student.shape != teacher.shape or not student.numel():
        raise UserError(
            f"a residual needs features of one shape, got {tuple(student.shape)} and "
            f"{tuple(teacher.shape)}"
        )
    with full_precision(student.device):
        if distance == "mse":
            student, teacher = as_same_dtype(student, teacher)
            return F.mse_loss(student, teacher)
        if student.ndim != 4 or student.shape[2] * student.shape[3] == 1:
            raise UserError(
                f"the attention distance of features {tuple(student.shape)} is always 0; give maps "
                "(N, C, H, W) of several positions, or take distance='mse'"
            )
        student_vectors = attention_vectors([attention_map(student)])
        teacher_vectors = attention_vectors([attention_map(teacher)])
        return map_distance(student_vectors, teacher_vectors, distance="mean").mean()


def residuals(student: Tensor, assistants: Sequence[Tensor], teacher: Tensor) -> list[Tensor]:
    """Return the target of each assistant, detached.

    The first fits f_T - f_S, every further one what the assistants before it left over.

    >>> student, teacher = torch.tensor([1.0]), torch.tensor([4.0])
    >>> residuals(student, [torch.tensor([2.0]), torch.tensor([0.0])], teacher)
    [tensor([3.]), tensor([1.])]

    Args:
        student: feature of any shape.
        assistants: features of the same shape, one for each assistant.
        teacher: feature of the same shape.
    """
    with full_precision(student.device):
        residual = promote(teacher).detach() - promote(student).detach()
        targets = []
        for assistant in assistants:
            targets.append(residual)
            residual = residual - promote(assistant).detach()
        return targets


def residual_kd_loss(
    student: Tensor,
    assistants: Sequence[Tensor],
    teacher: Tensor,
    *,
    distance: FeatureDistance = "mse",
    schedule: Schedule = "joint",
) -> dict[str, Tensor]:
    """Return L_S as `student`, and L_A as `assistant` or L_C as `combined`, each of weight 1.

    >>> losses = residual_kd_loss(torch.zeros(1, 2), [torch.ones(1, 2)], torch.full((1, 2), 3.0))
    >>> {name: loss.item() for name, loss in losses.items()}
    {'student': 9.0, 'assistant': 4.0}

    Args:
        student: map (N, C, H, W) or vector (N, C).
        assistants: features of the same shape, one for each assistant.
        teacher: feature of the same shape.
        distance: see `feature_distance`.
        schedule: `"end_to_end"` gives L_C, by which the assistants' error moves the student too;
            the others give L_A.

    Raises:
        UserError: If the features do not fit, see `feature_distance`.
    """
    check_choice("schedule", schedule, Schedule)
    check_list("a residual (assistants)", assistants)
    if not assistants:
        raise UserError("a residual needs the feature of one assistant at least, got []")
    for assistant in assistants:
        check_floating("a residual needs floating-point features", assistant, student)
        if assistant.shape != student.shape:
            raise UserError(
                f"an assistant's feature has shape {tuple(assistant.shape)}, the student's "
                f"{tuple(student.shape)}; bring all members to one width"
            )
    losses = {"student": feature_distance(student, teacher, distance=distance)}
    with full_precision(student.device):
        if schedule == "end_to_end":
            combined = promote(student) + sum(promote(assistant) for assistant in assistants)
            losses["combined"] = feature_distance(combined, teacher, distance=distance)
        else:
            losses["assistant"] = _assistant_loss(student, assistants, teacher, distance)
    return losses


def _assistant_loss(
    student: Tensor, assistants: Sequence[Tensor], teacher: Tensor, distance: FeatureDistance
) -> Tensor:
    losses = []
    if distance == "mse":
        targets = residuals(student, assistants, teacher)
        for assistant, target in zip(assistants, targets, strict=True):
            losses.append(feature_distance(assistant, target, distance=distance))
    else:
        # No residual exists, so each assistant completes the sum of those before it.
        partial_sum = promote(student).detach()
        for assistant in assistants:
            feature = promote(assistant)
            losses.append(feature_distance(partial_sum + feature, teacher, distance=distance))
            partial_sum = partial_sum + feature.detach()
    return torch.stack(losses).sum()


@torch.no_grad()
def error_removed(student: Tensor, assistants: Sequence[Tensor], teacher: Tensor) -> float:
    """Return the share of the student's squared error that the assistants removed.

    It is negative if they added to the error; 0 if there was and is none.

    >>> error_removed(torch.zeros(1, 2), [torch.ones(1, 2)], torch.full((1, 2), 2.0))
    0.75

    Args:
        student: map (N, C, H, W) or vector (N, C).
        assistants: features of the same shape, one for each assistant.
        teacher: feature of the same shape.
    """
    losses = residual_kd_loss(student, assistants, teacher, schedule="end_to_end")
    if not losses["student"]:
        # Nothing was missing: what the assistants add is error only.
        return 0.0 if not losses["combined"] else -math.inf
    return 1.0 - float(losses["combined"] / losses["student"])
