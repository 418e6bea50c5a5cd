"""Translation of a subset of the items: one that a linear head need not see can push CKA far down.

    X(c) = X + c 1_S vᵀ        S: a subset of the rows, v: a unit vector

CKA(X, X(c)) has a closed form in c, and for c → ∞ the biased one falls to a limit that depends on
S alone:

    Γ(ρ) ‖μ_S‖² / ‖Σ‖,   Γ(ρ) = ρ/(1 - ρ),   ρ = |S|/n,   Σ = XcᵀXc/n

with μ_S the mean of the centered rows in S.

Source: M. Davari, S. Horoi, A. Natik, G. Lajoie, G. Wolf, E. Belilovsky, "Reliability of CKA as a
Similarity Measure in Deep Learning", ICLR 2023, Theorem 1; official code rezazzr/xmas_cka@9849812
(no license: nothing copied). The forms for finite c and for the debiased estimator are derived for
this library.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor

from tutelage.core.precision import full_precision
from tutelage.errors import UserError
from tutelage.similarity._checks import as_rows, check_choice, varies, warn_undefined
from tutelage.similarity._products import gram
from tutelage.similarity.alignment import Estimator


def subset_translation(x: Tensor, mask: Tensor, v: Tensor, c: float) -> Tensor:
    """Return x with the rows of a subset moved by c along v.

    >>> mask = torch.tensor([True, False, False])
    >>> subset_translation(torch.zeros(3, 2), mask, torch.tensor([0.0, 5.0]), 2.0)[0]
    tensor([0., 2.], dtype=torch.float64)

    Args:
        x: (n, ...), floating; further dimensions are flattened.
        mask: (n,), bool: the rows that move.
        v: (p,), the direction; its length is divided out.
        c: how far.

    Returns:
        (n, p) float64, differentiable in x.

    Raises:
        UserError: If the mask is empty, full or of the wrong length, if v is zero or of the wrong
            length, or if x is 1-D, empty, integer, NaN or infinite.
    """
    rows = as_rows(x, "x")
    return rows + c * _indicator(mask, rows)[:, None] * _direction(v, rows)


def subset_translation_cka(
    x: Tensor,
    mask: Tensor,
    v: Tensor,
    cs: Sequence[float] | Tensor,
    *,
    estimator: Estimator = "biased",
) -> Tensor:
    """Return the linear CKA of x and `subset_translation(x, mask, v, c)` for many c.

    One pass over x gives it in closed form:

        CKA(X, X(c)) = (kk + c ka + c² kb) / √(kk (kk + 2c ka + c² (aa + 2kb) + 2c³ ab + c⁴ bb))

    with kk = HSIC(K, K), ka = HSIC(K, A), … for K = XXᵀ, t = Xv, A = t 1_Sᵀ + 1_S tᵀ, B = 1_S 1_Sᵀ.

    >>> x, mask = torch.eye(4)[:, :2], torch.tensor([True, False, False, False])
    >>> values = subset_translation_cka(x, mask, torch.ones(2), [0.0, 1e9])
    >>> [round(value, 4) for value in values.tolist()]
    [1.0, 0.7454]

    Args:
        x: (n, ...), floating.
        mask: (n,), bool.
        v: (p,), the direction.
        cs: distances.
        estimator: `"biased"` or `"debiased"`, of `cka`.

    Returns:
        (len(cs),) float64, differentiable in x; NaN with a warning where x does not vary.

    Raises:
        UserError: As `subset_translation`; also if there are fewer than 4 rows and it is debiased.
    """
    rows, moments = _moments(x, mask, v, estimator)
    c = torch.as_tensor(cs, dtype=rows.dtype, device=rows.device)
    return moments.cka(c)


def subset_translation_limit(
    x: Tensor, mask: Tensor, *, estimator: Estimator = "biased", v: Tensor | None = None
) -> Tensor:
    """Return what `subset_translation_cka` tends to for c → ∞.

        kb / √(kk bb),  for the biased estimator equal to ρ/(1 - ρ) ‖μ_S‖² / ‖Σ‖

    It does not depend on v, except for the debiased estimator and a single row (or all but one):
    the U-centered B is 0 then and the limit is ka / √(kk aa); for c → -∞ it has the opposite sign.

    >>> x, mask = torch.eye(4)[:, :2], torch.tensor([True, False, False, False])
    >>> round(subset_translation_limit(x, mask).item(), 4)
    0.7454

    Args:
        x: (n, ...), floating.
        mask: (n,), bool.
        estimator: `"biased"` or `"debiased"`.
        v: (p,), the direction, where it matters.

    Returns:
        0-d float64, differentiable in x; NaN with a warning where x does not vary.

    Raises:
        UserError: As `subset_translation`; also if v is needed and missing.
    """
    rows, moments = _moments(x, mask, v, estimator)
    single_row = int(mask.sum()) in (1, len(rows) - 1)
    if estimator == "debiased" and single_row:
        if v is None:
            raise UserError(
                "the debiased limit for a single moved row depends on the direction; give v"
            )
        return moments.ka / (moments.kk * moments.aa).sqrt()
    return moments.kb / (moments.kk * moments.bb).sqrt()


class _Moments(NamedTuple):
    """HSIC, up to one factor, of all pairs of K, A and B; see `subset_translation_cka`."""

    kk: Tensor
    ka: Tensor
    kb: Tensor
    aa: Tensor
    ab: Tensor
    bb: Tensor

    def cka(self, c: Tensor) -> Tensor:
        """Return the closed form at the distances c."""
        # Both polynomials in c by Horner's rule.
        moved = self.kk + c * (
            2 * self.ka + c * (self.aa + 2 * self.kb + c * (2 * self.ab + c * self.bb))
        )
        cross = self.kk + c * (self.ka + c * self.kb)
        return cross / (self.kk * moved).sqrt()


def _moments(
    x: Tensor, mask: Tensor, v: Tensor | None, estimator: Estimator
) -> tuple[Tensor, _Moments]:
    """Return the rows and the moments; NaN with a warning where x does not vary."""
    check_choice(estimator, Estimator, "the estimator of a subset translation")
    debiased = estimator == "debiased"
    rows = as_rows(x, "x", 4 if debiased else 2)
    s = _indicator(mask, rows)
    v = _direction(v, rows)
    if not varies(x):
        warn_undefined("CKA", ["x"])
        nan = rows.new_full((), float("nan"))
        return rows, _Moments(kk=nan, ka=nan, kb=nan, aa=nan, ab=nan, bb=nan)
    with full_precision(rows.device):
        rows = rows - rows.mean(0)
        t = rows @ v
        # Centering 1_S centers A and B for the biased estimator; U-centering follows below.
        s = s if debiased else s - s.mean()
        u = rows.mT @ s
        st = s @ t
        ss = s @ s
        tt = t @ t
        full = _Moments(
            kk=squared_gram_norm(rows),
            ka=2 * u @ (rows.mT @ t),
            kb=u @ u,
            aa=2 * (tt * ss + st**2),
            ab=2 * st * ss,
            bb=ss**2,
        )
        if not debiased:
            return rows, full
        # Rows of the centered K sum to 0, so without the diagonal to -K_ii.
        k = _Hollow(diagonal=rows.square().sum(1), row_sums=-rows.square().sum(1))
        a = _Hollow(diagonal=2 * s * t, row_sums=t * s.sum() + s * t.sum() - 2 * s * t)
        b = _Hollow(diagonal=s, row_sums=s * (s.sum() - 1))
        return rows, _Moments(
            kk=k.u_dot(full.kk, k),
            ka=k.u_dot(full.ka, a),
            kb=k.u_dot(full.kb, b),
            aa=a.u_dot(full.aa, a),
            ab=a.u_dot(full.ab, b),
            bb=b.u_dot(full.bb, b),
        )


class _Hollow(NamedTuple):
    """What U-centering needs of a symmetric matrix.

    Attributes:
        diagonal: (n,).
        row_sums: (n,), sums of the rows without the diagonal.
    """

    diagonal: Tensor
    row_sums: Tensor

    def u_dot(self, full: Tensor, matrix: _Hollow) -> Tensor:
        """Return the product of the two U-centered matrices from that of the full ones.

        Args:
            full: the Frobenius product of this matrix with the second one.
            matrix: the second one.
        """
        n = len(self.row_sums)
        hollow = full - self.diagonal @ matrix.diagonal
        totals = self.row_sums.sum() * matrix.row_sums.sum() / ((n - 1) * (n - 2))
        return hollow - 2 / (n - 2) * (self.row_sums @ matrix.row_sums) + totals


def squared_gram_norm(rows: Tensor) -> Tensor:
    """Return ‖X Xᵀ‖² of rows (n, d), from the smaller of X Xᵀ and Xᵀ X."""
    return gram(rows if len(rows) <= rows.shape[1] else rows.mT).square().sum()


def _indicator(mask: Tensor, rows: Tensor) -> Tensor:
    """Return 1_S, (n,) in the dtype of the rows."""
    if mask.dtype != torch.bool or mask.shape != (len(rows),):
        raise UserError(
            f"the mask must be bool of shape ({len(rows)},), one entry a row, got {mask.dtype} of "
            f"shape {tuple(mask.shape)}"
        )
    if not bool(mask.any()) or bool(mask.all()):
        raise UserError(
            "the mask must choose some rows and leave some, or nothing moves against the rest"
        )
    return mask.to(rows)


def _direction(v: Tensor | None, rows: Tensor) -> Tensor:
    """Return v with length 1, a direction of ones if there is none; detached."""
    v = rows.new_ones(rows.shape[1]) if v is None else v
    if v.shape != (rows.shape[1],):
        raise UserError(
            f"the direction must have shape ({rows.shape[1]},), one entry a column, got "
            f"{tuple(v.shape)}"
        )
    v = v.detach().to(rows)
    if not bool(v.isfinite().all()) or not bool(v.any()):
        raise UserError("the direction must be finite and not zero")
    return cast(Tensor, v / torch.linalg.vector_norm(v))
