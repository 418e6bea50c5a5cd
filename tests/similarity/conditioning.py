"""How exact a debiased CKA can be: an error bound from the number of items and the spectrum."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tutelage.similarity._gram import u_centered


def debiased_bound(x: Tensor, y: Tensor) -> float:
    """Return the largest error of a debiased CKA of float64 rows (n, p) by rounding.

    A Gram matrix K of n rows of width p has rounding errors of at most p eps ‖x_i‖ ‖x_j‖ an entry,
    and centering sums n of them: ‖δK‖ ≤ (n + p) eps tr K in the Frobenius norm. U-centering is a
    projection, so ‖δU‖ is at most that, while U itself may be much smaller than K: a far row is
    large on the diagonal, which is left out. The CKA is the cosine of two such vectors, and changes
    by at most the angle that each of them turns:

        |δ CKA| ≤ (n + p) eps (tr K / ‖U(K)‖ + tr L / ‖U(L)‖)

    With the eigenvalues λ of the centered K and its diagonal k,

        ‖U(K)‖² = Σ λ² - n/(n - 2) Σ k² + (Σ λ)² / ((n - 1)(n - 2)),   tr K = Σ λ.
    """
    n = len(x)
    width = max(x.shape[1], y.shape[1])
    return (n + width) * torch.finfo(torch.float64).eps * (_condition(x) + _condition(y))


def gram_rounding(x: Tensor, y: Tensor) -> float:
    """Return the error of a debiased CKA of float32 Gram matrices by their rounding, six sigma.

    An entry of K is rounded to u = 2⁻²⁴ of it, and the sums before add as much again. The errors
    of different entries are independent, and the cosine of U(K) and U(L) sees one direction of n²:

        σ² = (2 u rms(K) / ‖U(K)‖)² + (2 u rms(L) / ‖U(L)‖)²
    """
    sigmas = []
    for rows in (x.double(), y.double()):
        k = rows @ rows.mT
        sigmas.append(2.0**-23 * float(k.square().mean().sqrt() / u_centered(k).norm()))
    return 6 * math.hypot(*sigmas)


def _condition(rows: Tensor) -> float:
    """Return tr K / ‖U(K)‖; the trace is that of rows as they are, since their mean is rounded."""
    centered = rows - rows.mean(0)
    u = u_centered(centered @ centered.mT)
    return float(rows.square().sum() / u.norm())
