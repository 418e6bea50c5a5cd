"""Reliability reports of many pairs of layers: the work of one side is done once, not per pair.

What a report looks at is in (n, n) kernel matrices. A `ReliabilitySide` holds those of one layer,
and a report of two sides takes a few passes over them: at n = 256 about 1 ms of one core, where
`reliability_report` takes 80 ms.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tutelage.core.precision import full_precision
from tutelage.similarity._checks import as_rows, varies
from tutelage.similarity._gram import centered, h_centered, product, u_centered
from tutelage.similarity._reliability_report import (
    ReliabilityReport,
    undefined_report,
    with_verdict,
)
from tutelage.similarity._u_products import min_remainder
from tutelage.similarity._weakest_subset import Translation, weakest_subset
from tutelage.similarity.cka import participation_ratio
from tutelage.similarity.kernels import RBFKernel
from tutelage.similarity.reliability import BANDWIDTHS, MAX_RBF_ROWS, num_top_rows


@dataclass(frozen=True)
class ReliabilitySide:
    """One side of reliability reports.

    Attributes:
        n: items.
        dims: columns.
        varies: whether the items differ; if not, the rest is empty.
        kernel: (n, n), of the centered features of norm 1.
        size: the norm of `kernel`.
        u_kernel: (n, n), U-centered, of norm 1; zeros if all pairs are equally alike.
        rbf: (bandwidths, m²), centered RBF kernels of norm 1, of evenly spaced rows if n is large.
        effective: the participation ratio.
        sensitivity: the row whose translation lowers CKA most.
    """

    n: int
    dims: int
    varies: bool
    kernel: Tensor
    size: float
    u_kernel: Tensor
    rbf: Tensor
    effective: float
    sensitivity: Translation | None

    @classmethod
    def of(cls, x: Tensor) -> ReliabilitySide:
        """Return the side of features (n, ...), without gradient.

        Raises:
            UserError: As `reliability_report`.
        """
        rows = as_rows(x.detach(), "x", 4)
        n, dims = rows.shape
        none = rows.new_empty(0)
        if not varies(x):
            return cls(n, dims, False, none, math.nan, none, none, math.nan, None)
        with full_precision(rows.device):
            side = centered(rows)
            kernel = product(side, side)
            u_kernel = _unit(u_centered(kernel))
            spaced = rows[:: -(-n // MAX_RBF_ROWS)]
            kernels = [RBFKernel(t, "nonzero").shifted(spaced) for t in BANDWIDTHS]
            rbf = torch.stack([_unit(h_centered(k)).flatten() for k in kernels])
        return cls(
            n=n,
            dims=dims,
            varies=True,
            kernel=kernel,
            size=float(kernel.norm()),
            u_kernel=u_kernel,
            rbf=rbf,
            effective=float(participation_ratio(rows)),
            sensitivity=weakest_subset(rows),
        )


def report_of_sides(x: ReliabilitySide, y: ReliabilitySide) -> ReliabilityReport:
    """Return the `reliability_report` of two sides of the same items.

    >>> torch.manual_seed(0)
    <torch._C.Generator object at ...>
    >>> features = torch.randn(256, 32)
    >>> left, right = ReliabilitySide.of(features), ReliabilitySide.of(features[:, :16])
    >>> report_of_sides(left, right).verdict
    'trust'
    """
    n = x.n
    dims = x.dims, y.dims
    constant_sides = [name for name, side in (("x", x), ("y", y)) if not side.varies]
    if constant_sides:
        return undefined_report(n, dims, constant_sides)
    products = x.kernel * y.kernel
    row_sums = products.sum(1)
    total = float(row_sums.sum())
    biased = total / (x.size * y.size)
    debiased = _cosine(x.u_kernel, y.u_kernel)
    shares = row_sums / total if total > 0 else torch.full_like(row_sums, math.nan)
    order = shares.abs().argsort(descending=True)
    top = num_top_rows(n, None)
    without_top = _cka_of_rows(x.kernel, y.kernel, order[top:])
    top_rows = order[:top]
    rbf = [float(torch.dot(a, b)) for a, b in zip(x.rbf, y.rbf, strict=True)]
    report = ReliabilityReport(
        n=n,
        dims=dims,
        effective=(x.effective, y.effective),
        biased=biased,
        chance=math.sqrt(x.effective * y.effective) / (n - 1),
        debiased=debiased,
        gap=biased - debiased,
        rbf=dict(zip(BANDWIDTHS, rbf, strict=True)),
        shares=tuple(zip(top_rows.tolist(), shares[top_rows].tolist(), strict=True)),
        without_top=without_top[1],
        without_top_biased=without_top[0],
        sensitivity=(x.sensitivity, y.sensitivity),
        verdict="",
        reasons=(),
    )
    return with_verdict(report)


def _cka_of_rows(kernel_x: Tensor, kernel_y: Tensor, rows: Tensor) -> tuple[float, float]:
    """Return the biased and the debiased CKA of some items."""
    rows = rows.sort().values
    x = _centered_rows(kernel_x, rows)
    y = _centered_rows(kernel_y, rows)
    full = _products(x, y)
    # U-centering of a centered kernel from its diagonal alone, as `kernel_dot` does.
    n = len(rows)
    diagonal_x, diagonal_y = x.diagonal(), y.diagonal()
    diagonals = _products(diagonal_x, diagonal_y)
    sums = _products(diagonal_x.sum(), diagonal_y.sum())
    debiased = [
        product - n / (n - 2) * diagonal + total / ((n - 1) * (n - 2))
        for product, diagonal, total in zip(full, diagonals, sums, strict=True)
    ]
    least = min_remainder(x.dtype, x.numel())
    if debiased[1] <= least * full[1] or debiased[2] <= least * full[2]:
        return _ratio(full), _cosine(u_centered(x), u_centered(y))
    return _ratio(full), _ratio(debiased)


def _centered_rows(kernel: Tensor, rows: Tensor) -> Tensor:
    """Return the centered kernel of some items; zeros if only rounding is left."""
    part = kernel.index_select(0, rows).index_select(1, rows)
    rounding = 8 * torch.finfo(part.dtype).eps * float(part.trace())
    means = part.mean(1, keepdim=True)
    part.sub_(means).sub_(means.mT).add_(means.mean())
    return part if float(part.trace()) > rounding else part.zero_()


def _products(x: Tensor, y: Tensor) -> tuple[float, float, float]:
    """Return <x, y>, <x, x> and <y, y>."""
    x, y = x.flatten(), y.flatten()
    return float(torch.dot(x, y)), float(torch.dot(x, x)), float(torch.dot(y, y))


def _ratio(products: Sequence[float]) -> float:
    """Return the cosine from such products, NaN if a side is zero."""
    xy, xx, yy = products
    return xy / math.sqrt(xx * yy) if xx > 0 and yy > 0 else math.nan


def _cosine(x: Tensor, y: Tensor) -> float:
    """Return the cosine of two matrices, NaN if one is zero."""
    sizes = float(x.norm()) * float(y.norm())
    return float(torch.dot(x.flatten(), y.flatten())) / sizes if sizes > 0 else math.nan


def _unit(kernel: Tensor) -> Tensor:
    """Return a matrix of norm 1; zeros stay zeros."""
    size = kernel.norm()
    return kernel / size if bool(size > 0) else kernel
