"""Uncentered alignment with a hand-written gradient.

At the batch sizes of training, the time goes into the number of operators, not into arithmetic. The
derivatives with respect to the Gram matrices are therefore formed together with the values, and the
backward pass needs one product per side where autograd needs two. `alignment.py` has the same
formulas in plain autograd; the tests compare the two.

Notation: x is (..., n, p) and y is (..., m, q), with n and m the shorter sides, and

    K = x xᵀ (n, n),   L = y yᵀ (m, m),   M = x yᵀ (n, m)

"Intra" is the alignment between rows (n = m), "inter" the one between columns (p = q):

    intra: <K, L> / (‖K‖ ‖L‖),   inter: <M, M> / (‖K‖ ‖L‖)

and in `_fused_scaled.py` the same with scaled rows. A number per matrix is 0-d without leading
dimensions and (..., 1, 1) with them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from tutelage.core.precision import full_precision
from tutelage.similarity._fused_scaled import row_scaled
from tutelage.similarity._gram import dot, norm
from tutelage.similarity._lift import lift
from tutelage.similarity._once import once
from tutelage.similarity._products import may_read
from tutelage.similarity._slope import (
    MIN_NORM,
    SMALLEST,
    Pair,
    Slope,
    Values,
    as_matrices,
    unit_trace,
)

__all__ = ["SMALLEST", "FusedAlignment", "Slope", "from_products"]


class FusedAlignment(Function):
    """Intra and inter alignment of x and y; the one that is not wanted is None."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, scaled: bool, want: tuple[bool, bool]) -> Values:
        """Return (intra, inter).

        Args:
            ctx: of autograd.
            x: (..., n, p).
            y: (..., m, q).
            scaled: divide the rows of each Gram matrix by the lengths of the items.
            want: whether (intra, inter) is wanted.
        """
        ctx.factors = None
        if scaled:
            result = None
            if may_read(x):  # otherwise all rows are treated as if they were short
                result = row_scaled(x, y, want, ctx.needs_input_grad)
            if result is None:  # some row or column is too short
                x, factors_x = lift(x, want)
                y, factors_y = lift(y, want)
                ctx.factors = factors_x, factors_y
                result = row_scaled(x, y, want, ctx.needs_input_grad, lifted=True)
                assert result is not None
        else:
            result = _plain(x, y, want, ctx.needs_input_grad)
        values, slope_x, slope_y = result
        # The gradient of inter for one side needs the opposite side too, that of intra does not.
        save_x = ctx.needs_input_grad[0] or want[1]
        save_y = ctx.needs_input_grad[1] or want[1]
        ctx.save_for_backward(x if save_x else None, y if save_y else None, *slope_x, *slope_y)
        if x.ndim == 2:
            return values
        intra, inter = values
        return (
            None if intra is None else intra[..., 0, 0],
            None if inter is None else inter[..., 0, 0],
        )

    @staticmethod
    def backward(
        ctx: Any, d_intra: Tensor | None, d_inter: Tensor | None
    ) -> tuple[Tensor | None, Tensor | None, None, None]:
        """Pull the gradients of both values back to x and y."""
        if not torch.is_grad_enabled():
            return (*FusedAlignment._pull(ctx, d_intra, d_inter), None, None)
        # A graph of the gradient is wanted, which this gradient has not.
        with torch.no_grad():
            dx, dy = FusedAlignment._pull(ctx, d_intra, d_inter)
        x, y = ctx.saved_tensors[:2]
        return once(dx, x, y), once(dy, x, y), None, None

    @staticmethod
    def _pull(
        ctx: Any, d_intra: Tensor | None, d_inter: Tensor | None
    ) -> tuple[Tensor | None, Tensor | None]:
        x, y, *slopes = ctx.saved_tensors
        some_side = x if y is None else y
        grads = d_intra, d_inter
        if some_side.ndim > 2:
            grads = (
                None if d_intra is None else as_matrices(d_intra),
                None if d_inter is None else as_matrices(d_inter),
            )
        with full_precision(some_side.device):
            dx = Slope(*slopes[:4]).pull(x, y, grads) if ctx.needs_input_grad[0] else None
            dy = Slope(*slopes[4:]).pull(y, x, grads) if ctx.needs_input_grad[1] else None
            if ctx.factors is not None:
                factors_x, factors_y = ctx.factors
                dx = None if dx is None else dx * factors_x
                dy = None if dy is None else dy * factors_y
        return dx, dy


def _plain(
    x: Tensor, y: Tensor, want: Sequence[bool], need: Sequence[bool]
) -> tuple[Values, Slope, Slope]:
    grams = x @ x.mT, y @ y.mT
    cross = x @ y.mT if want[1] else None
    return from_products(grams, cross, want[0], need)


def from_products(
    grams: Pair, cross: Tensor | None, intra: bool, need: Sequence[bool]
) -> tuple[Values, Slope, Slope]:
    """Return the alignments and their slopes for x and y from K, L and M, which are overwritten.

    Args:
        grams: K = x xᵀ and L = y yᵀ, (..., n, n) and (..., m, m).
        cross: M = x yᵀ, for inter; None leaves inter out.
        intra: whether intra is wanted.
        need: for which of x and y the slopes are wanted.

    Returns:
        (intra, inter), the slope for x and the slope for y; empty slopes where not needed.
    """
    gram_x, unit_x = unit_trace(grams[0])
    gram_y, unit_y = unit_trace(grams[1])
    for gram, unit in ((gram_x, unit_x), (gram_y, unit_y)):
        size = norm(gram).clamp_min_(MIN_NORM)
        gram.div_(size)
        unit.div_(size)
    # From here on gram_x = K / ‖K‖ and unit_x = 1 / ‖K‖, likewise for y.
    values: Values = (dot(gram_x, gram_y) if intra else None, None)
    if cross is not None:
        # One square root at a time: the product of both units may leave the range.
        cross.mul_(unit_x.sqrt()).mul_(unit_y.sqrt())
        values = values[0], dot(cross, cross)
    slope_x = slope_y = Slope()
    if need[0]:
        slope_x = _plain_slope((gram_x, gram_y), (unit_x, unit_y), cross, values)
    if need[1]:
        cross_t = None if cross is None else cross.mT
        slope_y = _plain_slope((gram_y, gram_x), (unit_y, unit_x), cross_t, values)
    return values, slope_x, slope_y


def _plain_slope(grams: Pair, units: Pair, cross: Tensor | None, values: Values) -> Slope:
    """Return the slope for one side, here x, from K, L and M over their denominators.

    With K, L and M so divided, the derivatives are

        intra: 2 (L - intra K) / ‖K‖
        inter: own = -2 inter K / ‖K‖,  cross = 2 M / √(‖K‖ ‖L‖)
    """
    gram, opposite_gram = grams
    unit, opposite_unit = units
    intra, inter = values
    twice_unit = unit * 2.0  # 2, as K is symmetric: (S + Sᵀ) x = 2 S x
    intra_slope = None
    if intra is not None:
        intra_slope = torch.addcmul(opposite_gram, gram, intra, value=-1.0).mul_(twice_unit)
    if cross is None or inter is None:
        return Slope(intra_slope)
    root = unit.sqrt() * opposite_unit.sqrt()
    own = gram * (twice_unit * inter).neg_()
    return Slope(intra_slope, own, cross * root.mul_(2.0))
