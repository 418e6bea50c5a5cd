"""The terms of OKDHP as pure functions: the divergence of heat maps from the ensemble, the ramp."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from tutelage.core.distributed import mean_over_ranks
from tutelage.core.heatmaps import check_same_maps, checked_weights
from tutelage.core.precision import full_precision, promote
from tutelage.errors import UserError
from tutelage.methods._checks import check_choice, check_positive

Reduction = Literal["okdhp", "joint_mean", "batch_mean"]


def okdhp_loss(
    student: Tensor,
    teacher: Tensor,
    weight: Tensor | None = None,
    *,
    temperature: float = 1.0,
    reduction: Reduction = "okdhp",
    detach_teacher: bool = False,
) -> Tensor:
    """Return the pixel-wise divergence of heat maps from those of the ensemble.

        L = Σ_stacks Σ_images Σ_joints w · KL(softmax(m / T) ‖ softmax(o / T)) / size

    The softmax is over the pixels of a map. Gradients at T = 1: w (q_o - q_m) / size on o, and
    w q_m (log q_m - log q_o - KL) / size on m, where q is the softmax.

    >>> maps = torch.zeros(1, 1, 1, 2)
    >>> round(okdhp_loss(maps, torch.tensor([[[[0.0, math.log(3)]]]])).item(), 6)
    0.065406

    Args:
        student: o, (N, K, h, w) or (N, S, K, h, w) of S stacks.
        teacher: m, (N, K, h, w).
        weight: w, (N, K) or (N, K, 1), which gates each joint; None weighs all alike.
        temperature: T. Maps of peak 1 over thousands of pixels have a nearly uniform softmax; below
            1 it is sharper.
        reduction: what the size is: `"okdhp"` N·h·w, so that the term shrinks with the number of
            pixels, as in the official code; `"batch_mean"` N; `"joint_mean"` the sum of the
            weights, over all ranks.
        detach_teacher: stop the gradient on m; the official code lets it flow.

    Returns:
        A scalar, float32 for half precision; 0 without gradient if no joint has a weight.

    Raises:
        UserError: If shapes do not fit, a weight is negative or NaN, or an option is out of range.
    """
    check_same_maps("OKDHP's terms", student, teacher)
    check_positive("the temperature of OKDHP", temperature)
    check_choice("reduction", reduction, Reduction)
    weight = checked_weights(weight, student)
    if detach_teacher:
        teacher = teacher.detach()
    with full_precision(student.device):
        stacks = promote(student if student.ndim == 5 else student[:, None])
        log_student = torch.log_softmax(stacks.flatten(-2) / temperature, -1)
        log_teacher = torch.log_softmax(promote(teacher).flatten(-2)[:, None] / temperature, -1)
        divergence = (log_teacher.exp() * (log_teacher - log_student)).sum(-1).sum(1)
        if weight is not None:
            divergence = divergence * weight
        total = divergence.sum()
        if reduction == "joint_mean":
            count = torch.ones_like(divergence) if weight is None else weight
            return mean_over_ranks(total, count.sum())
        size = len(stacks)
        if reduction == "okdhp":
            size *= stacks.shape[-2] * stacks.shape[-1]
        return total / size


def okdhp_ramp(progress: float, length: float) -> float:
    """Return the factor of the divergence, exp(-5 (1 - min(e, E) / E)²).

    >>> okdhp_ramp(90, 90), okdhp_ramp(7, 0), round(okdhp_ramp(0, 90), 6)
    (1.0, 1.0, 0.006738)

    Args:
        progress: e, the epoch from 0, or the share of the run.
        length: E, in the same unit; 0 is no ramp.

    Raises:
        UserError: If the length is negative.
    """
    if not 0 <= length < math.inf:
        raise UserError(f"the ramp of OKDHP has a length of at least 0, got {length}")
    if length == 0:
        return 1.0
    return math.exp(-5.0 * (1.0 - min(progress, length) / length) ** 2)
