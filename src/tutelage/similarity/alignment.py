"""Kernel alignment: how alike two representations of the same items see the relations between these items.

    A(X, Y) = <K, L> / (‖K‖ ‖L‖),    K = X Xᵀ,  L = Y Yᵀ        (Frobenius product and norms)

It is the cosine between two Gram matrices: 1 when they are proportional, blind to orthogonal maps and to one scale of the
features, so that the widths of X and Y may differ. With centring it is CKA.

Never a product of two Grams: <K, L> is a sum over elements, and where the features are narrower than the batch is long the
same number comes from their cross products, <K, L> = ‖Xᵀ Y‖². The uncentred forms, which training uses, have their gradient
written out (`_Raw`, `_Rows`); everything else is ordinary autograd.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from tutelage.errors import UserError
from tutelage.similarity.gram import (
    Factor,
    centred,
    factor,
    full_precision,
    inverse,
    product,
    promote,
    u_centre,
    unit_rows,
)

SCALES = (None, "rows", "cosine")
ESTIMATORS = ("biased", "debiased")


def alignment(
    x: Tensor, y: Tensor, *, center: bool = False, scale: str | None = None, estimator: str = "biased"
) -> Tensor:
    """Return the kernel alignment A(x, y) of two representations of the same N items.

        A = <K, L> / (‖K‖ ‖L‖)

    `center=False` is the form that the official RCKA and PCKA losses use; `center=True` replaces K by HKH and L by HLH,
    H = I - 11ᵀ/N, and is the biased linear CKA; `estimator="debiased"` takes the U-centred Grams instead (it centres in any
    case) and is the debiased CKA.

    Source: S. Kornblith et al., ICML 2019, eq. 2 and 3 (CKA); Z. Zhou et al., IJCAI 2024, with the official code
    Klayand/PCKA@cec05de `cka_loss.py` (uncentred form, row scaling); U-centring: L. Song et al., JMLR 2012.

    >>> import torch
    >>> x = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    >>> alignment(x, 5 * x).item(), round(alignment(x, x[:, :1]).item(), 4)
    (1.0, 0.7559)

    Args:
        x: (..., N, P), floating; leading dimensions are batched.
        y: (..., N, P'), the same items in the same order; usually the one that is trained.
        center: centre the kernels (in fact the features: centring a Gram loses digits).
        scale: None; `"rows"`: K_ij / ‖x_i‖, the official `with_l2_norm` (rows only, not the cosine kernel); `"cosine"`:
            K_ij / (‖x_i‖ ‖x_j‖). Scaling comes before centring.
        estimator: `"biased"` or `"debiased"`.

    Returns:
        (...,), float32 for half-precision inputs (also inside autocast). Right in value and gradient from scale 1e-15 to
        1e15. Limits: 0 with zero gradient where one side is all zero, or constant when centred; a zero row of a row-scaled
        Gram contributes 0, and no gradient passes through its norm; NaN or infinity in, NaN out. The gradient scales
        with 1 / ‖y‖. It can be differentiated once.

    Raises:
        UserError: N differs or is below 2 (4 when debiased), leading dimensions differ, fewer than two dimensions, a
            dtype that is not floating, or an unknown option.
    """
    _check(x, y, scale, estimator)
    with full_precision(y.device):
        x, y = _same_dtype(x, y)
        debiased = estimator == "debiased"
        fits = x.shape[-2] == y.shape[-2] if _gram_is_cheaper(x, y, scale) else x.shape[-1] == y.shape[-1]
        if debiased or not fits or (center and scale == "rows"):
            return _general(x, y, center or debiased, scale, debiased)
        if scale == "cosine":
            x, y = unit_rows(x), unit_rows(y)
        alive = None
        if center:
            fx, fy = centred(x), centred(y)
            x, y, alive = fx.data, fy.data, (fx.unit * fy.unit > 0)[..., 0, 0]
        if _gram_is_cheaper(x, y, scale):
            value, _ = _fused(x, y, scale, True, False)
        else:
            _, value = _fused(x.mT, y.mT, scale, False, True)
        return value if alive is None else value * alive


def alignment_pair(
    x: Tensor, y: Tensor, *, center: bool = False, scale: str | None = None, estimator: str = "biased"
) -> tuple[Tensor, Tensor]:
    """Return `alignment(x, y)` and `alignment(x.mT, y.mT)`: between the N items, and between the P columns.

    Uncentred, both come from the same three products of the shorter side, K = x xᵀ, L = y yᵀ and M = x yᵀ:

        intra = <K, L> / (‖K‖ ‖L‖)        inter = <M, M> / (‖K‖ ‖L‖)

    and with `scale="rows"`, W = diag(1 / (‖x_:j‖ ‖y_:j‖)), from three more: inter = <M, x W yᵀ> over the roots of
    <K, x W_x xᵀ> and <L, y W_y yᵀ>. The P × P (or N × N) matrices of the longer side are never built.

    >>> import torch
    >>> x = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    >>> intra, inter = alignment_pair(x, x.flip(1))
    >>> round(intra.item(), 4), round(inter.item(), 4)
    (1.0, 1.0)

    Args:
        x: (..., N, P), floating; leading dimensions are batched.
        y: (..., N, P), the same items and the same columns.
        center, scale, estimator: as in `alignment`; norms and means are those of rows for intra, of columns for inter.

    Returns:
        Intra and inter alignment, each (...,); limits as in `alignment`.

    Raises:
        UserError: as `alignment`, for both sides; also where P differs.
    """
    _check(x, y, scale, estimator)
    if x.shape[-1] != y.shape[-1]:
        raise UserError(
            f"the inter alignment needs the same columns on both sides, got shapes {tuple(x.shape)} and {tuple(y.shape)}; "
            "ask for the intra alignment only, or bring both to one width"
        )
    _check(x.mT, y.mT, scale, estimator)
    if center or estimator == "debiased" or scale == "cosine":
        intra = alignment(x, y, center=center, scale=scale, estimator=estimator)
        return intra, alignment(x.mT, y.mT, center=center, scale=scale, estimator=estimator)
    with full_precision(y.device):
        x, y = _same_dtype(x, y)
        if x.shape[-2] <= x.shape[-1]:
            return _fused(x, y, scale, True, True)
        inter, intra = _fused(x.mT, y.mT, scale, True, True)
        return intra, inter


def _check(x: Tensor, y: Tensor, scale: str | None, estimator: str) -> None:
    if scale not in SCALES:
        raise UserError(f"scale must be one of {SCALES}, got {scale!r}")
    if estimator not in ESTIMATORS:
        raise UserError(f"estimator must be one of {ESTIMATORS}, got {estimator!r}")
    if not (x.dtype.is_floating_point and y.dtype.is_floating_point):
        raise UserError(f"alignment needs floating-point inputs, got {x.dtype} and {y.dtype}; convert them with .float()")
    if x.ndim < 2 or x.shape[:-1] != y.shape[:-1]:
        raise UserError(
            f"alignment needs (..., N, P) and (..., N, P') with the same N items, got shapes {tuple(x.shape)} and "
            f"{tuple(y.shape)}; give both sides the same batch, flattened to one row per item"
        )
    least = 4 if estimator == "debiased" else 2
    if x.shape[-2] < least:
        raise UserError(
            f"the {estimator} alignment needs at least {least} items, got shapes {tuple(x.shape)} and {tuple(y.shape)}; "
            "use a larger batch (drop the last, short one)"
        )


def _same_dtype(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    x, y = promote(x), promote(y)
    if x.dtype != y.dtype:
        dtype = torch.promote_types(x.dtype, y.dtype)
        x, y = x.to(dtype), y.to(dtype)
    return x, y


def _gram_is_cheaper(x: Tensor, y: Tensor, scale: str | None) -> bool:
    """Compare the N × N products with the P × P ones, of which row scaling needs twice as many."""
    n, p, q = x.shape[-2], x.shape[-1], y.shape[-1]
    return n * (p + q) <= (p * p + p * q + q * q) * (2 if scale == "rows" else 1)


# ---- the general form: every option, by autograd ---------------------------------------------------------------------


def _general(x: Tensor, y: Tensor, center: bool, scale: str | None, debiased: bool) -> Tensor:
    sides = _factors(x, center, scale), _factors(y, center, scale)
    if not _gram_is_cheaper(x, y, scale):
        return _in_feature_space(*sides, debiased)
    k, l = (product(left, right) for left, right in sides)
    if debiased:
        k, l = u_centre(k), u_centre(l)
    return _inner(k, l) * inverse(_norm(k) * _norm(l))


def _factors(x: Tensor, center: bool, scale: str | None) -> tuple[Factor, Factor]:
    """Return the two factors of the kernel matrix; they are one and the same unless rows are scaled."""
    wrap = centred if center else factor
    left = wrap(x if scale is None else unit_rows(x))
    return left, wrap(x) if scale == "rows" else left


def _in_feature_space(x: tuple[Factor, Factor], y: tuple[Factor, Factor], debiased: bool) -> Tensor:
    """Return <K, L> / (‖K‖ ‖L‖) from cross products of features; debiased: of the U-centred K, L."""
    cross, self_x, self_y = (_kernel_product(a, b, debiased) for a, b in ((x, y), (x, x), (y, y)))
    return cross * _root(self_x) * _root(self_y)


def _kernel_product(x: tuple[Factor, Factor], y: tuple[Factor, Factor], debiased: bool) -> Tensor:
    (a, b), (c, d) = x, y
    total = _inner(product(a.mT, c.mT), product(b.mT, d.mT))
    if not debiased:
        return total
    n = a.data.shape[-2]
    k = (a.data * b.data).sum(-1) * (a.unit * b.unit)[..., 0]
    l = (c.data * d.data).sum(-1) * (c.unit * d.unit)[..., 0]
    return total - n / (n - 2) * (k * l).sum(-1) + k.sum(-1) * l.sum(-1) / ((n - 1) * (n - 2))
