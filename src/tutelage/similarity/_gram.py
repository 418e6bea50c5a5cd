"""Gram matrices that are right at every scale: the operations that alignment and CKA consist of.

Three rules hold in this file:

- Products are formed in float32 or float64, outside autocast.
- Features are centered, not Gram matrices. Features with a large common offset have large Gram
  entries that differ little; rounding has removed the digits that centering the Gram would need.
- Every product is divided by the detached norms of its factors, so that the fourth powers in an
  alignment neither overflow nor underflow. An alignment does not depend on the scale of the
  features, so its gradient is exact although the norms are detached.
"""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
from torch import Tensor

from tutelage.similarity._products import gram, matmul, may_read

FAR = 1024.0  # deviations within so many times the rounding of the mean are looked at by column


class Factor(NamedTuple):
    """One factor of a kernel matrix `left @ right.mT`.

    Attributes:
        data: (..., N, P), with gradient.
        unit: (..., 1, 1), detached: 1 / ‖data‖, and 0 where `data` is zero or only rounding noise.
    """

    data: Tensor
    unit: Tensor

    @property
    def mT(self) -> Factor:  # noqa: N802 - torch's own name
        """The transposed factor, (..., P, N)."""
        return Factor(self.data.mT, self.unit)


def dot(a: Tensor, b: Tensor) -> Tensor:
    """Return the Frobenius product <a, b>: 0-d for two matrices, (..., 1, 1) for stacks of them.

    >>> dot(torch.ones(2, 3), torch.ones(2, 3)).item()
    6.0
    >>> dot(torch.ones(4, 2, 3), torch.ones(4, 2, 3)).shape
    torch.Size([4, 1, 1])
    """
    if a.ndim == 2:
        return torch.dot(a.reshape(-1), b.reshape(-1))
    return (a * b).sum((-2, -1), keepdim=True)


def norm(a: Tensor) -> Tensor:
    """Return the Frobenius norm ‖a‖, shaped as by `dot`; its gradient at 0 is 0.

    >>> norm(torch.ones(2, 2)).item()
    2.0
    """
    if a.ndim == 2:
        return cast(Tensor, torch.linalg.vector_norm(a))
    return cast(Tensor, torch.linalg.vector_norm(a, dim=(-2, -1), keepdim=True))


def inverse(size: Tensor, floor: Tensor | float = 0.0) -> Tensor:
    """Return 1 / size, and 0 with zero gradient where size ≤ floor; NaN stays NaN.

    >>> inverse(torch.tensor([2.0, 0.0]))
    tensor([0.5000, 0.0000])
    """
    # Masked before the division: `torch.where` after it would still give NaN gradients.
    return size.masked_fill(size <= floor, torch.inf).reciprocal()


def unit_rows(x: Tensor) -> Tensor:
    """Return x with rows of length 1; a zero row stays zero and gets zero gradient.

    >>> unit_rows(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
    tensor([[0.6000, 0.8000],
            [0.0000, 0.0000]])
    """
    # The largest entry is divided out first, so that the squares stay in the dtype's range.
    largest = x.detach().abs().amax(-1, keepdim=True)
    scaled = x * inverse(largest, floor=torch.finfo(x.dtype).tiny)
    squared = scaled.square().sum(-1, keepdim=True)
    return scaled * squared.masked_fill(squared <= 0, torch.inf).rsqrt()


def factor(x: Tensor) -> Factor:
    """Return x (..., N, P) as a factor."""
    return Factor(x, _inverse_norm(_detached_norm(x)))


def centered(x: Tensor) -> Factor:
    """Return x (..., N, P) minus the mean of its rows, as a factor.

    A column whose entries agree up to the rounding of their own mean counts as constant. If all
    columns do, the unit is 0, so that products with this factor are 0 with zero gradient instead of
    amplified rounding noise.

    >>> centered(torch.full((3, 2), 0.1)).unit.item()
    0.0
    """
    mean = x.mean(-2, keepdim=True)
    data = x - mean
    size = _detached_norm(data)
    # Rounding errors are relative to the norm of the matrix whose rows are all the mean.
    limit = FAR * 4 * torch.finfo(x.dtype).eps * x.shape[-2] ** 0.5
    # On an accelerator the columns are always looked at.
    if not may_read(data) or not _exceeds(size, limit, _detached_norm(mean)):
        data = _without_constant_columns(data, mean)
        size = _detached_norm(data)
    return Factor(data, _inverse_norm(size))


def _inverse_norm(size: Tensor) -> Tensor:
    """Return 1 / size of a factor, and 0 where its square would leave the dtype's range."""
    return inverse(size, floor=16 * torch.finfo(size.dtype).tiny ** 0.5)


def _without_constant_columns(data: Tensor, mean: Tensor) -> Tensor:
    """Return centered columns, 0 where one is only the rounding of its mean."""
    data = data - data.mean(-2, keepdim=True)  # what rounding the first mean has left
    varying = ~only_rounding(data, mean, torch.finfo(data.dtype).eps)
    # The gradient of a constant column stays: with scaled rows the other factor of the kernel
    # varies there. If both factors are this one, it is 0 by itself.
    return data - data.detach().masked_fill(varying, 0.0)


def only_rounding(data: Tensor, mean: Tensor, eps: float) -> Tensor:
    """Return (..., 1, P), for which columns the deviations are but the rounding of the mean.

    Each column has a rounding of its own: one at 1e7 hides nothing in the others.

    Args:
        data: (..., N, P), centered.
        mean: (..., 1, P), what was subtracted.
        eps: the relative rounding of the features.
    """
    sizes = torch.linalg.vector_norm(data.detach(), dim=-2, keepdim=True)
    rounding = 4 * eps * data.shape[-2] ** 0.5
    return cast(Tensor, sizes <= rounding * mean.detach().abs())


def product(left: Factor, right: Factor) -> Tensor:
    """Return left rightᵀ divided by the detached norms of both factors, (..., N, M)."""
    raw = gram(left.data) if left.data is right.data else matmul(left.data, right.data.mT)
    return raw * (left.unit * right.unit)


def u_centered(k: Tensor) -> Tensor:
    """Return the U-centered kernel matrix: zero diagonal, rows and columns that sum to zero.

    U_ij = K̃_ij - r_i - c_j + t off the diagonal, where K̃ is K without its diagonal, r and c are
    its row and column sums over N - 2, and t is its sum over (N - 1)(N - 2). A result that is only
    rounding noise (all similarities are equal) is returned as 0.

    >>> u_centered(torch.ones(4, 4)).abs().max().item()
    0.0

    Args:
        k: (..., N, N) with N ≥ 4, of centered features (their sums over rows and columns agree).
    """
    n = k.shape[-1]
    diagonal = torch.eye(n, dtype=torch.bool, device=k.device)
    hollow = k.masked_fill(diagonal, 0.0)
    row_sums = hollow.sum(-1, keepdim=True)
    column_sums = hollow.sum(-2, keepdim=True)
    total = row_sums.sum(-2, keepdim=True) / ((n - 1) * (n - 2))
    u = (hollow - (row_sums + column_sums) / (n - 2) + total).masked_fill(diagonal, 0.0)
    rounding = 8 * torch.finfo(k.dtype).eps * _detached_norm(k)
    return u.masked_fill(_detached_norm(u) <= rounding, 0.0)


def h_centered(k: Tensor) -> Tensor:
    """Return the centered kernel matrix HKH: rows and columns sum to zero.

    For kernels without explicit features. The linear kernel centers its features instead, which
    keeps more digits.

    >>> h_centered(torch.eye(2))
    tensor([[ 0.5000, -0.5000],
            [-0.5000,  0.5000]])

    Args:
        k: (..., N, N), symmetric.
    """
    row_means = k.mean(-1, keepdim=True)
    return k - row_means - row_means.mT + row_means.mean(-2, keepdim=True)


def h_center_(k: Tensor) -> None:
    """Center a symmetric kernel matrix (..., N, N) in place, without the temporaries."""
    means = k.mean(-1, keepdim=True)
    k -= means
    k -= means.mT - means.mean(-2, keepdim=True)


class KernelDot(NamedTuple):
    """A product of two kernels, shaped as by `dot`.

    Attributes:
        value: <U(K), U(L)> if debiased, else <K, L>.
        full: <K, L>. Where it is much larger than `value`, that one has lost digits.
    """

    value: Tensor
    full: Tensor


def kernel_dot(x: tuple[Factor, Factor], y: tuple[Factor, Factor], debiased: bool) -> KernelDot:
    """Return <K, L>, or <U(K), U(L)> of the U-centered kernels, without an N × N matrix.

        <K, L> = ‖x₁ᵀ y₁‖²   (<x₁ᵀ y₁, x₂ᵀ y₂> if the two factors of a kernel differ)
        <U(K), U(L)> = <K, L> - N/(N - 2) Σ k_i l_i + Σ k Σ l / ((N - 1)(N - 2))

    where k and l are the diagonals of K and L.

    >>> side = centered(torch.tensor([[0.0], [0.0], [1.0], [1.0]]))
    >>> round(kernel_dot((side, side), (side, side), False).value.item(), 4)
    1.0

    Args:
        x: the factors of K = x₁ x₂ᵀ, (..., N, P); centered if `debiased`.
        y: the factors of L = y₁ y₂ᵀ, (..., N, P'); centered if `debiased`.
        debiased: U-center the kernels.

    Returns:
        The products, divided by the detached norms of all factors.
    """
    cross = product(x[0].mT, y[0].mT)
    same_factors = x[0] is x[1] and y[0] is y[1]
    second_cross = cross if same_factors else product(x[1].mT, y[1].mT)
    full = dot(cross, second_cross)
    if not debiased:
        return KernelDot(full, full)
    n = x[0].data.shape[-2]
    diagonal_k = _kernel_diagonal(x)
    diagonal_l = _kernel_diagonal(y)
    diagonals = dot(diagonal_k, diagonal_l) / (n - 2) * n
    sums = diagonal_k.sum(-2, keepdim=True) * diagonal_l.sum(-2, keepdim=True)
    value = full - diagonals + sums.view_as(full) / ((n - 1) * (n - 2))
    return KernelDot(value, full)


def gram_is_cheaper(n: int, widths: tuple[int, int], scaled: bool = False) -> bool:
    """Return whether two N × N products cost less than three P × P ones (six if rows are scaled).

    >>> gram_is_cheaper(64, (512, 512)), gram_is_cheaper(4096, (64, 64))
    (True, False)

    Args:
        n: items.
        widths: columns of the two sides.
        scaled: whether rows are scaled, so that the two factors of a kernel differ.
    """
    p, q = widths
    return n * (p + q) <= (p * p + p * q + q * q) * (2 if scaled else 1)


def _kernel_diagonal(factors: tuple[Factor, Factor]) -> Tensor:
    """Return the diagonal (..., N, 1) of a kernel matrix, over the norms of its factors."""
    left, right = factors
    return (left.data * right.data * (left.unit * right.unit)).sum(-1, keepdim=True)


def _exceeds(sizes: Tensor, limit: float, offsets: Tensor) -> bool:
    """Return whether every size is above its limit; quick for a single one."""
    if sizes.numel() == 1:
        return float(sizes) > limit * float(offsets)
    return bool((sizes > limit * offsets).all())


def _detached_norm(x: Tensor) -> Tensor:
    return cast(Tensor, torch.linalg.vector_norm(x.detach(), dim=(-2, -1), keepdim=True))
