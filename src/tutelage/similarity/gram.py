"""Gram matrices that stay right at every scale: the small operations that alignment and CKA are made of.

Three habits live here. Relations are computed in float32 or better, outside autocast. Features are centred,
never the Gram: the Gram of features with a common offset has already lost the digits that centring it would
need. And every product is divided by the detached sizes of its factors, so that fourth powers neither
overflow nor underflow; alignment does not depend on scale, hence its gradient stays exact.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.autograd import Function


class Factor(NamedTuple):
    """One factor of a kernel matrix `left @ right.mT`.

    Attributes:
        data: (..., N, P), with gradient.
        unit: (..., 1, 1), detached: 1 / ‖data‖, and 0 where `data` is zero or nothing but rounding noise.
    """

    data: Tensor
    unit: Tensor

    @property
    def mT(self) -> Factor:  # noqa: N802 - torch's own name
        """The transposed factor, (..., P, N)."""
        return Factor(self.data.mT, self.unit)


def full_precision(device: torch.device) -> AbstractContextManager[None]:
    """Return a context without autocast on this device; `.float()` alone does not protect a product.

    >>> with torch.autocast("cpu", dtype=torch.bfloat16), full_precision(torch.device("cpu")):
    ...     (torch.ones(2, 2) @ torch.ones(2, 2)).dtype
    torch.float32
    """
    if torch.is_autocast_enabled(device.type):
        return cast("AbstractContextManager[None]", torch.autocast(device.type, enabled=False))
    return nullcontext()


def promote(x: Tensor) -> Tensor:
    """Return half precision as float32; float32 and float64 stay.

    >>> promote(torch.ones(1, dtype=torch.bfloat16)).dtype, promote(torch.ones(1, dtype=torch.float64)).dtype
    (torch.float32, torch.float64)
    """
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


class _Gram(Function):
    """x xᵀ with one product in its backward pass instead of two."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x @ x.mT

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        x: Tensor
        (x,) = ctx.saved_tensors
        with full_precision(grad.device):
            return (grad + grad.mT) @ x


def gram(x: Tensor) -> Tensor:
    """Return the Gram matrix of the rows, K = x xᵀ.

    >>> gram(torch.tensor([[1.0, 2.0], [0.0, 3.0]]))
    tensor([[5., 6.],
            [6., 9.]])

    Args:
        x: (..., N, P).

    Returns:
        (..., N, N).
    """
    return cast(Tensor, _Gram.apply(x)) if x.requires_grad else x @ x.mT


def dot(a: Tensor, b: Tensor) -> Tensor:
    """Return <a, b>, the sum over a product of matrices: 0-d for two matrices, (..., 1, 1) for stacks.

    >>> dot(torch.ones(2, 3), torch.ones(2, 3)).item(), dot(torch.ones(4, 2, 3), torch.ones(4, 2, 3)).shape
    (6.0, torch.Size([4, 1, 1]))
    """
    if a.ndim == 2:
        return torch.dot(a.reshape(-1), b.reshape(-1))
    return (a * b).sum((-2, -1), keepdim=True)


def norm(a: Tensor) -> Tensor:
    """Return ‖a‖, of the shape that `dot` has; its gradient at 0 is 0.

    >>> norm(torch.ones(2, 2)).item()
    2.0
    """
    if a.ndim == 2:
        return cast(Tensor, torch.linalg.vector_norm(a))
    return cast(Tensor, torch.linalg.vector_norm(a, dim=(-2, -1), keepdim=True))


def inverse(size: Tensor, floor: Tensor | float = 0.0) -> Tensor:
    """Return 1 / size, and 0 with zero gradient where size ≤ floor; NaN stays NaN.

    The zeros are masked before the division: `torch.where` after it would still give NaN gradients.

    >>> inverse(torch.tensor([2.0, 0.0]))
    tensor([0.5000, 0.0000])
    """
    return size.masked_fill(size <= floor, torch.inf).reciprocal()


def unit_rows(x: Tensor) -> Tensor:
    """Return x with rows of length 1; a zero row stays zero and gets zero gradient.

    >>> unit_rows(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
    tensor([[0.6000, 0.8000],
            [0.0000, 0.0000]])
    """
    scaled = x * inverse(x.detach().abs().amax(-1, keepdim=True))
    squared = scaled.square().sum(-1, keepdim=True)
    return scaled * squared.masked_fill(squared <= 0, torch.inf).rsqrt()


def factor(x: Tensor) -> Factor:
    """Return x (..., N, P) as a factor."""
    return Factor(x, inverse(_size(x)))


def centred(x: Tensor) -> Factor:
    """Return x (..., N, P) minus the mean of its rows, as a factor.

    Rows that agree up to the rounding of their own mean count as constant: the unit is 0, so that products
    with this factor are 0 with zero gradient instead of amplified rounding noise.

    >>> centred(torch.full((3, 2), 0.1)).unit.item()
    0.0
    """
    mean = x.mean(-2, keepdim=True)
    data = x - mean
    offset = _size(mean) * x.shape[-2] ** 0.5
    return Factor(data, inverse(_size(data), floor=4 * torch.finfo(x.dtype).eps * offset))


def product(left: Factor, right: Factor) -> Tensor:
    """Return left rightᵀ divided by the detached sizes of both factors, (..., N, M)."""
    raw = gram(left.data) if left.data is right.data else left.data @ right.data.mT
    return raw * (left.unit * right.unit)


def u_centred(k: Tensor) -> Tensor:
    """Return the U-centred kernel matrix: zero diagonal, rows and columns that sum to zero.

    U_ij = K̃_ij - r_i - c_j + t off the diagonal: K̃ is K without its diagonal, r and c are its row and column
    sums over N - 2, t is its sum over (N - 1)(N - 2). A result that is only rounding noise (all similarities
    equal) is returned as 0.

    >>> u_centred(torch.ones(4, 4)).abs().max().item()
    0.0

    Args:
        k: (..., N, N) with N ≥ 4, of centred features (their sums over rows and over columns agree).
    """
    n = k.shape[-1]
    diagonal = torch.eye(n, dtype=torch.bool, device=k.device)
    hollow = k.masked_fill(diagonal, 0.0)
    rows, columns = hollow.sum(-1, keepdim=True), hollow.sum(-2, keepdim=True)
    total = rows.sum(-2, keepdim=True) / ((n - 1) * (n - 2))
    u = (hollow - (rows + columns) / (n - 2) + total).masked_fill(diagonal, 0.0)
    return u.masked_fill(_size(u) <= 8 * torch.finfo(k.dtype).eps * _size(k), 0.0)


def h_centred(k: Tensor) -> Tensor:
    """Return the centred kernel matrix HKH: rows and columns sum to zero.

    Linear kernels centre their features instead, which keeps more digits.

    >>> h_centred(torch.eye(2))
    tensor([[ 0.5000, -0.5000],
            [-0.5000,  0.5000]])

    Args:
        k: (..., N, N), symmetric.
    """
    rows = k.mean(-1, keepdim=True)
    return k - rows - rows.mT + rows.mean(-2, keepdim=True)


def kernel_dot(x: tuple[Factor, Factor], y: tuple[Factor, Factor], debiased: bool) -> Tensor:
    """Return <K, L>, or <U(K), U(L)> of the U-centred kernels, without an N × N matrix.

        <K, L> = ‖x₁ᵀ y₁‖²   (<x₁ᵀ y₁, x₂ᵀ y₂> if the two factors of a kernel differ)
        <U(K), U(L)> = <K, L> - N/(N - 2) Σ k_i l_i + Σ k Σ l / ((N - 1)(N - 2)),  k, l the diagonals of K, L

    >>> side = centred(torch.tensor([[0.0], [0.0], [1.0], [1.0]]))
    >>> round(kernel_dot((side, side), (side, side), False).item(), 4)
    1.0

    Args:
        x, y: the factors of K = x₁ x₂ᵀ and L = y₁ y₂ᵀ, each (..., N, P); centred if `debiased`.
        debiased: U-centre the kernels.

    Returns:
        As `dot`, divided by the detached sizes of all factors.
    """
    cross = product(x[0].mT, y[0].mT)
    value = dot(cross, cross if x[0] is x[1] and y[0] is y[1] else product(x[1].mT, y[1].mT))
    if not debiased:
        return value
    n = x[0].data.shape[-2]
    k, m = ((a.data * b.data * (a.unit * b.unit)).sum(-1, keepdim=True) for a, b in (x, y))
    diagonals = dot(k, m) / (n - 2) * n
    sums = (k.sum(-2, keepdim=True) * m.sum(-2, keepdim=True)).view_as(value)
    return value - diagonals + sums / ((n - 1) * (n - 2))


def gram_is_cheaper(n: int, widths: tuple[int, int], scaled: bool = False) -> bool:
    """Compare two N × N products with three P × P ones, or six when rows are scaled.

    >>> gram_is_cheaper(64, (512, 512)), gram_is_cheaper(4096, (64, 64))
    (True, False)
    """
    p, q = widths
    return n * (p + q) <= (p * p + p * q + q * q) * (2 if scaled else 1)


def _size(x: Tensor) -> Tensor:
    return cast(Tensor, torch.linalg.vector_norm(x.detach(), dim=(-2, -1), keepdim=True))
