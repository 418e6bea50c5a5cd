"""Kernel alignment: how similar two representations are in the relations between the same items.

    A(X, Y) = <K, L> / (‖K‖ ‖L‖),    K = X Xᵀ,  L = Y Yᵀ    (Frobenius product and norms)

It is the cosine between two Gram matrices: 1 when they are proportional, invariant to orthogonal
maps and to one scale of the features. The widths of X and Y may differ. With centering it is CKA.

No product of two Gram matrices is formed: <K, L> is a sum over elements. Where the features are
narrower than the batch is long, the same number comes from their cross products,
<K, L> = ‖Xᵀ Y‖². The uncentered forms, which training uses, have a hand-written gradient in
`_fused.py`, ordinary features with centered and row-scaled kernels one in `_fused_centered.py`; the
rest is autograd.
"""

from __future__ import annotations

from typing import Literal, cast, get_args

from torch import Tensor

from tutelage.core.precision import full_precision
from tutelage.errors import UserError
from tutelage.similarity._alignment_by_autograd import alignment_by_autograd
from tutelage.similarity._checks import as_same_dtype, check_tensors
from tutelage.similarity._fused import FusedAlignment
from tutelage.similarity._fused_centered import centered_rows
from tutelage.similarity._gram import centered, gram_is_cheaper, unit_rows

Scale = Literal["rows", "cosine"]
Estimator = Literal["biased", "debiased"]

SCALES = (None, *get_args(Scale))
ESTIMATORS = get_args(Estimator)


def alignment(
    x: Tensor,
    y: Tensor,
    *,
    center: bool = False,
    scale: Scale | None = None,
    estimator: Estimator = "biased",
) -> Tensor:
    """Return the kernel alignment A(x, y) of two representations of the same N items.

        A = <K, L> / (‖K‖ ‖L‖)

    `center=False` is the form of the official RCKA and PCKA losses. `center=True` takes HKH and HLH
    instead, H = I - 11ᵀ/N, and is the biased linear CKA. `estimator="debiased"` takes the
    U-centered Gram matrices (so it centers in any case) and is the debiased CKA.

    Source: S. Kornblith et al., ICML 2019 (CKA); Z. Zhou et al., IJCAI 2024, in the form of the
    official code Klayand/PCKA@cec05de `cka_loss.py` (uncentered, row scaling); L. Song et al.,
    JMLR 2012 (U-centering).

    >>> import torch
    >>> x = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    >>> round(alignment(x, 5 * x).item(), 4), round(alignment(x, x[:, :1]).item(), 4)
    (1.0, 0.7906)

    Args:
        x: (..., N, P), floating; leading dimensions are batched.
        y: (..., N, P'), the same items in the same order.
        center: center the kernels (through the features: a Gram matrix would lose digits).
        scale: None; `"rows"`: K_ij / ‖x_i‖, the official `with_l2_norm` (rows only, so it is not
            the cosine kernel); `"cosine"`: K_ij / (‖x_i‖ ‖x_j‖). Scaling comes before centering.
        estimator: `"biased"` or `"debiased"`.

    Returns:
        (...,); float32 for half-precision inputs and inside autocast. It can be differentiated
        once; the gradient grows as 1 / ‖y‖. Value and gradient are right from scale 1e-15 to 1e15.
        Limits: 0 with zero gradient where one side is zero, or constant when centered; a zero row
        of a row-scaled Gram contributes 0 and passes no gradient through its norm; NaN or infinity
        in, NaN out.

    Raises:
        UserError: If N differs or is below 2 (4 if debiased), leading dimensions differ, there are
            fewer than two dimensions, a dtype is not floating, or an option is unknown.
    """
    _check(x, y, scale, estimator)
    with full_precision(y.device):
        x, y = as_same_dtype(x, y)
        rows_scaled = scale == "rows"
        in_gram_space = gram_is_cheaper(x.shape[-2], (x.shape[-1], y.shape[-1]), rows_scaled)
        debiased = estimator == "debiased"
        if center and rows_scaled and not debiased:
            ordinary = centered_rows(x, y, in_gram_space)
            if ordinary is not None:
                return ordinary
        if debiased or (center and rows_scaled):
            return alignment_by_autograd(x, y, scale, debiased=debiased)
        if scale == "cosine":
            x, y = unit_rows(x), unit_rows(y)
        if not center:
            return _fused(x, y, rows_scaled, in_gram_space)
        # Centered features make the uncentered form the centered one. Where a side is constant,
        # the unit is 0 and masks the alignment of rounding noise.
        factor_x = centered(x)
        factor_y = centered(y)
        alive = (factor_x.unit * factor_y.unit > 0)[..., 0, 0]
        return _fused(factor_x.data, factor_y.data, False, in_gram_space) * alive


def alignment_pair(
    x: Tensor,
    y: Tensor,
    *,
    center: bool = False,
    scale: Scale | None = None,
    estimator: Estimator = "biased",
) -> tuple[Tensor, Tensor]:
    """Return `alignment(x, y)`, between the N items, and `alignment(x.mT, y.mT)`, between columns.

    Uncentered, both come from three products on the shorter side, K = x xᵀ, L = y yᵀ and M = x yᵀ:

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
        center: as in `alignment`; intra centers over items, inter over columns.
        scale: as in `alignment`; lengths are those of items for intra, of columns for inter.
        estimator: as in `alignment`.

    Returns:
        Intra and inter alignment, (...,) each; limits as in `alignment`.

    Raises:
        UserError: As `alignment`, for both sides; also if P differs.
    """
    _check(x, y, scale, estimator)
    if x.shape != y.shape:
        raise UserError(
            "the inter alignment needs the same columns on both sides, got shapes "
            f"{tuple(x.shape)} and {tuple(y.shape)}; switch it off or bring both sides to one width"
        )
    if center or estimator == "debiased" or scale == "cosine":
        intra = alignment(x, y, center=center, scale=scale, estimator=estimator)
        inter = alignment(x.mT, y.mT, center=center, scale=scale, estimator=estimator)
        return intra, inter
    _check(x.mT, y.mT, scale, estimator)
    with full_precision(y.device):
        x, y = as_same_dtype(x, y)
        # The fused form wants the shorter side first; a tall x swaps the two results.
        tall = x.shape[-2] > x.shape[-1]
        if tall:
            x, y = x.mT, y.mT
        values = FusedAlignment.apply(x, y, scale == "rows", (True, True))
        between_rows, between_columns = cast("tuple[Tensor, Tensor]", values)
        return (between_columns, between_rows) if tall else (between_rows, between_columns)


def _check(x: Tensor, y: Tensor, scale: str | None, estimator: str) -> None:
    if scale not in SCALES or estimator not in ESTIMATORS:
        raise UserError(
            f"alignment knows scale in {SCALES} and estimator in {ESTIMATORS}, got "
            f"scale={scale!r} and estimator={estimator!r}; choose one of these"
        )
    check_tensors("alignment", x, y)
    if not (x.dtype.is_floating_point and y.dtype.is_floating_point):
        raise UserError(
            f"alignment needs floating-point inputs, got {x.dtype} and {y.dtype}; use .float()"
        )
    columns = x.ndim > 1 and y.ndim > 1 and x.shape[-1] and y.shape[-1]
    if not columns or x.shape[:-1] != y.shape[:-1]:
        raise UserError(
            "alignment needs (..., N, P) and (..., N, P') of the same N items, got shapes "
            f"{tuple(x.shape)} and {tuple(y.shape)}; give both sides the same batch, flattened to "
            "one row per item"
        )
    min_rows = 4 if estimator == "debiased" else 2
    if x.shape[-2] < min_rows:
        raise UserError(
            f"the {estimator} alignment needs at least {min_rows} rows to relate, got shapes "
            f"{tuple(x.shape)} and {tuple(y.shape)}; use a larger batch and drop a shorter last one"
        )


def _fused(x: Tensor, y: Tensor, rows_scaled: bool, in_gram_space: bool) -> Tensor:
    """Return the uncentered alignment of rows, as intra of x and y or as inter of xᵀ and yᵀ."""
    if in_gram_space:
        values = FusedAlignment.apply(x, y, rows_scaled, (True, False))
        return cast("tuple[Tensor, None]", values)[0]
    values = FusedAlignment.apply(x.mT, y.mT, rows_scaled, (False, True))
    return cast("tuple[None, Tensor]", values)[1]
