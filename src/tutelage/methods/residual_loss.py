"""The losses of residual distillation: a student fits the teacher's features, assistants fit what is left over.

    L_S = d(f_S, f_T),   L_A = Σ_k d(f_{A_k}, sg[f_T - f_S - Σ_{j<k} f_{A_j}]),   L_C = d(f_S + Σ_k f_{A_k}, f_T)

d: mean squared error over all elements, or the attention distance, mean (n(mean_c x²) - n(mean_c y²))² with n(v) =
v / max(‖v‖₂, 1e-12) on the flattened map. A difference of such maps is not the map of a difference, so that
no residual exists for it, and L_A = Σ_k d(sg[f_S + Σ_{j<k} f_{A_j}] + f_{A_k}, f_T). sg stops the gradient.

Once the student is good, f_T - f_S is a small difference of large numbers: float32 or better, outside autocast. Of
our own design, see `residual.py`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from tutelage.errors import UserError
from tutelage.methods.energies import distances, energies, values
from tutelage.similarity.gram import full_precision, promote

DISTANCES = ("mse", "attention")


def feature_distance(student: Tensor, teacher: Tensor, distance: str = "mse") -> Tensor:
    """Return d of two features of one shape, a scalar.

    >>> feature_distance(torch.zeros(2, 3), torch.full((2, 3), 2.0)).item()
    4.0

    Args:
        student, teacher: maps (N, C, H, W), or vectors (N, C) for "mse".
        distance: "mse", or "attention", which is blind to sign and channels.

    Returns:
        A scalar, float32 for half precision and inside autocast.

    Raises:
        UserError: the shapes differ, or there is no map to attend to.
    """
    if distance not in DISTANCES:
        raise UserError(f"distance is one of {DISTANCES}, got {distance!r}")
    if student.shape != teacher.shape or not student.numel():
        raise UserError(
            f"a residual needs features of one shape, got {tuple(student.shape)} and {tuple(teacher.shape)}"
        )
    with full_precision(student.device):
        if distance == "mse":
            return F.mse_loss(promote(student), promote(teacher))
        if student.ndim != 4 or student.shape[2] * student.shape[3] == 1:
            raise UserError(
                f"the attention distance of features {tuple(student.shape)} is always 0; give maps (N, C, H, W) of "
                "several positions, or take distance='mse'"
            )
        mine, theirs = (values(energies([x])) for x in (student, teacher))
        return distances(mine, theirs, "mean").mean()


def residuals(student: Tensor, assistants: Sequence[Tensor], teacher: Tensor) -> list[Tensor]:
    """Return what each assistant fits: f_T - f_S, then what the ones before it left over; all detached.

    >>> residuals(torch.tensor([1.0]), [torch.tensor([2.0]), torch.tensor([0.0])], torch.tensor([4.0]))
    [tensor([3.]), tensor([1.])]
    """
    with full_precision(student.device):
        left = promote(teacher).detach() - promote(student).detach()
        targets = []
        for fitted in assistants:
            targets.append(left)
            left = left - promote(fitted).detach()
        return targets


def residual_kd_loss(
    student: Tensor, assistants: Sequence[Tensor], teacher: Tensor, distance: str = "mse", end_to_end: bool = False
) -> dict[str, Tensor]:
    """Return L_S as `student` and L_A as `assistant`, or L_C as `combined`, each of weight 1.

    >>> losses = residual_kd_loss(torch.zeros(1, 2), [torch.ones(1, 2)], torch.full((1, 2), 3.0))
    >>> {name: loss.item() for name, loss in losses.items()}
    {'student': 9.0, 'assistant': 4.0}

    Args:
        student, assistants, teacher: features of one shape: maps (N, C, H, W) or vectors (N, C).
        distance: see `feature_distance`.
        end_to_end: L_C instead of L_A: the assistants' error moves the student as well.
    """
    losses = {"student": feature_distance(student, teacher, distance)}
    with full_precision(student.device):
        if end_to_end:
            joined = promote(student) + sum(map(promote, assistants))
            return losses | {"combined": feature_distance(joined, teacher, distance)}
        if distance == "mse":
            pairs = list(zip(assistants, residuals(student, assistants, teacher), strict=True))
        else:
            pairs, before = [], promote(student).detach()
            for fitted in map(promote, assistants):
                pairs.append((before + fitted, teacher))
                before = before + fitted.detach()
        terms = [feature_distance(one, other, distance) for one, other in pairs]
        return losses | {"assistant": torch.stack(terms).sum()}


@torch.no_grad()
def error_removed(student: Tensor, assistants: Sequence[Tensor], teacher: Tensor) -> float:
    """Return the share of the student's squared error that the assistants removed; negative if they added to it.

    >>> error_removed(torch.zeros(1, 2), [torch.ones(1, 2)], torch.full((1, 2), 2.0))
    0.75
    """
    found = residual_kd_loss(student, assistants, teacher, end_to_end=True)
    return 1.0 - float(found["combined"] / found["student"])
