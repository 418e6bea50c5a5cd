"""The definitions, written as they stand in the papers: slow, float64, by plain autograd."""

from __future__ import annotations

import torch
from torch import Tensor


def centering(k: Tensor) -> Tensor:
    """Return HKH with an explicit H."""
    n = k.shape[-1]
    h = torch.eye(n, dtype=k.dtype) - 1 / n
    return h @ k @ h


def song(k: Tensor, l: Tensor) -> Tensor:  # noqa: E741
    """Return the unbiased HSIC in the form of Song et al., equation 5, with matrix products."""
    n = k.shape[-1]
    ones = torch.ones(n, dtype=k.dtype)
    k, l = (m * (1 - torch.eye(n, dtype=m.dtype)) for m in (k, l))  # noqa: E741
    value = (k @ l).trace() + (ones @ k @ ones) * (ones @ l @ ones) / ((n - 1) * (n - 2))
    return (value - 2 / (n - 2) * (ones @ k @ l @ ones)) / (n * (n - 3))


def cka_of(k: Tensor, l: Tensor, estimator: str) -> Tensor:  # noqa: E741
    """Return the CKA of two kernel matrices."""
    if estimator == "debiased":
        return song(k, l) / (song(k, k) * song(l, l)).sqrt()
    k, l = centering(k), centering(l)  # noqa: E741
    return (k * l).sum() / ((k * k).sum() * (l * l).sum()).sqrt()


def kernel_matrix(x: Tensor, scale: str | None) -> Tensor:
    """Return the kernel that the options of `alignment` name."""
    k = x @ x.mT
    lengths = x.norm(dim=-1)
    if scale == "rows":
        return k / lengths[:, None]
    return k / (lengths[:, None] * lengths) if scale == "cosine" else k


def aligned(x: Tensor, y: Tensor, center: bool, scale: str | None, estimator: str) -> Tensor:
    """Return the alignment of two matrices."""
    k, l = kernel_matrix(x, scale), kernel_matrix(y, scale)  # noqa: E741
    if estimator == "debiased":
        k, l = u_centering(k), u_centering(l)  # noqa: E741
    elif center:
        k, l = centering(k), centering(l)  # noqa: E741
    return (k * l).sum() / (k.norm() * l.norm())


def u_centering(k: Tensor) -> Tensor:
    """Return the U-centered matrix entry by entry, by its rows and columns if it is asymmetric.

    A row-scaled kernel is centered first, as the library centers features before it relates them.
    """
    n = k.shape[-1]
    k = centering(k)
    k = k * (1 - torch.eye(n, dtype=k.dtype))
    rows, columns, total = k.sum(1, keepdim=True), k.sum(0, keepdim=True), k.sum()
    u = k - rows / (n - 2) - columns / (n - 2) + total / ((n - 1) * (n - 2))
    return u * (1 - torch.eye(n, dtype=k.dtype))
