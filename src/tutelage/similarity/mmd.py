"""MMD: how far apart two samples are, and how alignment is bounded by it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from tutelage.core.precision import full_precision
from tutelage.errors import UserError
from tutelage.similarity._checks import as_rows, check_choice, warn_undefined
from tutelage.similarity._gram import centered, dot, factor, norm, product
from tutelage.similarity.hsic import paired_rows
from tutelage.similarity.kernels import LINEAR, KernelFunction


def mmd2(
    x: Tensor,
    y: Tensor,
    *,
    kernel: KernelFunction = LINEAR,
    estimator: Literal["biased", "unbiased"] = "biased",
) -> Tensor:
    """Return the squared maximum mean discrepancy between two samples of the same variables.

        biased    ΣΣ k(x, x')/n² + ΣΣ k(y, y')/m² - 2 ΣΣ k(x, y)/(n m) = ‖mean φ(x) - mean φ(y)‖²
        unbiased  the same without the pairs of an item with itself, over n (n - 1) and m (m - 1)

    With a linear kernel the biased value is ‖mean x - mean y‖². A median bandwidth is that of both
    samples together.

    Source: A. Gretton et al., JMLR 2012, equations 3 and 5.

    >>> import torch
    >>> x, y = torch.tensor([[0.0], [2.0]]), torch.tensor([[3.0], [5.0], [4.0]])
    >>> round(mmd2(x, y).item(), 4), round(mmd2(x, y, estimator="unbiased").item(), 4)
    (9.0, 7.6667)

    Args:
        x: (n, ...), floating; further dimensions are flattened.
        y: (m, ...), of the same width; its items are others.
        kernel: as in `cka`.
        estimator: `"biased"` or `"unbiased"`.

    Returns:
        0-d float64, differentiable; the unbiased value may be negative, the biased one is not.

    Raises:
        UserError: If the widths differ, if there are fewer than 1 row (2 if unbiased), or if
            features are 1-D, empty, integer, NaN or infinite.
    """
    check_choice(estimator, Literal["biased", "unbiased"], "the estimator of mmd2")
    unbiased = estimator == "unbiased"
    rows_x = as_rows(x, "x", 2 if unbiased else 1)
    rows_y = as_rows(y, "y", 2 if unbiased else 1)
    if rows_x.shape[1] != rows_y.shape[1]:
        raise UserError(
            f"x has {rows_x.shape[1]} columns, y {rows_y.shape[1]}; a discrepancy needs the same "
            "variables on both sides"
        )
    with full_precision(rows_x.device):
        pooled = torch.cat([rows_x, rows_y])
        features = kernel.features(pooled)
        if features is None:
            return _from_kernel(kernel.shifted(pooled), len(rows_x), unbiased)
        # The common mean cancels in the difference; without it the squares keep their digits.
        return _from_features(features - features.detach().mean(0), len(rows_x), unbiased)


@dataclass(frozen=True)
class AlignmentBound:
    """The result of `alignment_mmd_bound`; every field is a 0-d float64 tensor.

    Attributes:
        alignment: A, at most `bound`; exactly 1 - `constant` · `distance`.
        bound: 1 - `constant` · `gap`.
        constant: N² / 2.
        gap: (E k̂ - E l̂)², the squared MMD (linear kernel) between the two distributions of pair
            similarities.
        distance: E (k̂ - l̂)², which is at least `gap`.
    """

    alignment: Tensor
    bound: Tensor
    constant: Tensor
    gap: Tensor
    distance: Tensor


def alignment_mmd_bound(x: Tensor, y: Tensor, *, center: bool = False) -> AlignmentBound:
    """Return the alignment of x and y with its bound by an MMD (Theorem 2 of the RCKA paper).

    With k̂, l̂ the entries of the Gram matrices divided by their Frobenius norms:

        A = 1 - N²/2 · E_ij (k̂_ij - l̂_ij)²                exact
        A ≤ 1 - N²/2 · (E_ij k̂_ij - E_ij l̂_ij)²           Jensen

    The last bracket is (‖mean x‖² / ‖K‖ - ‖mean y‖² / ‖L‖)². After centering it is 0 and the bound
    reads A ≤ 1; uncentered it is loose too, so it explains the direction of the loss and does not
    replace it.

    Source: Z. Zhou et al., IJCAI 2024, Theorem 2 as relayed; the constant is derived, since the
    relayed scaling (-N E + 2) is 2, not 1, for equal Gram matrices.

    >>> import torch
    >>> result = alignment_mmd_bound(torch.eye(3), torch.ones(3, 1))
    >>> round(result.alignment.item(), 4), round(result.bound.item(), 4), result.constant.item()
    (0.5774, 0.9107, 4.5)

    Args:
        x: (N, ...), floating; further dimensions are flattened.
        y: (N, ...), the same items in the same order.
        center: center the features first (biased CKA; the bound is then 1).

    Returns:
        An `AlignmentBound`, differentiable; NaN with a warning where a side is zero (constant if
        centered).

    Raises:
        UserError: If N differs or is below 2, or if features are 1-D, empty, integer, NaN or
            infinite.
    """
    rows_x, rows_y = paired_rows(x, y, 2)
    with full_precision(rows_x.device):
        to_factor = centered if center else factor
        factor_x = to_factor(rows_x)
        factor_y = to_factor(rows_y)
        constant_sides = [
            name for name, side in (("x", factor_x), ("y", factor_y)) if not bool(side.unit > 0)
        ]
        if constant_sides:
            warn_undefined("the alignment", constant_sides)
        kernel_x = product(factor_x, factor_x)
        kernel_y = product(factor_y, factor_y)
        kernel_x = kernel_x / norm(kernel_x)
        kernel_y = kernel_y / norm(kernel_y)
        constant = kernel_x.new_full((), len(kernel_x) ** 2 / 2)
        gap = (kernel_x.mean() - kernel_y.mean()).square()
        return AlignmentBound(
            alignment=dot(kernel_x, kernel_y),
            bound=1 - constant * gap,
            constant=constant,
            gap=gap,
            distance=(kernel_x - kernel_y).square().mean(),
        )


def _from_features(features: Tensor, n: int, unbiased: bool) -> Tensor:
    x = features[:n]
    y = features[n:]
    value = (x.mean(0) - y.mean(0)).square().sum()
    if not unbiased:
        return value
    return value - (_variance_of_mean(x) + _variance_of_mean(y))


def _variance_of_mean(sample: Tensor) -> Tensor:
    """Return the variance of the mean: ‖mean‖² minus the mean product of two different items."""
    n = len(sample)
    return (sample - sample.mean(0)).square().sum() / (n * (n - 1))


def _from_kernel(k: Tensor, n: int, unbiased: bool) -> Tensor:
    """Return the value from the kernel matrix of the pooled samples, the first n of them x."""
    within_x = k[:n, :n]
    within_y = k[n:, n:]
    cross = k[:n, n:].mean()
    if not unbiased:
        return within_x.mean() + within_y.mean() - 2 * cross
    m = len(k) - n
    mean_x = (within_x.sum() - within_x.trace()) / (n * (n - 1))
    mean_y = (within_y.sum() - within_y.trace()) / (m * (m - 1))
    return mean_x + mean_y - 2 * cross
