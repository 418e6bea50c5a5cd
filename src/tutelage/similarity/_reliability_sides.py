"""Reliability reports of many pairs of layers: the work of one side is done once, not per pair.

What a report looks at is in (n, n) kernel matrices. A `ReliabilitySide` holds those of one layer,
and a report of two sides takes a few passes over them: at n = 256 about 0.5 ms of one core, and
3 ms a side, where `reliability_report` takes 80 ms.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from tutelage.core.precision import full_precision
from tutelage.errors import UserError
from tutelage.similarity._all_pairs import u_center_
from tutelage.similarity._checks import as_rows, varies
from tutelage.similarity._cka_without_rows import cka_without_rows
from tutelage.similarity._gram import centered, h_center_, inverse, product
from tutelage.similarity._products import sum_dtype
from tutelage.similarity._reliability_report import (
    ReliabilityReport,
    undefined_report,
    with_verdict,
)
from tutelage.similarity._weakest_subset import Translation, weakest_row
from tutelage.similarity.reliability import BANDWIDTHS, MAX_RBF_ROWS, num_top_rows


@dataclass(frozen=True)
class ReliabilitySide:
    """One side of reliability reports.

    Attributes:
        n: items.
        dims: columns.
        varies: whether the items differ; if not, the kernels are zeros.
        kernel: (n, n), centered, of trace 1.
        row_norms: (n,), the squared norms of its rows.
        u_kernel: (n, n), U-centered, of norm 1; NaN if all pairs are equally alike.
        rbf: (bandwidths, m²), centered RBF kernels of norm 1 in float32, of evenly spaced rows if n
            is large.
        effective: the participation ratio.
        sensitivity: the row whose translation lowers CKA most.
    """

    n: int
    dims: int
    varies: bool
    kernel: Tensor
    row_norms: Tensor
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
        with full_precision(rows.device):
            if not varies(x):
                rows = torch.zeros_like(rows)
            side = centered(rows)
            return cls._of_kernel(product(side, side), rows.shape[1], torch.finfo(rows.dtype).eps)

    @classmethod
    def of_gram(cls, gram: Tensor) -> ReliabilitySide:
        """Return the side of a layer's Gram matrix by `gram_of`, as if of n columns.

        Args:
            gram: (n, n), K or HKH.

        Raises:
            UserError: As `reliability_report`.
        """
        if len(gram) < 4:
            raise UserError(f"a layer has {len(gram)} rows, but at least 4 are needed")
        trace = gram.trace()
        with full_precision(gram.device):
            # Divided twice, since only the trace of the centered kernel is to be 1.
            k = gram.to(sum_dtype(gram.device)) / (trace if trace > 0 else 1.0)
            h_center_(k)
            k *= inverse(k.trace())
            return cls._of_kernel(k, len(k), torch.finfo(gram.dtype).eps)

    @classmethod
    def _of_kernel(cls, kernel: Tensor, dims: int, noise: float) -> ReliabilitySide:
        """Return the side of a centered kernel of trace 1, or of zeros.

        Args:
            kernel: (n, n), float64.
            dims: columns of the features.
            noise: relative rounding of the kernel.
        """
        n = len(kernel)
        row_norms = kernel.square().sum(1)
        squared_norm = row_norms.sum()
        if not squared_norm > 0:
            none = kernel.new_empty(0)
            return cls(n, dims, False, kernel, row_norms, none, none, math.nan, None)
        u_kernel = u_center_(kernel.clone()[None], kernel.new_tensor([noise]))[0]
        step = -(-n // MAX_RBF_ROWS)
        return cls(
            n=n,
            dims=dims,
            varies=True,
            kernel=kernel,
            row_norms=row_norms,
            u_kernel=u_kernel / u_kernel.norm(),
            rbf=_rbf_kernels(kernel[::step, ::step], noise),
            effective=1.0 / float(squared_norm),  # for a kernel of trace 1
            sensitivity=weakest_row(kernel.diagonal(), squared_norm),
        )


def _rbf_kernels(kernel: Tensor, noise: float) -> Tensor:
    """Return centered RBF kernels of norm 1, (bandwidths, n²), of rows with a linear kernel.

    As by `RBFKernel(t, "nonzero")`; distances that are only rounding are 0.
    """
    lengths = kernel.diagonal()
    sums = lengths[:, None] + lengths
    distances = torch.sub(sums, kernel, alpha=2)
    distances.masked_fill_(distances <= sums.mul_(8 * noise), 0.0)
    # In float32 and in place: what takes time is to fill memory, and to read it for each pair.
    exponent = distances.float()
    # Half of the matrix has the same lower median as all of it.
    positive = exponent[(exponent > 0).triu_(1)]
    exponent /= -2 * positive.median()
    kernels = exponent.new_empty(len(BANDWIDTHS), *exponent.shape)
    for t, k in zip(BANDWIDTHS, kernels, strict=True):
        torch.mul(exponent, t**-2, out=k).exp_()
        h_center_(k)
        # In float64: summed in float32, the norm of n² numbers is off by 1e-6 on some processors.
        k /= torch.linalg.vector_norm(k, dtype=torch.float64)
    return kernels.flatten(1)


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
    row_norms = (x.kernel * y.kernel).sum(1)
    total = float(row_norms.sum())
    # The participation ratio is 1 / ‖K‖² for a kernel of trace 1.
    biased = total * math.sqrt(x.effective * y.effective)
    shares = row_norms / total if total > 0 else torch.full_like(row_norms, math.nan)
    order = shares.abs().argsort(descending=True)
    top = num_top_rows(n, None)
    top_rows = order[:top]
    all_row_norms = torch.stack([row_norms, x.row_norms, y.row_norms])
    without_top = cka_without_rows(x.kernel, y.kernel, all_row_norms, order, top)
    debiased = float(torch.dot(x.u_kernel.flatten(), y.u_kernel.flatten()))
    # `sum` adds in pairs; the float32 sum of `torch.dot` is off by 1e-6 on some processors.
    rbf = (x.rbf * y.rbf).sum(1).tolist()
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
