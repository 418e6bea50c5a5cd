"""Products of U-centered kernels where the form in feature space has lost its digits.

The form in feature space subtracts the diagonal at the end, so its relative error is about
eps · (‖K‖ / ‖U(K)‖)², while that of U-centered Gram matrices is eps · ‖K‖ / ‖U(K)‖. A single far
row makes the ratio large. Small Gram matrices are formed at once. Of large ones a block of rows is
formed at a time, and once more in the backward pass, so that no n × n matrix is stored.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from tutelage.core.precision import full_precision
from tutelage.similarity._gram import Factor, dot, product, u_centered
from tutelage.similarity._products import matmul

# What must remain of <K, K> in feature space. In float32 the error is then about 1e-6.
MIN_REMAINDER = {torch.float32: 0.1, torch.float64: 1e-4}
# Many items take long in Gram space: there half of the digits are enough.
MIN_REMAINDER_OF_MANY = 1e-8
MAX_DENSE = 2**22  # elements of Gram matrices that are formed at once: 2048 items, or a block

Pair = tuple[Factor, Factor]


class Products(NamedTuple):
    """Products of the kernels K of x and L of y, shaped as by `dot`."""

    xy: Tensor
    xx: Tensor
    yy: Tensor


def min_remainder(dtype: torch.dtype, elements: int) -> float:
    """Return which share of <K, K> must remain in feature space.

    >>> min_remainder(torch.float64, 2048**2), min_remainder(torch.float64, 4096**2)
    (0.0001, 1e-08)

    Args:
        dtype: of the features.
        elements: of the Gram matrices of one side.
    """
    if dtype == torch.float64 and elements > MAX_DENSE:
        return MIN_REMAINDER_OF_MANY
    return MIN_REMAINDER[dtype]


def u_products(x: Pair, y: Pair) -> Products:
    """Return the products of the U-centered kernels from Gram matrices or blocks of them.

    A side whose kernel is only rounding noise after U-centering has 0.

    Args:
        x: the centered factors of K = x₁ x₂ᵀ, (..., N, P).
        y: the centered factors of L = y₁ y₂ᵀ, (..., N, P').
    """
    data = x[0].data
    if data[..., 0].numel() * data.shape[-2] > MAX_DENSE:
        return _in_blocks(x, y)
    kernel_x = u_centered(product(*x))
    kernel_y = u_centered(product(*y))
    return _dots(kernel_x, kernel_y)


def _dots(kernel_x: Tensor, kernel_y: Tensor) -> Products:
    return Products(
        xy=dot(kernel_x, kernel_y),
        xx=dot(kernel_x, kernel_x),
        yy=dot(kernel_y, kernel_y),
    )


class _Side(NamedTuple):
    """One kernel, of which any rows can be U-centered by themselves.

    Attributes:
        left: (..., N, P), of norm 1.
        right: (..., N, P), of norm 1.
        rows: (..., N, 1), what U-centering subtracts from each row.
        columns: (..., 1, N), what it subtracts from each column, less what it adds to all entries.
    """

    left: Tensor
    right: Tensor
    rows: Tensor
    columns: Tensor

    @classmethod
    def of(cls, factors: Pair) -> _Side:
        left, right = (factor.data * factor.unit for factor in factors)
        n = left.shape[-2]
        diagonal = (left * right).sum(-1, keepdim=True)
        # Centered columns sum to 0 but for rounding, which a far row makes count.
        row_sums = matmul(left, right.sum(-2, keepdim=True).mT) - diagonal
        column_sums = matmul(left.sum(-2, keepdim=True), right.mT) - diagonal.mT
        total = row_sums.sum(-2, keepdim=True) / ((n - 1) * (n - 2))
        return cls(left, right, row_sums / (n - 2), column_sums / (n - 2) - total)

    def u_rows(self, part: slice) -> tuple[Tensor, Tensor]:
        """Return some rows of the U-centered kernel, and their squared norm before centering."""
        kernel = matmul(self.left[..., part, :], self.right.mT)
        squared = kernel.detach().square().sum((-2, -1), keepdim=True)
        u = kernel - self.rows[..., part, :] - self.columns
        diagonal = torch.zeros(u.shape[-2:], dtype=torch.bool, device=u.device)
        diagonal[:, part].fill_diagonal_(True)
        return u.masked_fill(diagonal, 0.0), squared


def _in_blocks(x: Pair, y: Pair) -> Products:
    side_x = _Side.of(x)
    side_y = _Side.of(y)
    data = x[0].data
    n = data.shape[-2]
    step = max(1, MAX_DENSE // data[..., 0].numel())
    blocks: list[tuple[Tensor, ...]] = []
    for start in range(0, n, step):
        part = slice(start, min(start + step, n))
        # Checkpointed: a block is formed again in the backward pass rather than stored.
        blocks.append(checkpoint(_block, _Side(*side_x), _Side(*side_y), part, use_reentrant=False))
    xy, xx, yy, full_x, full_y = (torch.stack(terms).sum(0) for terms in zip(*blocks, strict=True))
    # The rule of `u_centered`.
    rounding = (8 * torch.finfo(data.dtype).eps) ** 2
    dead_x = xx.detach() <= rounding * full_x.view_as(xx)
    dead_y = yy.detach() <= rounding * full_y.view_as(yy)
    return Products(
        xy=xy.masked_fill(dead_x | dead_y, 0.0),
        xx=xx.masked_fill(dead_x, 0.0),
        yy=yy.masked_fill(dead_y, 0.0),
    )


def _block(x: _Side, y: _Side, part: slice) -> tuple[Tensor, ...]:
    # Autograd repeats this in the backward pass, which may run inside autocast.
    with full_precision(x.left.device):
        u_x, squared_x = x.u_rows(part)
        u_y, squared_y = y.u_rows(part)
        return (*_dots(u_x, u_y), squared_x, squared_y)
