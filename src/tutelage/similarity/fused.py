"""Uncentred alignment with its gradient written out: few operators, one product where autograd needs two.

At the batch sizes of training this loss costs as much as its operators are many, so the slopes with respect
to the Gram matrices are formed beside the values. `alignment.py` has the same formulas in plain autograd; the
tests compare the two.

Here x is (..., n, p) and y is (..., m, q), n and m being the shorter sides; K = x xᵀ, L = y yᵀ, M = x yᵀ.
"Intra" is the alignment between rows (n = m), "inter" the one between columns (p = q). Sizes are divided out
as they arise: each Gram by its trace, which also bounds its later norm from below, so that an all-zero input
gives 0 and never 0 / 0. Numbers per matrix are 0-d without leading dimensions and (..., 1, 1) with them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from tutelage.similarity.gram import dot, full_precision, norm

LEAST = 1e-6  # below what the norm of a matrix of trace 1 can be
SMALLEST = 1e-30  # a trace below it counts as zero; 1 / (LEAST · SMALLEST) still is a float32

Values = tuple[Tensor | None, Tensor | None]
Both = tuple[Tensor, Tensor]


class Slope(NamedTuple):
    """Derivatives for one side y: d intra = `intra` @ y, d inter = `own` @ y + `cross` @ x + `column`.

    `intra` and `own` are symmetric (m, m), `cross` is (m, n); `column` is (m, q), None with plain Grams.
    """

    intra: Tensor | None = None
    own: Tensor | None = None
    cross: Tensor | None = None
    column: Tensor | None = None

    def pull(self, mine: Tensor, other: Tensor | None, d: Values) -> Tensor:
        """Return the gradient for y, given those for the two alignments."""
        d_intra, d_inter = d
        if self.own is None or self.cross is None or other is None or d_inter is None:
            return (cast(Tensor, self.intra) * cast(Tensor, d_intra)) @ mine
        own = self.own * d_inter
        if self.intra is not None and d_intra is not None:
            own.addcmul_(self.intra, d_intra)
        grad = (own @ mine).add_((self.cross * d_inter) @ other)
        return grad if self.column is None else grad.addcmul_(self.column, d_inter)


class FusedAlignment(Function):
    """Intra and inter alignment of x and y; the one that is not wanted is None."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, scaled: bool, want: tuple[bool, bool]) -> Values:
        """Return the values; `want` is (intra, inter), `scaled` divides Gram rows by the lengths of items."""
        values, slope_x, slope_y = (_scaled if scaled else _plain)(x, y, want, ctx.needs_input_grad)
        keep_x, keep_y = (need or want[1] for need in ctx.needs_input_grad[:2])
        ctx.save_for_backward(x if keep_x else None, y if keep_y else None, *slope_x, *slope_y)
        intra, inter = values
        if x.ndim == 2:
            return values
        return None if intra is None else intra[..., 0, 0], None if inter is None else inter[..., 0, 0]

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, d_intra: Tensor | None, d_inter: Tensor | None
    ) -> tuple[Tensor | None, Tensor | None, None, None]:
        """Pull the gradients of both values back to x and y."""
        x, y, *slopes = ctx.saved_tensors
        some = x if y is None else y
        d = d_intra, d_inter
        if some.ndim > 2:
            d = None if d_intra is None else _wide(d_intra), None if d_inter is None else _wide(d_inter)
        with full_precision(some.device):
            dx = Slope(*slopes[:4]).pull(x, y, d) if ctx.needs_input_grad[0] else None
            dy = Slope(*slopes[4:]).pull(y, x, d) if ctx.needs_input_grad[1] else None
        return dx, dy, None, None


# ---- plain Grams: intra = <K, L> / (‖K‖ ‖L‖), inter = <M, M> / (‖K‖ ‖L‖) ----


def _plain(x: Tensor, y: Tensor, want: Sequence[bool], need: Sequence[bool]) -> tuple[Values, Slope, Slope]:
    return from_products((x @ x.mT, y @ y.mT), x @ y.mT if want[1] else None, want[0], need)


def from_products(grams: Both, cross: Tensor | None, intra: bool, need: Sequence[bool]) -> tuple[Values, Slope, Slope]:
    """Return the alignments and their slopes for x and y from K, L and M, which are used up.

    Args:
        grams: K = x xᵀ and L = y yᵀ, (..., n, n) and (..., m, m).
        cross: M = x yᵀ, for inter; None leaves it out.
        intra: whether intra is wanted.
        need: for which of x and y the slopes are wanted.
    """
    (gram_x, unit_x), (gram_y, unit_y) = _unit_trace(grams[0]), _unit_trace(grams[1])
    for gram, unit in ((gram_x, unit_x), (gram_y, unit_y)):
        size = norm(gram).clamp_min_(LEAST)
        gram.div_(size)
        unit.div_(size)
    values: Values = (dot(gram_x, gram_y) if intra else None, None)
    if cross is not None:
        cross.mul_(unit_x.sqrt()).mul_(unit_y.sqrt())
        values = values[0], dot(cross, cross)
    slope_x = slope_y = Slope()
    if need[0]:
        slope_x = _plain_slope((gram_x, gram_y), (unit_x, unit_y), cross, values)
    if need[1]:
        slope_y = _plain_slope((gram_y, gram_x), (unit_y, unit_x), None if cross is None else cross.mT, values)
    return values, slope_x, slope_y


def _plain_slope(grams: Both, units: Both, cross: Tensor | None, values: Values) -> Slope:
    """With K, L, M over their denominators: 2 (K - intra L) / ‖L‖; -2 inter L / ‖L‖, 2 Mᵀ / √(‖K‖ ‖L‖)."""
    own, other = grams
    intra, inter = values
    twice = units[0] * 2.0
    direct = None
    if intra is not None:
        direct = torch.addcmul(other, own, intra, value=-1.0).mul_(twice)
    if cross is None or inter is None:
        return Slope(direct)
    root = units[0].sqrt() * units[1].sqrt()
    return Slope(direct, own * (twice * inter).neg_(), cross * root.mul_(2.0))


# ---- scaled Grams: K_ij / ‖x_i‖, L_ij / ‖y_i‖; a row or column of zeros contributes 0 ----


def _scaled(x: Tensor, y: Tensor, want: Sequence[bool], need: Sequence[bool]) -> tuple[Values, Slope, Slope]:
    (gram_x, unit_x), (gram_y, unit_y) = _unit_trace(x @ x.mT), _unit_trace(y @ y.mT)
    intra = inter = None
    slope_x = slope_y = Slope()
    if want[0]:
        one, two = _Rows.of(gram_x, unit_x), _Rows.of(gram_y, unit_y)
        intra = dot(one.kernel, two.kernel)
        slope_x = Slope(one.slope(two, intra)) if need[0] else slope_x
        slope_y = Slope(two.slope(one, intra)) if need[1] else slope_y
    if want[1]:
        left, right = _Columns.of(x, gram_x, unit_x), _Columns.of(y, gram_y, unit_y)
        cross = (x @ y.mT).mul_(unit_x.sqrt()).mul_(unit_y.sqrt())
        outer = left.unit_columns @ right.unit_columns.mT
        inter = dot(cross, outer) * (left.weight * right.weight)
        slope_x = left.slope(right, (cross, outer), inter, slope_x) if need[0] else slope_x
        slope_y = right.slope(left, (cross.mT, outer.mT), inter, slope_y) if need[1] else slope_y
    return (intra, inter), slope_x, slope_y


class _Rows(NamedTuple):
    """One side of intra: `kernel` is the row-scaled Gram, divided by `size`, its norm.

    It was made from a Gram of trace 1, 1 / `unit` times the true one; `root` is 1 / √diagonal, (..., n, 1).
    """

    kernel: Tensor
    root: Tensor
    size: Tensor
    unit: Tensor

    @classmethod
    def of(cls, gram: Tensor, unit: Tensor) -> _Rows:
        root = _inverse_root(gram.diagonal(0, -2, -1)).unsqueeze(-1)
        kernel = gram * root
        size = norm(kernel).clamp_min_(LEAST)
        return cls(kernel.div_(size), root, size, unit)

    def slope(self, other: _Rows, intra: Tensor) -> Tensor:
        """Return S + Sᵀ for the slope S of intra in the own Gram, with what goes through its diagonal."""
        slope = torch.addcmul(other.kernel, self.kernel, intra, value=-1.0)
        through = (slope * self.kernel).sum(-1, keepdim=True)
        slope.mul_(self.root / self.size)
        slope.diagonal(0, -2, -1).unsqueeze(-1).addcmul_(through, self.root.square(), value=-0.5)
        return (slope + slope.mT).mul_(self.unit)


class _Columns(NamedTuple):
    """One side of inter = <M, X Yᵀ> / √(<K, X Xᵀ> <L, Y Yᵀ>), where X, Y are x, y with columns of length 1.

    `inverse` is 1 / the columns' lengths; `outer` = X Xᵀ; `weight` = 1 / √<gram, outer>; `gram` has trace 1
    and is `unit` times the true one.
    """

    unit_columns: Tensor
    inverse: Tensor
    gram: Tensor
    outer: Tensor
    weight: Tensor
    unit: Tensor

    @classmethod
    def of(cls, x: Tensor, gram: Tensor, unit: Tensor) -> _Columns:
        inverse = _inverse_root(x.square().sum(-2, keepdim=True))
        columns = x * inverse
        outer = columns @ columns.mT
        return cls(columns, inverse, gram, outer, dot(gram, outer).clamp_min_(LEAST).rsqrt_(), unit)

    def slope(self, other: _Columns, crosses: Both, inter: Tensor, intra: Slope) -> Slope:
        """Return `intra` and the slope of inter: through M and L, and through the lengths of columns."""
        cross, outer = crosses
        both = self.weight * other.weight
        pull = self.weight.square() * inter
        column = (cross * both) @ other.unit_columns
        column.sub_((self.gram * pull) @ self.unit_columns)
        radial = (self.unit_columns * column).sum(-2, keepdim=True)
        column.addcmul_(self.unit_columns, radial, value=-1.0).mul_(self.inverse)
        own = self.outer * (pull * self.unit).neg_()
        return Slope(intra.intra, own, outer * (both * self.unit.sqrt() * other.unit.sqrt()), column)


def _unit_trace(gram: Tensor) -> Both:
    """Return a Gram divided by its trace, in place, and 1 / its trace."""
    trace = gram.trace() if gram.ndim == 2 else _wide(gram.diagonal(0, -2, -1).sum(-1))
    unit = trace.clamp_min_(SMALLEST).reciprocal_()
    return gram.mul_(unit), unit


def _inverse_root(squared: Tensor) -> Tensor:
    """Return 1 / √squared, and 0 where it is 0 (no gradient is taken through here)."""
    return squared.rsqrt().nan_to_num_(nan=torch.nan, posinf=0.0)


def _wide(number: Tensor) -> Tensor:
    return number[..., None, None]
