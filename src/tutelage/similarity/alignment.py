"""Kernel alignment: how alike two representations see the relations between the same items.

    A(X, Y) = <K, L> / (‖K‖ ‖L‖),    K = X Xᵀ,  L = Y Yᵀ    (Frobenius product and norms)

It is the cosine between two Gram matrices: 1 when they are proportional, blind to orthogonal maps and to one
scale of the features, so the widths of X and Y may differ. With centring it is CKA.

There is never a product of two Grams: <K, L> is a sum over elements. Where the features are narrower than the
batch is long, the same number comes from their cross products, <K, L> = ‖Xᵀ Y‖². The uncentred forms, which
training uses, have their gradient written out in `fused.py`; the rest is ordinary autograd.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from tutelage.errors import UserError
from tutelage.similarity.fused import FusedAlignment
from tutelage.similarity.gram import (
    Factor,
    centred,
    dot,
    factor,
    full_precision,
    gram_is_cheaper,
    inverse,
    kernel_dot,
    norm,
    product,
    promote,
    u_centred,
    unit_rows,
)

SCALES = (None, "rows", "cosine")
ESTIMATORS = ("biased", "debiased")


def alignment(
    x: Tensor, y: Tensor, *, center: bool = False, scale: str | None = None, estimator: str = "biased"
) -> Tensor:
    """Return the kernel alignment A(x, y) of two representations of the same N items.

        A = <K, L> / (‖K‖ ‖L‖)

    `center=False` is the form of the official RCKA and PCKA losses; `center=True` takes HKH and HLH instead,
    H = I - 11ᵀ/N, and is the biased linear CKA; `estimator="debiased"` takes the U-centred Grams (so it
    centres in any case) and is the debiased CKA.

    Source: S. Kornblith et al., ICML 2019 (CKA); Z. Zhou et al., IJCAI 2024, in the form of the official code
    Klayand/PCKA@cec05de `cka_loss.py` (uncentred, row scaling); L. Song et al., JMLR 2012 (U-centring).

    >>> import torch
    >>> x = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    >>> round(alignment(x, 5 * x).item(), 4), round(alignment(x, x[:, :1]).item(), 4)
    (1.0, 0.7906)

    Args:
        x: (..., N, P), floating; leading dimensions are batched.
        y: (..., N, P'), the same items in the same order.
        center: centre the kernels (the features are centred: a Gram would lose digits).
        scale: None; `"rows"`: K_ij / ‖x_i‖, the official `with_l2_norm` (rows only, so it is not the cosine
            kernel); `"cosine"`: K_ij / (‖x_i‖ ‖x_j‖). The kernel is scaled first and centred then.
        estimator: `"biased"` or `"debiased"`.

    Returns:
        (...,); float32 for half-precision inputs and inside autocast. It can be differentiated once; the
        gradient grows as 1 / ‖y‖. Value and gradient are right from scale 1e-15 to 1e15. Limits: 0 with zero
        gradient where one side is zero, or constant when centred; a zero row of a row-scaled Gram
        contributes 0 and passes no gradient through its norm; NaN or infinity in, NaN out.

    Raises:
        UserError: N differs or is below 2 (4 if debiased), leading dimensions differ, there are fewer than
            two dimensions, a dtype is not floating, or an option is unknown.
    """
    _check(x, y, scale, estimator)
    with full_precision(y.device):
        x, y = _same_dtype(x, y)
        in_gram_space = gram_is_cheaper(x.shape[-2], (x.shape[-1], y.shape[-1]), scale == "rows")
        debiased = estimator == "debiased"
        if debiased or (center and scale == "rows"):
            return _general(x, y, center, scale, debiased)
        if scale == "cosine":
            x, y = unit_rows(x), unit_rows(y)
        if not center:
            return _fused(x, y, scale == "rows", in_gram_space)
        one, two = centred(x), centred(y)
        alive = (one.unit * two.unit > 0)[..., 0, 0]
        return _fused(one.data, two.data, False, in_gram_space) * alive


def alignment_pair(
    x: Tensor, y: Tensor, *, center: bool = False, scale: str | None = None, estimator: str = "biased"
) -> tuple[Tensor, Tensor]:
    """Return `alignment(x, y)`, between the N items, and `alignment(x.mT, y.mT)`, between the P columns.

    Uncentred, both come from three products on the shorter side, K = x xᵀ, L = y yᵀ and M = x yᵀ:

        intra = <K, L> / (‖K‖ ‖L‖)        inter = <M, M> / (‖K‖ ‖L‖)

    and row-scaled from three more, with X and Y for x and y with columns of length 1:

        inter = <M, X Yᵀ> / √(<K, X Xᵀ> <L, Y Yᵀ>)

    The P × P (or N × N) matrices of the longer side are never built. With `center`, `"cosine"` or
    `"debiased"` the two share nothing and are computed one after the other.

    >>> import torch
    >>> x = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    >>> [round(a.item(), 4) for a in alignment_pair(x, x.flip(0))]
    [0.7, 1.0]

    Args:
        x: (..., N, P), floating; leading dimensions are batched.
        y: (..., N, P), the same items and the same columns.
        center: as in `alignment`; intra centres over items, inter over columns.
        scale: as in `alignment`; lengths are those of items for intra, of columns for inter.
        estimator: as in `alignment`.

    Returns:
        Intra and inter alignment, (...,) each; limits as in `alignment`.

    Raises:
        UserError: as `alignment`, for both sides; also where P differs.
    """
    _check(x, y, scale, estimator)
    if x.shape != y.shape:
        raise UserError(
            f"the inter alignment needs the same columns on both sides, got shapes {tuple(x.shape)} and "
            f"{tuple(y.shape)}; switch it off or bring both sides to one width"
        )
    if center or estimator == "debiased" or scale == "cosine":
        intra = alignment(x, y, center=center, scale=scale, estimator=estimator)
        return intra, alignment(x.mT, y.mT, center=center, scale=scale, estimator=estimator)
    _check(x.mT, y.mT, scale, estimator)
    with full_precision(y.device):
        x, y = _same_dtype(x, y)
        wide = x.shape[-2] <= x.shape[-1]
        if not wide:
            x, y = x.mT, y.mT
        values = FusedAlignment.apply(x, y, scale == "rows", (True, True))
        rows, columns = cast("tuple[Tensor, Tensor]", values)
        return (rows, columns) if wide else (columns, rows)


@dataclass(frozen=True)
class Kernel:
    """How relations are seen: the options of `alignment` in one object.

    >>> round(Kernel(scale="rows").between(torch.eye(3), 2 * torch.eye(3)).item(), 4)
    1.0

    Attributes:
        center: centre the kernels.
        scale: None, `"rows"` or `"cosine"`.
        estimator: `"biased"` or `"debiased"`.
    """

    center: bool = False
    scale: str | None = None
    estimator: str = "biased"

    def between(self, x: Tensor, y: Tensor) -> Tensor:
        """Return `alignment(x, y)` with these options."""
        return alignment(x, y, center=self.center, scale=self.scale, estimator=self.estimator)

    def pair(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return `alignment_pair(x, y)` with these options."""
        return alignment_pair(x, y, center=self.center, scale=self.scale, estimator=self.estimator)


def _check(x: Tensor, y: Tensor, scale: str | None, estimator: str) -> None:
    if scale not in SCALES or estimator not in ESTIMATORS:
        raise UserError(
            f"alignment knows scale in {SCALES} and estimator in {ESTIMATORS}, got scale={scale!r} and "
            f"estimator={estimator!r}; choose one of these"
        )
    if not (x.dtype.is_floating_point and y.dtype.is_floating_point):
        raise UserError(f"alignment needs floating-point inputs, got {x.dtype} and {y.dtype}; use .float()")
    if x.ndim < 2 or x.shape[:-1] != y.shape[:-1]:
        raise UserError(
            f"alignment needs (..., N, P) and (..., N, P') of the same N items, got shapes {tuple(x.shape)} "
            f"and {tuple(y.shape)}; give both sides the same batch, flattened to one row per item"
        )
    least = 4 if estimator == "debiased" else 2
    if x.shape[-2] < least:
        raise UserError(
            f"the {estimator} alignment needs at least {least} rows to relate, got shapes {tuple(x.shape)} "
            f"and {tuple(y.shape)}; use a larger batch and drop a shorter last one"
        )


def _same_dtype(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    x, y = promote(x), promote(y)
    if x.dtype != y.dtype:
        dtype = torch.promote_types(x.dtype, y.dtype)
        x, y = x.to(dtype), y.to(dtype)
    return x, y


def _fused(x: Tensor, y: Tensor, scaled: bool, in_gram_space: bool) -> Tensor:
    if in_gram_space:
        values = FusedAlignment.apply(x, y, scaled, (True, False))
        return cast("tuple[Tensor, None]", values)[0]
    values = FusedAlignment.apply(x.mT, y.mT, scaled, (False, True))
    return cast("tuple[None, Tensor]", values)[1]


# ---- every option, by autograd ----


def _general(x: Tensor, y: Tensor, center: bool, scale: str | None, debiased: bool) -> Tensor:
    one, two = (_factors(side, center or debiased, scale) for side in (x, y))
    if gram_is_cheaper(x.shape[-2], (x.shape[-1], y.shape[-1]), scale == "rows"):
        kernels = product(*one), product(*two)
        if debiased:
            kernels = u_centred(kernels[0]), u_centred(kernels[1])
        value = dot(*kernels) * inverse(norm(kernels[0]) * norm(kernels[1]))
    else:
        value = kernel_dot(one, two, debiased)
        for side in (one, two):
            squared = kernel_dot(side, side, debiased)
            noise = 8 * torch.finfo(x.dtype).eps if debiased else 0.0
            value = value * squared.masked_fill(squared <= noise, torch.inf).rsqrt()
    return value if x.ndim == 2 else value[..., 0, 0]


def _factors(x: Tensor, center: bool, scale: str | None) -> tuple[Factor, Factor]:
    """Return the two factors of the kernel matrix; they are one and the same unless rows are scaled."""
    wrap = centred if center else factor
    left = wrap(x if scale is None else unit_rows(x))
    return left, wrap(x) if scale == "rows" else left
