"""The row-scaled form of the fused alignment: K_ij / ‖x_i‖ in the place of K_ij.

    intra: <K', L'> / (‖K'‖ ‖L'‖),   K'_ij = K_ij / ‖x_i‖,   L'_ij = L_ij / ‖y_i‖
    inter: <M, X Yᵀ> / √(<K, X Xᵀ> <L, Y Yᵀ>),   X, Y: x, y with columns of length 1

Inter is the same alignment of xᵀ and yᵀ, written with products on the shorter side: the scaled Gram
matrix of the columns is Xᵀ x, and <Xᵀ x, Yᵀ y> = <x yᵀ, X Yᵀ>. A row or column of zeros contributes
0. The notation is that of `_fused.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from tutelage.similarity._gram import dot, norm
from tutelage.similarity._lift import needs_lift
from tutelage.similarity._slope import MIN_NORM, Pair, Slope, Values, unit_trace


def row_scaled(
    x: Tensor,
    y: Tensor,
    want: Sequence[bool],
    need: Sequence[bool],
    *,
    lifted: bool = False,
) -> tuple[Values, Slope, Slope] | None:
    """Return the alignments and their slopes for x and y, or None if they have to be lifted first.

    Args:
        x: (..., n, p).
        y: (..., m, q).
        want: whether (intra, inter) is wanted.
        need: for which of x and y the slopes are wanted.
        lifted: do not look for short rows and columns, of which only zeros are left.
    """
    gram_x, unit_x = unit_trace(x @ x.mT)
    gram_y, unit_y = unit_trace(y @ y.mT)
    intra = inter = None
    slope_x = slope_y = Slope()
    if want[0]:
        root_x = gram_x.diagonal(0, -2, -1).rsqrt()
        root_y = gram_y.diagonal(0, -2, -1).rsqrt()
        if not _may_be_divided(lifted, root_x, root_y):
            return None
        rows_x = _Rows.of(gram_x, root_x, unit_x)
        rows_y = _Rows.of(gram_y, root_y, unit_y)
        intra = dot(rows_x.kernel, rows_y.kernel)
        if need[0]:
            slope_x = Slope(rows_x.slope(rows_y, intra))
        if need[1]:
            slope_y = Slope(rows_y.slope(rows_x, intra))
    if want[1]:
        inverse_x = x.square().sum(-2, keepdim=True).rsqrt_()
        inverse_y = y.square().sum(-2, keepdim=True).rsqrt_()
        if not _may_be_divided(lifted, inverse_x, inverse_y, unit_x, unit_y):
            return None
        columns_x = _Columns.of(x, inverse_x, gram_x, unit_x)
        columns_y = _Columns.of(y, inverse_y, gram_y, unit_y)
        cross = (x @ y.mT).mul_(unit_x.sqrt()).mul_(unit_y.sqrt())
        outer = columns_x.unit_columns @ columns_y.unit_columns.mT
        inter = dot(cross, outer) * (columns_x.weight * columns_y.weight)
        if need[0]:
            slope_x = columns_x.slope(columns_y, (cross, outer), inter, slope_x)
        if need[1]:
            slope_y = columns_y.slope(columns_x, (cross.mT, outer.mT), inter, slope_y)
    return (intra, inter), slope_x, slope_y


class _Rows(NamedTuple):
    """The row-scaled Gram matrix of one side, for intra.

    Attributes:
        kernel: (..., n, n), K_ij / ‖x_i‖ divided by `size`.
        root: (..., n, 1), 1 / √diagonal of the Gram of trace 1; 0 for a zero row.
        size: the norm of the row-scaled Gram, made from the Gram of trace 1.
        unit: 1 / the trace of K.
    """

    kernel: Tensor
    root: Tensor
    size: Tensor
    unit: Tensor

    @classmethod
    def of(cls, gram: Tensor, root: Tensor, unit: Tensor) -> _Rows:
        root = root.unsqueeze(-1)
        kernel = gram * root
        size = norm(kernel).clamp_min_(MIN_NORM)
        return cls(kernel.div_(size), root, size, unit)

    def slope(self, opposite: _Rows, intra: Tensor) -> Tensor:
        """Return S + Sᵀ, where S is the derivative of intra for this side's Gram matrix."""
        slope = torch.addcmul(opposite.kernel, self.kernel, intra, value=-1.0)
        # The lengths ‖x_i‖ = √K_ii are Gram entries too; what goes through them is subtracted
        # from the diagonal. `through` needs the slope before it is scaled.
        through = (slope * self.kernel).sum(-1, keepdim=True)
        slope.mul_(self.root / self.size)
        slope.diagonal(0, -2, -1).unsqueeze(-1).addcmul_(through, self.root.square(), value=-0.5)
        return (slope + slope.mT).mul_(self.unit)


class _Columns(NamedTuple):
    """One side of inter, here x.

    Attributes:
        unit_columns: (..., n, p), X.
        inverse: (..., 1, p), 1 / the lengths of the columns; 0 for a zero column.
        gram: (..., n, n), K divided by its trace.
        outer: (..., n, n), X Xᵀ.
        weight: 1 / √<gram, outer>.
        unit: 1 / the trace of K.
    """

    unit_columns: Tensor
    inverse: Tensor
    gram: Tensor
    outer: Tensor
    weight: Tensor
    unit: Tensor

    @classmethod
    def of(cls, x: Tensor, inverse: Tensor, gram: Tensor, unit: Tensor) -> _Columns:
        unit_columns = x * inverse
        outer = unit_columns @ unit_columns.mT
        weight = dot(gram, outer).clamp_min_(MIN_NORM).rsqrt_()
        return cls(unit_columns, inverse, gram, outer, weight, unit)

    def slope(self, opposite: _Columns, crosses: Pair, inter: Tensor, intra: Slope) -> Slope:
        """Return the slope for x with `intra` taken over.

        Args:
            opposite: the side of y.
            crosses: M over the roots of both traces, and X Yᵀ.
            inter: the value.
            intra: the slope so far.
        """
        cross, outer = crosses
        weights = self.weight * opposite.weight
        pull = self.weight.square() * inter
        # Derivative for X, in the numerator and in the denominator ...
        column = (cross * weights) @ opposite.unit_columns
        column.sub_((self.gram * pull) @ self.unit_columns)
        # ... and from X = x / lengths to x: the part along each column does not change X.
        radial = (self.unit_columns * column).sum(-2, keepdim=True)
        column.addcmul_(self.unit_columns, radial, value=-1.0).mul_(self.inverse)
        own = self.outer * (pull * self.unit).neg_()
        scale = weights * self.unit.sqrt() * opposite.unit.sqrt()
        return Slope(intra.intra, own, outer * scale, column)


def _may_be_divided(
    lifted: bool,
    inverse_x: Tensor,
    inverse_y: Tensor,
    unit_x: Tensor | None = None,
    unit_y: Tensor | None = None,
) -> bool:
    """Return whether no row or column is too short to be divided by its length.

    Args:
        lifted: only zeros are too short; 1 / 0 is set to 0 in place (it has no gradient).
        inverse_x: 1 / lengths of x, as for `needs_lift`.
        inverse_y: 1 / lengths of y.
        unit_x: as for `needs_lift`.
        unit_y: as for `needs_lift`.
    """
    if not lifted:
        return not (needs_lift(inverse_x, unit_x) or needs_lift(inverse_y, unit_y))
    inverse_x.nan_to_num_(nan=torch.nan, posinf=0.0)
    inverse_y.nan_to_num_(nan=torch.nan, posinf=0.0)
    return True
