"""The contrastive loss of CKD on the cosines between two networks' logits, and what to follow beside it.

Source and formula: see `ckd.py`.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from tutelage.errors import UserError
from tutelage.methods.parts import check_positive
from tutelage.similarity.gram import full_precision, promote


def ckd_cosines(*, student: Tensor, teacher: Tensor, eps: float = 1e-12, centre: bool = False) -> Tensor:
    """Return a_i · b_j, (B, B): the teacher's items by the student's; float32 for half precision and inside autocast.

    Args:
        student, teacher: logits (B, C) of the same items, floating; no gradient reaches the teacher.
        eps: ε > 0, the least length that a row is divided by; 1e-2 tames rows of almost no length.
        centre: subtract each row's mean first, so that a constant added to a row changes nothing.
    """
    _check(student, teacher)
    check_positive("the eps of CKD", eps)
    with full_precision(student.device):
        s, t = promote(student), promote(teacher.detach()).to(promote(student).dtype)
        a, b = (F.normalize(x - x.mean(1, keepdim=True) if centre else x, dim=1, eps=eps) for x in (t, s))
        return a @ b.mT


def ckd_loss(
    cosines: Tensor, temperature: float | Tensor = 1.0, symmetric: bool = False, blocked: Tensor | None = None
) -> Tensor:
    """Return the contrastive loss of `ckd_cosines`, a scalar; 0 for one item or none.

    >>> round(ckd_loss(ckd_cosines(student=torch.eye(3), teacher=2 * torch.eye(3))).item(), 4)  # log(1 + 2 / e)
    0.5514

    Args:
        cosines: (B, B), the teacher's items by the student's.
        temperature, symmetric: τ > 0, a tensor passes gradient; average with the loss whose anchors are student rows.
        blocked: (B, B) bool, pairs that are no negatives: `labels == labels[:, None]` for items of one class,
            `image != image[:, None]` for proposals of other images. The diagonal is never blocked.
    """
    if not isinstance(temperature, Tensor):
        check_positive("the temperature of CKD", temperature)
    elif temperature.device.type == "cpu":  # elsewhere the look would make a step wait
        check_positive("the temperature of CKD", temperature.item())
    if cosines.shape[:1] != cosines.shape[1:]:
        raise UserError(f"CKD needs cosines (B, B) of the same items, got {tuple(cosines.shape)}")
    z = cosines / temperature
    if blocked is not None:
        if blocked.shape != z.shape or blocked.dtype != torch.bool:
            raise UserError(f"blocked is {tuple(z.shape)} of torch.bool, got {tuple(blocked.shape)} of {blocked.dtype}")
        z = z.masked_fill(blocked & ~torch.eye(len(z), dtype=torch.bool, device=z.device), -torch.inf)
    each = z.logsumexp(1) - z.diagonal()
    if symmetric:
        each = (each + z.logsumexp(0) - z.diagonal()) / 2
    return each.mean() if len(z) else cosines.sum()


def ckd_agreement(cosines: Tensor) -> dict[str, Tensor]:
    """Return the mean `cosine` of an item's two rows, and the share `found` of anchors whose own row is the nearest.

    Of rows that are equally near the first one counts: a student that says the same of all items finds 1 / B.

    >>> ckd_agreement(torch.ones(4, 4))["found"].item()
    0.25
    """
    z = cosines.detach()
    found = z.argmax(1) == torch.arange(len(z), device=z.device) if len(z) else z.diagonal()
    return {"cosine": z.diagonal().mean(), "found": found.to(z.dtype).mean()}


def _check(student: Tensor, teacher: Tensor) -> None:
    floating = student.is_floating_point() and teacher.is_floating_point()
    if not (floating and student.ndim == teacher.ndim == 2 and len(student) == len(teacher)):
        got = " and ".join(f"{tuple(z.shape)} of {z.dtype}" for z in (student, teacher))
        raise UserError(f"CKD needs floating-point logits (B, C) of the same items, got {got}; flatten maps to rows")
    mine, theirs = student.shape[1], teacher.shape[1]
    if mine != theirs or mine < 2:
        raise UserError(f"CKD compares logits: student {mine} classes, teacher {theirs}; give both as many, 2 or more")
