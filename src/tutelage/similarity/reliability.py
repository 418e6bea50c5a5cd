"""Diagnostics of a CKA value: bias, leverage of rows, kernels, sensitivity, and a verdict."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from tutelage.core.precision import full_precision
from tutelage.errors import UserError
from tutelage.similarity._checks import (
    SimilarityWarning,
    check_tensors,
    varies,
    warn_undefined,
)
from tutelage.similarity._gram import gram_is_cheaper
from tutelage.similarity._reliability_report import (
    ReliabilityReport,
    undefined_report,
    with_verdict,
)
from tutelage.similarity._weakest_subset import weakest_subset
from tutelage.similarity.cka import cka, expected_cka_by_chance, participation_ratio
from tutelage.similarity.hsic import paired_rows
from tutelage.similarity.kernels import RBFKernel

__all__ = ["ReliabilityReport", "reliability_report", "row_shares"]

BANDWIDTHS = (0.2, 0.5, 1.0)
MAX_RBF_ROWS = 2048  # RBF kernels are n × n matrices


def reliability_report(
    x: Tensor, y: Tensor, *, top: int | None = None, labels: Tensor | None = None
) -> ReliabilityReport:
    """Return what a CKA of x and y rests on, and whether to trust it.

    The report looks at:

    - the bias: rows against effective dimensions, chance level, biased against debiased;
    - the leverage of single rows: their shares (`row_shares`), and CKA without the largest;
    - the spread that so few rows leave;
    - the RBF kernel against the linear one;
    - how far moving a group of rows brings CKA down (`weakest_subset`).

    Source: diagnostics derived for this library from M. Davari et al., ICLR 2023; the limits of the
    verdicts are ours, see the constants of `_reliability_report.py`.

    >>> torch.manual_seed(0)
    <torch._C.Generator object at ...>
    >>> x = torch.randn(256, 32)
    >>> reliability_report(x, x @ torch.randn(32, 8)).verdict
    'trust'
    >>> x, y = torch.randn(2, 256, 32)
    >>> x[:9], y[:9] = x[:9] + 30, y[:9] + 30
    >>> report = reliability_report(x, y)
    >>> report.verdict, report.debiased > 0.9, report.without_top < 0.1
    ('do not trust', True, True)

    Args:
        x: (n, ...), floating; further dimensions are flattened.
        y: (n, ...), the same items in the same order.
        top: how many rows to leave out; None takes 5 or 5 % of n, the larger, but at most a quarter
            of n.
        labels: (n,), integers: groups of rows that may move together; None moves single rows.

    Returns:
        A `ReliabilityReport` of plain numbers; NaN where a side does not vary, and the verdict says
        so.

    Raises:
        UserError: If n differs or is below 4, if features are 1-D, empty, integer, NaN or infinite,
            or if `top` is negative.
    """
    check_tensors("a reliability report", x, y)
    rows_x, rows_y = paired_rows(x.detach(), y.detach(), 4)
    n = len(rows_x)
    if top is not None and (isinstance(top, bool) or not isinstance(top, int) or top < 0):
        raise UserError(f"top is how many rows to leave out, 0 or more, or None; got {top!r}")
    dims = rows_x.shape[1], rows_y.shape[1]
    constant_sides = [name for name, side in (("x", x), ("y", y)) if not varies(side)]
    if constant_sides:
        return undefined_report(n, dims, constant_sides)
    with warnings.catch_warnings():
        # What is undefined becomes a reason of the report.
        warnings.simplefilter("ignore", SimilarityWarning)
        biased = float(cka(rows_x, rows_y, estimator="biased"))
        debiased = float(cka(rows_x, rows_y))
        shares = row_shares(rows_x, rows_y)
        top = num_top_rows(n, top)
        top_rows = shares.abs().argsort(descending=True)[:top]
        rest = torch.ones(n, dtype=torch.bool, device=shares.device)
        rest = rest.index_fill(0, top_rows, False)
        report = ReliabilityReport(
            n=n,
            dims=dims,
            effective=(float(participation_ratio(rows_x)), float(participation_ratio(rows_y))),
            biased=biased,
            chance=float(expected_cka_by_chance(rows_x, rows_y)),
            debiased=debiased,
            gap=biased - debiased,
            rbf=_rbf(rows_x, rows_y),
            shares=tuple(zip(top_rows.tolist(), shares[top_rows].tolist(), strict=True)),
            without_top=float(cka(rows_x[rest], rows_y[rest])),
            without_top_biased=float(cka(rows_x[rest], rows_y[rest], estimator="biased")),
            sensitivity=(weakest_subset(rows_x, labels), weakest_subset(rows_y, labels)),
            verdict="",
            reasons=(),
        )
    return with_verdict(report)


def num_top_rows(n: int, top: int | None) -> int:
    """Return how many of n rows are left out.

    >>> num_top_rows(256, None), num_top_rows(8, 100)
    (12, 4)
    """
    top = min(max(5, n // 20), n // 4) if top is None else top
    return min(top, n - 4)  # the debiased CKA needs 4 rows


def row_shares(x: Tensor, y: Tensor) -> Tensor:
    """Return each row's share of the biased CKA; the shares sum to 1.

        r_i = x_iᵀ (XcᵀYc) y_i / ‖XcᵀYc‖²      with centered rows

    >>> x = torch.tensor([[1.0], [-1.0], [0.0]])
    >>> row_shares(x, x).tolist()
    [0.5, 0.5, 0.0]

    Args:
        x: (n, ...), floating.
        y: (n, ...), the same items.

    Returns:
        (n,) float64; 1/n each would be even. NaN with a warning where the biased CKA is 0 or
        undefined.

    Raises:
        UserError: As `cka` with the biased estimator.
    """
    rows_x, rows_y = paired_rows(x, y, 2)
    with full_precision(rows_x.device):
        rows_x = rows_x - rows_x.mean(0)
        rows_y = rows_y - rows_y.mean(0)
        # ‖XcᵀYc‖² = <K, L>, whose row sums are the shares too.
        if gram_is_cheaper(len(rows_x), (rows_x.shape[1], rows_y.shape[1])):
            shares = ((rows_x @ rows_x.mT) * (rows_y @ rows_y.mT)).sum(1)
        else:
            shares = ((rows_x @ (rows_x.mT @ rows_y)) * rows_y).sum(1)
        total = shares.sum()
        if not bool(total > 0):
            # The sum is ‖XcᵀYc‖²: 0 if a side is constant, or if nothing of them covaries.
            warn_undefined("the share of a row", ["x and y together"])
            return torch.full_like(shares, float("nan"))
        return shares / total


def _rbf(x: Tensor, y: Tensor) -> dict[float, float]:
    """Return the biased RBF CKA by bandwidth, from evenly spaced rows if there are many."""
    step = -(-len(x) // MAX_RBF_ROWS)
    x, y = x[::step], y[::step]
    values = {}
    for t in BANDWIDTHS:
        values[t] = float(cka(x, y, kernel=RBFKernel(t, "nonzero"), estimator="biased"))
    return values
