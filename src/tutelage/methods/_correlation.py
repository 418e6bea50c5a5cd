"""Pearson's correlation of rows, averaged, with a hand-written gradient.

At the sizes of logits the time of a loss goes into the number of operators, of which autograd needs
more than twice as many.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd import Function

from tutelage.core.precision import full_precision
from tutelage.methods._deviations import deviations, deviations_and_norms
from tutelage.similarity._gram import inverse


def mean_correlation(x: Tensor, y: Tensor, eps: float) -> Tensor:
    """Return the mean over rows of <x - x̄, y - ȳ> / (‖x - x̄‖ ‖y - ȳ‖ + ε).

    A row that is constant up to rounding counts 0 and gets no gradient.

    >>> x = torch.tensor([[1.0, 2.0, 4.0], [5.0, 5.0, 5.0]])
    >>> round(mean_correlation(x, 3 * x + 1, 1e-8).item(), 4)
    0.5

    Args:
        x: (R, P), float32 or float64.
        y: (R, P), of the same dtype.
        eps: ε > 0.
    """
    if torch.compiler.is_compiling():
        return _by_autograd(x, y, eps)
    return cast(Tensor, _MeanCorrelation.apply(x, y, eps))


class _MeanCorrelation(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, eps: float) -> Tensor:
        deviations_x, norm_x = deviations_and_norms(x)
        deviations_y, norm_y = deviations_and_norms(y)
        denominator = norm_x * norm_y + eps
        correlation = (deviations_x * deviations_y).sum(1, keepdim=True) / denominator
        ctx.eps = eps
        ctx.save_for_backward(
            x, y, deviations_x, deviations_y, norm_x, norm_y, denominator, correlation
        )
        mean: Tensor = correlation.mean()
        return mean

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, y, deviations_x, deviations_y, norm_x, norm_y, denominator, correlation = (
            ctx.saved_tensors
        )
        with full_precision(x.device):
            if torch.is_grad_enabled():  # a graph of the gradient is wanted
                wanted = [side for side in (x, y) if side.requires_grad]
                value = _by_autograd(x, y, ctx.eps)
                found = iter(torch.autograd.grad(value, wanted, grad, create_graph=True))
                needs = ctx.needs_input_grad[:2]
                dx, dy = (next(found) if need else None for need in needs)
                return dx, dy, None
            # With c the correlation and D the denominator of a row, the derivative with respect to
            # the deviations d is d_y / D - c ‖d_y‖ / D · d_x / ‖d_x‖. Its sum over the row is 0, so
            # that it is the derivative with respect to x, too.
            share = grad / (len(x) * denominator)
            pull = correlation * share
            dx = dy = None
            # A constant row has no gradient, also where the other side's row varies.
            if ctx.needs_input_grad[0]:
                dx = deviations_y * share.masked_fill(norm_x <= 0, 0.0)
                dx.addcmul_(deviations_x * inverse(norm_x), pull * norm_y, value=-1.0)
            if ctx.needs_input_grad[1]:
                dy = deviations_x * share.masked_fill(norm_y <= 0, 0.0)
                dy.addcmul_(deviations_y * inverse(norm_y), pull * norm_x, value=-1.0)
        return dx, dy, None


def _by_autograd(x: Tensor, y: Tensor, eps: float) -> Tensor:
    x = deviations(x)
    y = deviations(y)
    norms = torch.linalg.vector_norm(x, dim=1) * torch.linalg.vector_norm(y, dim=1)
    return cast(Tensor, ((x * y).sum(1) / (norms + eps)).mean())
