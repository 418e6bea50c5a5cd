"""HSIC: how much two sets of relations covary, biased and unbiased, in Gram or in feature space."""

from __future__ import annotations

from typing import Literal, NamedTuple

from torch import Tensor

from tutelage.core.precision import full_precision
from tutelage.similarity._checks import as_rows, check_choice, check_same_items
from tutelage.similarity._gram import (
    Factor,
    dot,
    gram_is_cheaper,
    h_centered,
    kernel_dot,
    norm,
    product,
    u_centered,
)
from tutelage.similarity._u_products import min_remainder, u_products
from tutelage.similarity.kernels import LINEAR, KernelFunction


def hsic(
    x: Tensor,
    y: Tensor,
    *,
    kernel: KernelFunction = LINEAR,
    estimator: Literal["biased", "unbiased"] = "unbiased",
) -> Tensor:
    """Return the Hilbert-Schmidt independence criterion of two representations of the same n items.

        biased    HSIC₀ = <HKH, HLH> / (n - 1)²        H = I - 11ᵀ/n
        unbiased  HSIC₁ = <U(K), U(L)> / (n (n - 3))   U(K)_ij = K̃_ij - r_i - r_j,  U(K)_ii = 0

    where K̃ is K without its diagonal and r_i = Σ_j K̃_ij/(n - 2) - ΣΣK̃/(2 (n - 1)(n - 2)). HSIC₁ may
    truly be negative and is never clamped; HSIC₁ of a side with itself is not negative.

    Source: A. Gretton et al., ALT 2005 (biased); L. Song et al., JMLR 2012, equation 5 (unbiased),
    in the U-centered form of google-research/google-research@30adf0e
    `do_wide_and_deep_networks_learn_the_same_things/efficient_CKA.py`.

    >>> import torch
    >>> x = torch.tensor([[0.0], [1.0], [2.0], [3.0]])
    >>> round(hsic(x, x, estimator="biased").item(), 4), round(hsic(x, x).item(), 4)
    (2.7778, 2.1667)

    Args:
        x: (n, ...), floating; further dimensions are flattened.
        y: (n, ...), the same items in the same order.
        kernel: `LinearKernel()`, `CosineKernel()` or `RBFKernel(t, median)`.
        estimator: `"biased"` or `"unbiased"`.

    Returns:
        0-d float64, differentiable; 0 for constant features.

    Raises:
        UserError: If n differs or is below 2 (4 if unbiased), or if features are 1-D, empty,
            integer, NaN or infinite.
    """
    check_choice(estimator, Literal["biased", "unbiased"], "the estimator of hsic")
    unbiased = estimator == "unbiased"
    x, y = paired_rows(x, y, 4 if unbiased else 2)
    n = len(x)
    with full_precision(x.device):
        dots = centered_dots(x, y, kernel, unbiased)
        return dots.xy * dots.size / (n * (n - 3) if unbiased else (n - 1) ** 2)


def paired_rows(x: Tensor, y: Tensor, min_rows: int) -> tuple[Tensor, Tensor]:
    """Return both sides as finite float64 rows (n, d) of the same items.

    Args:
        x: (n, ...), floating.
        y: (n, ...), floating.
        min_rows: the smallest n that is accepted.

    Raises:
        UserError: As `as_rows`; also if n differs.
    """
    rows_x = as_rows(x, "x", min_rows)
    rows_y = as_rows(y, "y", min_rows)
    check_same_items(rows_x, rows_y)
    return rows_x, rows_y


class CenteredDots(NamedTuple):
    """Products of centered kernel matrices, each side divided by a detached size of its own.

    Attributes:
        xy: 0-d, <K, L>.
        xx: 0-d, <K, K>; 0 where the kernel matrix of x is constant up to rounding noise.
        yy: 0-d, <L, L>; likewise for y.
        size: both sizes multiplied: `xy * size` is the true <K, L>.
    """

    xy: Tensor
    xx: Tensor
    yy: Tensor
    size: Tensor


def centered_dots(x: Tensor, y: Tensor, kernel: KernelFunction, debiased: bool) -> CenteredDots:
    """Return the products of both centered kernel matrices, in the cheaper space.

    Args:
        x: (n, p), float64.
        y: (n, q), float64.
        kernel: the kernel of both sides.
        debiased: U-center instead of centering.
    """
    factor_x = kernel.factor(x)
    factor_y = kernel.factor(y)
    if factor_x is None or factor_y is None:
        center = u_centered if debiased else h_centered
        kernel_x = center(kernel.shifted(x))
        kernel_y = center(kernel.shifted(y))
        return _products(kernel_x, kernel_y, kernel_x.new_ones(()))
    size = (_size(factor_x) * _size(factor_y)).square()
    if not gram_is_cheaper(len(x), (factor_x.data.shape[1], factor_y.data.shape[1])):
        return _in_feature_space(factor_x, factor_y, size, debiased)
    kernel_x = product(factor_x, factor_x)
    kernel_y = product(factor_y, factor_y)
    if debiased:
        kernel_x, kernel_y = u_centered(kernel_x), u_centered(kernel_y)
    return _products(kernel_x, kernel_y, size)


def _products(kernel_x: Tensor, kernel_y: Tensor, size: Tensor) -> CenteredDots:
    return CenteredDots(
        xy=dot(kernel_x, kernel_y),
        xx=dot(kernel_x, kernel_x),
        yy=dot(kernel_y, kernel_y),
        size=size,
    )


def _in_feature_space(
    factor_x: Factor, factor_y: Factor, size: Tensor, debiased: bool
) -> CenteredDots:
    sides_x = (factor_x, factor_x)
    sides_y = (factor_y, factor_y)
    own_x = kernel_dot(sides_x, sides_x, debiased)
    own_y = kernel_dot(sides_y, sides_y, debiased)
    data = factor_x.data
    least = min_remainder(data.dtype, len(data) ** 2)
    # The debiased form subtracts the diagonal. A single far row makes that nearly all of the sum;
    # the difference then has too few digits. A constant side needs none: all its products are 0.
    alive = bool((factor_x.unit > 0) & (factor_y.unit > 0))
    enough = [own.value > least * own.full for own in (own_x, own_y)]
    if debiased and alive and not (bool(enough[0]) and bool(enough[1])):
        return CenteredDots(*u_products(sides_x, sides_y), size=size)
    xy = kernel_dot(sides_x, sides_y, debiased).value
    return CenteredDots(xy=xy, xx=own_x.value, yy=own_y.value, size=size)


def _size(side: Factor) -> Tensor:
    """Return 1 / unit, and 0 where the unit is 0."""
    return norm(side.data.detach()) * (side.unit > 0)[0, 0]
