"""The centered alignments that have no hand-written gradient: debiased, or with scaled rows.

The debiased form is a difference in which a single far row leaves few digits. On a CPU the value is
looked at, and formed again with more digits where it needs them. Looking would make an accelerator
wait in every step. There the debiased form takes Gram matrices, which lose the fewest digits, or
float64 where they would be large.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tutelage.similarity._gram import (
    KernelDot,
    centered,
    dot,
    gram_is_cheaper,
    inverse,
    kernel_dot,
    norm,
    product,
    u_centered,
    unit_rows,
)
from tutelage.similarity._products import may_read, sum_dtype
from tutelage.similarity._u_products import MAX_DENSE, Pair, min_remainder, u_products

# U-centered Gram matrices of features of norm 1 are this small, both multiplied, only where a far
# row has left few digits of float32.
MIN_SIZE = 1e-3


def alignment_by_autograd(x: Tensor, y: Tensor, scale: str | None, *, debiased: bool) -> Tensor:
    """Return the centered or debiased alignment (...,).

    Args:
        x: (..., N, P), float32 or float64.
        y: (..., N, P').
        scale: as in `alignment`.
        debiased: U-center the Gram matrices instead of centering the features only.
    """
    factors_x = _factors(x, scale)
    factors_y = _factors(y, scale)
    in_gram_space = gram_is_cheaper(x.shape[-2], (x.shape[-1], y.shape[-1]), scale == "rows")
    may_look = debiased and may_read(x)
    if debiased and not may_look and not in_gram_space:
        in_gram_space = x[..., 0].numel() * x.shape[-2] <= MAX_DENSE
        if not in_gram_space and x.dtype == torch.float32 != sum_dtype(x.device):
            return _carefully(x, y, scale, factors_x, factors_y)
    if in_gram_space:
        kernel_x = product(*factors_x)
        kernel_y = product(*factors_y)
        if debiased:
            kernel_x, kernel_y = u_centered(kernel_x), u_centered(kernel_y)
        size = norm(kernel_x) * norm(kernel_y)
        if may_look and x.dtype == torch.float32 and _any_below(size.detach(), MIN_SIZE):
            return _carefully(x, y, scale, factors_x, factors_y)
        value = dot(kernel_x, kernel_y) * inverse(size)
    else:
        own_x = kernel_dot(factors_x, factors_x, debiased)
        own_y = kernel_dot(factors_y, factors_y, debiased)
        if may_look and _few_digits(factors_x, own_x, factors_y, own_y):
            return _carefully(x, y, scale, factors_x, factors_y)
        value = kernel_dot(factors_x, factors_y, debiased).value
        # `kernel_dot` of a side with itself is its squared norm. The debiased one is a difference
        # of terms of size 1, so a few eps of it are rounding, as of a constant side.
        noise = 8 * torch.finfo(x.dtype).eps if debiased else 0.0
        for own in (own_x.value, own_y.value):
            value = value * own.masked_fill(own <= noise, torch.inf).rsqrt()
    return value if x.ndim == 2 else value[..., 0, 0]


def _few_digits(factors_x: Pair, own_x: KernelDot, factors_y: Pair, own_y: KernelDot) -> bool:
    """Return whether the debiased products of some matrix have lost too many digits.

    A single far row is enough: it makes the diagonal, which is subtracted, nearly all of the sum.
    """
    data = factors_x[0].data
    least = min_remainder(data.dtype, data[..., 0].numel() * data.shape[-2])
    if data.ndim == 2:  # quick: two numbers a side
        if all(own.value.item() >= least * own.full.item() for own in (own_x, own_y)):
            return False
        few = torch.ones_like(factors_x[0].unit, dtype=torch.bool)
    else:
        few_x = own_x.value.detach() < least * own_x.full.detach()
        few = few_x | (own_y.value.detach() < least * own_y.full.detach())
    # All products of a constant side are 0, however they are formed.
    alive = factors_x[1].unit * factors_y[1].unit > 0
    return bool((few.view_as(alive) & alive).any())


def _any_below(numbers: Tensor, limit: float) -> bool:
    if numbers.ndim == 0:
        return bool(numbers < limit)
    return bool((numbers < limit).any())


def _carefully(x: Tensor, y: Tensor, scale: str | None, factors_x: Pair, factors_y: Pair) -> Tensor:
    """Return the debiased alignment where few digits are left, in float64 or Gram space."""
    if x.dtype == torch.float32 != sum_dtype(x.device):
        value = alignment_by_autograd(x.double(), y.double(), scale, debiased=True).float()
        # What is constant in float32 varies by rounding in float64.
        alive = (factors_x[1].unit * factors_y[1].unit > 0)[..., 0, 0]
        return value.masked_fill(~alive, 0.0)
    xy, xx, yy = u_products(factors_x, factors_y)
    value = xy * inverse(xx.sqrt()) * inverse(yy.sqrt())
    return value if x.ndim == 2 else value[..., 0, 0]


def _factors(x: Tensor, scale: str | None) -> Pair:
    """Return the two factors of the kernel matrix; they are the same unless rows are scaled."""
    left = centered(x if scale is None else unit_rows(x))
    right = centered(x) if scale == "rows" else left
    return left, right
