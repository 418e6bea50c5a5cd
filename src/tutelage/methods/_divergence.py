"""KL divergence of softened probabilities, at any temperature.

At a high temperature T all probabilities are nearly equal and KL is about 1 / T². The usual sum of
p_t (log p_t - log p_s) then consists of terms of size 1 / T that cancel: T² KL has a relative error
of about eps · T², 10 % in float32 at T = 1000. Logits that are all near 0, or a student that has
its teacher's, do the same at a lower temperature. Above `HIGH`, and where KL turns out `too_small`,
it is computed in float64, as a sum of terms that are not negative and do not cancel:

    KL = Σ p_s g(r),   g(r) = r exp(r) - exp(r) + 1 = r²/2 + r³/3 + ...,   r = log p_t - log p_s

which holds because the probabilities of both sides sum to 1.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from tutelage.similarity._products import may_read, sum_dtype

HIGH = 32.0  # from here on float32 would leave an error above 1e-4
FEW = 1e3  # a divergence of less than so many eps has less than three digits
SMALL = 0.01  # |r| up to which the series has all digits of float64


def too_small(total: Tensor, items: int) -> bool:
    """Return whether a sum of divergences has lost so many digits that it has to be precise.

    Always False on an accelerator, which would have to wait, and in a compiled graph.

    >>> too_small(torch.tensor(1e-6), 64), too_small(torch.tensor(1.0), 64)
    (True, False)

    Args:
        total: the sum over the items, without T².
        items: of the sum.
    """
    if not may_read(total) or torch.compiler.is_compiling():
        return False
    return total.item() < FEW * torch.finfo(total.dtype).eps * items


def softened(logits: Tensor, temperature: float, precise: bool) -> Tensor:
    """Return logits / T, in float64 if they have to be precise.

    >>> softened(torch.ones(1), 4.0, False), softened(torch.ones(1), 1000.0, True).dtype
    (tensor([0.2500]), torch.float64)

    Args:
        logits: float32 or float64.
        temperature: T.
        precise: use float64.
    """
    if precise:
        logits = logits.to(torch.promote_types(logits.dtype, sum_dtype(logits.device)))
    return logits / temperature


def divergence_terms(student_log_probs: Tensor, teacher_log_probs: Tensor, precise: bool) -> Tensor:
    """Return what has to be summed over the classes to give KL(teacher ‖ student).

    Where both sides are 0, as a class that is left out, the term is 0.

    Args:
        student_log_probs: of `softened` logits, of any shape.
        teacher_log_probs: of the same shape.
        precise: use the terms that do not cancel.
    """
    if not precise:
        return F.kl_div(student_log_probs, teacher_log_probs, reduction="none", log_target=True)
    ratio = teacher_log_probs - student_log_probs
    student_probs = student_log_probs.exp()
    teacher_probs = teacher_log_probs.exp()
    small = ratio.abs() < SMALL
    r = ratio.masked_fill(~small, 0.0)
    series = r.square() * (1 / 2 + r * (1 / 3 + r * (1 / 8 + r * (1 / 30 + r / 144))))
    direct = teacher_probs * ratio - teacher_probs + student_probs
    return torch.where(small, student_probs * series, direct)
