"""CKA without a few rows, from kernel matrices of all rows: nothing is cut out of them.

With the sums k and l of the rows of K and L over the m items that are left,

    <HKH, HLH> = Σ K_ij L_ij - 2/m Σ k_i l_i + Σ k Σ l / m²      (sums over these items)

and a sum over the items that are left is that over all less that over the rows that are not. Where
such a difference has too few digits, the kernels are cut and centered again.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tutelage.similarity._gram import h_center_, u_centered
from tutelage.similarity._u_products import min_remainder

# What must remain of a squared norm: then the difference is exact to ten digits.
MIN_REST = 1e-4

Products = tuple[float, float, float]


def cka_without_rows(
    kernel_x: Tensor, kernel_y: Tensor, row_norms: Tensor, order: Tensor, top: int
) -> tuple[float, float]:
    """Return the biased and the debiased CKA without the top rows; NaN if a side is constant then.

    Args:
        kernel_x: (n, n), K, centered.
        kernel_y: (n, n), L, centered.
        row_norms: (3, n), the sums of the rows of K ∘ L, K ∘ K and L ∘ L.
        order: (n,), all rows, the top ones first.
        top: how many rows are left out; n - 4 at most.
    """
    out = order[:top]
    rest = order[top:]
    m = len(rest)
    rows_x = kernel_x[out]
    rows_y = kernel_y[out]
    # The rows of a centered kernel sum to 0.
    sums_x = -rows_x.sum(0)[rest]
    sums_y = -rows_y.sum(0)[rest]
    totals = row_norms.sum(1)
    terms = zip(
        (totals - 2 * row_norms[:, out].sum(1)).tolist(),
        _products(rows_x[:, out], rows_y[:, out]),
        _products(sums_x, sums_y),
        _products_of_sums(sums_x, sums_y),
        strict=True,
    )
    xy, xx, yy = (raw + corner - 2 / m * cross + sums / m**2 for raw, corner, cross, sums in terms)
    full = xy, xx, yy
    diagonal_x = kernel_x.diagonal()[rest] - 2 / m * sums_x + sums_x.sum() / m**2
    diagonal_y = kernel_y.diagonal()[rest] - 2 / m * sums_y + sums_y.sum() / m**2
    debiased = _debiased(full, diagonal_x, diagonal_y, m)
    _, least_x, least_y = (MIN_REST * totals).tolist()
    if debiased[1] > least_x and debiased[2] > least_y:
        return _cosine(full), _cosine(debiased)
    return _of_cut_kernels(kernel_x, kernel_y, rest)


def _of_cut_kernels(kernel_x: Tensor, kernel_y: Tensor, rows: Tensor) -> tuple[float, float]:
    """Return the same with all the digits that there are, in more time."""
    rows = rows.sort().values
    x = _centered_rows(kernel_x, rows)
    y = _centered_rows(kernel_y, rows)
    full = _products(x, y)
    debiased = _debiased(full, x.diagonal(), y.diagonal(), len(rows))
    least = min_remainder(x.dtype, x.numel())
    if debiased[1] <= least * full[1] or debiased[2] <= least * full[2]:
        debiased = _products(u_centered(x), u_centered(y))
    return _cosine(full), _cosine(debiased)


def _centered_rows(kernel: Tensor, rows: Tensor) -> Tensor:
    """Return the centered kernel of some items; zeros if only rounding is left."""
    part = kernel.index_select(0, rows).index_select(1, rows)
    rounding = 8 * torch.finfo(part.dtype).eps * float(part.trace())
    h_center_(part)
    return part if float(part.trace()) > rounding else torch.zeros_like(part)


def _debiased(full: Products, diagonal_x: Tensor, diagonal_y: Tensor, n: int) -> Products:
    """Return the products of U-centered kernels from those of centered ones, as `kernel_dot` does.

    Args:
        full: <K, L>, <K, K> and <L, L>.
        diagonal_x: the diagonal of K.
        diagonal_y: that of L.
        n: items.
    """
    diagonals = _products(diagonal_x, diagonal_y)
    sums = _products_of_sums(diagonal_x, diagonal_y)
    xy, xx, yy = (
        product - n / (n - 2) * diagonal + total / ((n - 1) * (n - 2))
        for product, diagonal, total in zip(full, diagonals, sums, strict=True)
    )
    return xy, xx, yy


def _products(x: Tensor, y: Tensor) -> Products:
    """Return <x, y>, <x, x> and <y, y>."""
    both = torch.stack([x.flatten(), y.flatten()])
    (xx, xy), (_, yy) = (both @ both.mT).tolist()
    return xy, xx, yy


def _products_of_sums(x: Tensor, y: Tensor) -> Products:
    """Return the products of the sums of both."""
    sum_x, sum_y = float(x.sum()), float(y.sum())
    return sum_x * sum_y, sum_x**2, sum_y**2


def _cosine(products: Products) -> float:
    """Return the cosine from such products, NaN if a side is zero."""
    xy, xx, yy = products
    return xy / math.sqrt(xx * yy) if xx > 0 and yy > 0 else math.nan
