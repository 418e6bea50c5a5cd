"""KL divergence of softened probabilities, at any temperature.

At a high temperature T all probabilities are nearly equal and KL is about 1 / T². The usual sum of
p_t (log p_t - log p_s) then consists of terms of size 1 / T that cancel: T² KL has a relative error
of about eps · T², 10 % in float32 at T = 1000. Above `HIGH` it is computed in float64, as a sum
of terms that are not negative and do not cancel:

    KL = Σ p_s g(r),   g(r) = r exp(r) - exp(r) + 1 = r²/2 + r³/3 + ...,   r = log p_t - log p_s

which holds because the probabilities of both sides sum to 1.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from tutelage.similarity._products import sum_dtype

HIGH = 32.0  # from here on float32 would leave an error above 1e-4
SMALL = 0.01  # |r| up to which the series has all digits of float64


def softened(logits: Tensor, temperature: float) -> Tensor:
    """Return logits / T, in float64 at a high temperature.

    >>> softened(torch.ones(1), 4.0), softened(torch.ones(1), 1000.0).dtype
    (tensor([0.2500]), torch.float64)

    Args:
        logits: float32 or float64.
        temperature: T.
    """
    if temperature > HIGH:
        logits = logits.to(torch.promote_types(logits.dtype, sum_dtype(logits.device)))
    return logits / temperature


def divergence_terms(
    student_log_probs: Tensor, teacher_log_probs: Tensor, temperature: float
) -> Tensor:
    """Return what has to be summed over the classes to give KL(teacher ‖ student).

    Where both sides are 0, as a class that is left out, the term is 0.

    Args:
        student_log_probs: of `softened` logits, of any shape.
        teacher_log_probs: of the same shape.
        temperature: T.
    """
    if temperature <= HIGH:
        return F.kl_div(student_log_probs, teacher_log_probs, reduction="none", log_target=True)
    ratio = teacher_log_probs - student_log_probs
    student_probs = student_log_probs.exp()
    teacher_probs = teacher_log_probs.exp()
    small = ratio.abs() < SMALL
    r = ratio.masked_fill(~small, 0.0)
    series = r.square() * (1 / 2 + r * (1 / 3 + r * (1 / 8 + r * (1 / 30 + r / 144))))
    direct = teacher_probs * ratio - teacher_probs + student_probs
    return torch.where(small, student_probs * series, direct)
