"""HSIC: how much two sets of relations covary, biased and unbiased, in Gram or in feature space."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from tutelage.similarity.checks import as_rows, one_of, same_items
from tutelage.similarity.gram import (
    Factor,
    dot,
    full_precision,
    gram_is_cheaper,
    h_centred,
    kernel_dot,
    norm,
    product,
    u_centred,
)
from tutelage.similarity.kernels import LINEAR, KernelFunction

CANCELLED = 1e-8  # <U, U> / <K, K> below it has lost half of its digits in the feature form


def hsic(x: Tensor, y: Tensor, *, kernel: KernelFunction = LINEAR, estimator: str = "unbiased") -> Tensor:
    """Return the Hilbert-Schmidt independence criterion of two representations of the same n items.

        biased    HSIC₀ = <HKH, HLH> / (n - 1)²            H = I - 11ᵀ/n
        unbiased  HSIC₁ = <U(K), U(L)> / (n (n - 3))       U(K)_ij = K̃_ij - r_i - r_j,  U(K)_ii = 0

    K̃ is K without its diagonal, r_i = Σ_j K̃_ij/(n - 2) - ΣΣK̃/(2 (n - 1)(n - 2)). HSIC₁ may truly be negative
    and is never clamped; HSIC₁ of a side with itself is not.

    Source: A. Gretton et al., ALT 2005 (biased); L. Song et al., JMLR 2012, equation 5 (unbiased), in the
    U-centred form of google-research/google-research@30adf0e
    `do_wide_and_deep_networks_learn_the_same_things/efficient_CKA.py`.

    >>> import torch
    >>> x = torch.tensor([[0.0], [1.0], [2.0], [3.0]])
    >>> round(hsic(x, x, estimator="biased").item(), 4), round(hsic(x, x).item(), 4)
    (2.7778, 2.1667)

    Args:
        x: (n, ...), floating; further dimensions are flattened.
        y: (n, ...), the same items in the same order.
        kernel: `LinearKernel()`, `CosineKernel()` or `RBFKernel(t, median)`.
        estimator: `"unbiased"` or `"biased"`.

    Returns:
        0-d float64, differentiable; 0 for constant features.

    Raises:
        UserError: n differs or is below 2 (4 if unbiased); 1-D, empty, integer, NaN or infinite features.
    """
    one_of(estimator, ("biased", "unbiased"), "the estimator of hsic")
    unbiased = estimator == "unbiased"
    x, y = two_sides(x, y, 4 if unbiased else 2)
    n = len(x)
    with full_precision(x.device):
        dots = centred_dots(x, y, kernel, unbiased)
        return dots.xy * dots.size / (n * (n - 3) if unbiased else (n - 1) ** 2)


def two_sides(x: Tensor, y: Tensor, least: int) -> tuple[Tensor, Tensor]:
    """Return both sides as finite float64 rows of the same items, on the device of x."""
    one, two = as_rows(x, "x", least), as_rows(y, "y", least)
    same_items(one, two)
    return one, two


class Dots(NamedTuple):
    """Products of centred kernel matrices: <K, L>, <K, K>, <L, L>, each side divided by a detached size of its own.

    Attributes:
        xy, xx, yy: 0-d; xx is 0 where the kernel matrix of x is constant or nothing but rounding noise.
        size: the two sizes multiplied: `xy * size` is the true <K, L>.
    """

    xy: Tensor
    xx: Tensor
    yy: Tensor
    size: Tensor


def centred_dots(x: Tensor, y: Tensor, kernel: KernelFunction, debiased: bool) -> Dots:
    """Return the products of both centred kernel matrices, in the cheaper space.

    Feature space is left where the debiased form has cancelled, which a single far row can bring about.

    Args:
        x: (n, p), float64.
        y: (n, q), float64.
        kernel: the kernel of both sides.
        debiased: U-centre instead of centring.
    """
    one, two = kernel.factor(x), kernel.factor(y)
    if one is None or two is None:
        centre = u_centred if debiased else h_centred
        k, l = centre(kernel.shifted(x)), centre(kernel.shifted(y))  # noqa: E741 - the kernels' names
        return Dots(dot(k, l), dot(k, k), dot(l, l), k.new_ones(()))
    size = (_size(one) * _size(two)).square()
    if not gram_is_cheaper(len(x), (one.data.shape[1], two.data.shape[1])):
        left, right = (one, one), (two, two)
        own = kernel_dot(left, left, debiased), kernel_dot(right, right, debiased)
        found = Dots(kernel_dot(left, right, debiased), *own, size)
        if not debiased or bool((found.xx > CANCELLED) & (found.yy > CANCELLED)):
            return found
    k, l = product(one, one), product(two, two)  # noqa: E741
    if debiased:
        k, l = u_centred(k), u_centred(l)  # noqa: E741
    return Dots(dot(k, l), dot(k, k), dot(l, l), size)


def _size(side: Factor) -> Tensor:
    """Return 1 / unit, and 0 where the unit is 0."""
    return norm(side.data.detach()) * (side.unit > 0)[0, 0]
