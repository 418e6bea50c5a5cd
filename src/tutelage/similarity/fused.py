"""Uncentred alignment with its gradient written out: few operators, and one product where autograd needs two.

At the batch sizes of training this loss costs as much as its operators are many, so the slopes with respect to the Gram
matrices are formed beside the values. `alignment.py` has the same formulas in plain autograd; the tests compare the two.

Here x is (..., n, p) and y is (..., m, q), n and m being the shorter sides; K = x xᵀ, L = y yᵀ, M = x yᵀ. "Intra" is the
alignment between rows (n = m), "inter" the one between columns (p = q). Sizes are divided out as they arise: each Gram by its
trace, which also bounds its later norm from below, so that an all-zero input gives 0 and never 0 / 0. Numbers per matrix are
0-d without leading dimensions and (..., 1, 1) with them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.linalg import vector_norm

from tutelage.similarity.gram import full_precision

Values = tuple[Tensor | None, Tensor | None]
Want = tuple[bool, bool]


class Slope(NamedTuple):
    """Derivatives for one side y: d intra = `intra` @ y, and d inter = `own` @ y + `cross` @ x + `column`.

    `intra` and `own` are symmetric (m, m), `cross` is (m, n), and `column` is (m, q), 0 unless rows are scaled.
    """

    intra: Tensor | None = None
    own: Tensor | None = None
    cross: Tensor | None = None
    column: Tensor | None = None

    def pull(self, mine: Tensor, other: Tensor, d_intra: Tensor | None, d_inter: Tensor | None) -> Tensor:
        """Return the gradient for y, given those for the two alignments."""
        if self.own is None or self.cross is None or d_inter is None:
            assert self.intra is not None
            return (self.intra * d_intra) @ mine
        own = self.own * d_inter
        if self.intra is not None and d_intra is not None:
            own.addcmul_(self.intra, d_intra)
        grad = (own @ mine).add_((self.cross * d_inter) @ other)
        return grad if self.column is None else grad.addcmul_(self.column, d_inter)


class FusedAlignment(Function):
    """Intra and inter alignment of x and y; the one that is not wanted is None."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, rows: bool, want: Want) -> Values:
        values, slope_x, slope_y = (_rows if rows else _plain)(x, y, want, ctx.needs_input_grad)
        ctx.save_for_backward(x, y, *slope_x, *slope_y)
        return values if x.ndim == 2 else tuple(v if v is None else v[..., 0, 0] for v in values)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *d: Tensor | None) -> tuple[Tensor | None, ...]:
        x, y, *slopes = ctx.saved_tensors
        if x.ndim > 2:
            d = tuple(v if v is None else v[..., None, None] for v in d)
        with full_precision(x.device):
            dx = Slope(*slopes[:4]).pull(x, y, *d) if ctx.needs_input_grad[0] else None
            dy = Slope(*slopes[4:]).pull(y, x, *d) if ctx.needs_input_grad[1] else None
        return dx, dy, None, None


# ---- plain Grams: intra = <K, L> / (‖K‖ ‖L‖), inter = <M, M> / (‖K‖ ‖L‖) --------------------------------------------


def _plain(x: Tensor, y: Tensor, want: Want, need: Sequence[bool]) -> tuple[Values, Slope, Slope]:
    k, unit_x = _gram(x)
    l, unit_y = _gram(y)
    for gram, unit in ((k, unit_x), (l, unit_y)):
        size = _norm(gram)
        gram.div_(size)
        unit.div_(size)
    intra = _dot(k, l) if want[0] else None
    inter = m = None
    if want[1]:
        m = (x @ y.mT).mul_(unit_x.sqrt()).mul_(unit_y.sqrt())
        inter = _dot(m, m)
    values = intra, inter
    slope_x = _plain_slope((k, l), (unit_x, unit_y), m, values) if need[0] else Slope()
    slope_y = _plain_slope((l, k), (unit_y, unit_x), m if m is None else m.mT, values) if need[1] else Slope()
    return values, slope_x, slope_y


def _plain_slope(grams: tuple[Tensor, Tensor], units: tuple[Tensor, Tensor], m: Tensor | None, values: Values) -> Slope:
    """With K, L, M over their denominators: 2 (K - intra L) / ‖L‖; -2 inter L / ‖L‖ and 2 Mᵀ / √(‖K‖ ‖L‖)."""
    own, other = grams
    intra, inter = values
    twice = units[0] * 2.0
    direct = None if intra is None else torch.addcmul(other, own, intra, value=-1.0).mul_(twice)
    if m is None or inter is None:
        return Slope(direct)
    return Slope(direct, own * (twice * inter).neg_(), m * (units[0].sqrt() * units[1].sqrt()).mul_(2.0))


# ---- row-scaled Grams: K_ij / ‖x_i‖, L_ij / ‖y_i‖; a row or column of zeros contributes 0 ----------------------------


def _rows(x: Tensor, y: Tensor, want: Want, need: Sequence[bool]) -> tuple[Values, Slope, Slope]:
    (k, unit_x), (l, unit_y) = _gram(x), _gram(y)
    intra = inter = None
    slopes = [Slope(), Slope()]
    if want[0]:
        rows = _RowScaled.of(k, unit_x), _RowScaled.of(l, unit_y)
        intra = _dot(rows[0].kernel, rows[1].kernel)
        slopes = [Slope(a.slope(b, intra)) if n else Slope() for n, a, b in zip(need, rows, rows[::-1], strict=False)]
    if want[1]:
        m = (x @ y.mT).mul_(unit_x.sqrt()).mul_(unit_y.sqrt())
        one, two = _ColumnScaled.of(x, k, unit_x), _ColumnScaled.of(y, l, unit_y)
        outer = one.columns @ two.columns.mT
        inter = _dot(m, outer) * (one.weight * two.weight)
        if need[0]:
            slopes[0] = one.slope(two, (m, outer), inter, slopes[0].intra)
        if need[1]:
            slopes[1] = two.slope(one, (m.mT, outer.mT), inter, slopes[1].intra)
    return (intra, inter), slopes[0], slopes[1]


class _RowScaled(NamedTuple):
    """One side of intra: the row-scaled Gram `kernel` with norm 1, made from a Gram of trace 1 = its former trace · `unit`.

    `root` (..., n, 1) is 1 / √diagonal of the latter, `size` the norm that was divided out.
    """

    kernel: Tensor
    root: Tensor
    size: Tensor
    unit: Tensor

    @classmethod
    def of(cls, gram: Tensor, unit: Tensor) -> _RowScaled:
        root = _inverse_root(gram.diagonal(0, -2, -1)).unsqueeze(-1)
        kernel = gram * root
        size = _norm(kernel)
        return cls(kernel.div_(size), root, size, unit)

    def slope(self, other: _RowScaled, intra: Tensor) -> Tensor:
        """Return S + Sᵀ for the slope S of intra with respect to the own Gram, its diagonal under the root included."""
        slope = torch.addcmul(other.kernel, self.kernel, intra, value=-1.0)
        through = (slope * self.kernel).sum(-1, keepdim=True)
        slope.mul_(self.root / self.size)
        slope.diagonal(0, -2, -1).unsqueeze(-1).addcmul_(through, self.root.square(), value=-0.5)
        return (slope + slope.mT).mul_(self.unit)


class _ColumnScaled(NamedTuple):
    """One side of inter: `columns` = y with columns of length 1, `per` = 1 / their lengths, beside `gram` of trace 1.

    `outer` = columns columnsᵀ, and `weight` = 1 / √<gram, outer>.
    """

    columns: Tensor
    per: Tensor
    gram: Tensor
    outer: Tensor
    weight: Tensor
    unit: Tensor

    @classmethod
    def of(cls, x: Tensor, gram: Tensor, unit: Tensor) -> _ColumnScaled:
        per = _inverse_root(x.square().sum(-2, keepdim=True))
        columns = x * per
        outer = columns @ columns.mT
        return cls(columns, per, gram, outer, _dot(gram, outer).clamp_min_(_LEAST).rsqrt_(), unit)

    def slope(self, other: _ColumnScaled, cross: tuple[Tensor, Tensor], inter: Tensor, intra: Tensor | None) -> Slope:
        """Return the slope of inter = <M, outer> · weights, through M and L, and through the column lengths."""
        m, outer = cross
        both = self.weight * other.weight
        pull = self.weight.square() * inter
        column = (m * both) @ other.columns
        column.sub_((self.gram * pull) @ self.columns)
        column.addcmul_(self.columns, (self.columns * column).sum(-2, keepdim=True), value=-1.0).mul_(self.per)
        own = self.outer * (pull * self.unit).neg_()
        return Slope(intra, own, outer * (both * self.unit.sqrt() * other.unit.sqrt()), column)


# ---- small parts -----------------------------------------------------------------------------------------------------

_LEAST = 1e-6  # below what a norm can be once the trace is 1


def _gram(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return x xᵀ divided by its trace, and 1 / its trace."""
    gram = x @ x.mT
    unit = _trace(gram).clamp_min_(torch.finfo(x.dtype).tiny).reciprocal_()
    return gram.mul_(unit), unit


def _trace(k: Tensor) -> Tensor:
    return k.trace() if k.ndim == 2 else k.diagonal(0, -2, -1).sum(-1)[..., None, None]


def _norm(k: Tensor) -> Tensor:
    norm = vector_norm(k) if k.ndim == 2 else vector_norm(k, dim=(-2, -1), keepdim=True)
    return norm.clamp_min_(_LEAST)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    if a.ndim == 2:
        return torch.dot(a.view(-1), b.view(-1))
    return (a * b).sum((-2, -1), keepdim=True)


def _inverse_root(squared: Tensor) -> Tensor:
    """Return 1 / √squared, and 0 where it is 0 (no gradient is taken through here)."""
    return squared.rsqrt().nan_to_num_(nan=torch.nan, posinf=0.0)
