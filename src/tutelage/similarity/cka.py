"""CKA of two representations for analysis: linear, centered, debiased and in float64 by default."""

from __future__ import annotations

from torch import Tensor

from tutelage.core.precision import full_precision
from tutelage.errors import UserError
from tutelage.similarity._checks import as_rows, check_choice, varies, warn_undefined
from tutelage.similarity._gram import h_centered
from tutelage.similarity._products import gram
from tutelage.similarity.alignment import Estimator
from tutelage.similarity.hsic import centered_dots, paired_rows
from tutelage.similarity.kernels import LINEAR, KernelFunction


def cka(
    x: Tensor,
    y: Tensor,
    *,
    kernel: KernelFunction = LINEAR,
    estimator: Estimator = "debiased",
) -> Tensor:
    """Return the centered kernel alignment of two representations of the same n items.

        CKA = HSIC(K, L) / √(HSIC(K, K) HSIC(L, L))

    the cosine of the centered Gram matrices: invariant to orthogonal maps, translation and one
    scale, not to other linear maps. For a linear kernel and n > 1.5 d it comes from cross products,
    without an n × n matrix:

        biased    ‖XcᵀYc‖² / (‖XcᵀXc‖ ‖YcᵀYc‖)
        debiased  S(X, Y) / √(S(X, X) S(Y, Y)),   a_i = ‖xc_i‖², b_i = ‖yc_i‖²,
                  S(X, Y) = ‖XcᵀYc‖² - n/(n - 2) Σ a_i b_i + Σa Σb / ((n - 1)(n - 2))

    The biased value of unrelated features grows with their width (`expected_cka_by_chance`); the
    debiased one stays at 0 and may be negative: nothing is clamped. For a training loss take
    `alignment`, which is faster and gives 0 instead of NaN for a constant side.

    Source: Kornblith et al., ICML 2019, equations 1-4, and google-research/google-research@10bf941
    `representation_similarity/Demo.ipynb` (both estimators).

    >>> import torch
    >>> x = torch.tensor([[0.0, 1.0], [1.0, 0.0], [2.0, 1.0], [4.0, 5.0], [1.0, 3.0]])
    >>> round(cka(x, 3 * x.flip(1) + 100).item(), 6), round(cka(x, x[:, :1]).item(), 4)
    (1.0, 0.4199)
    >>> round(cka(x, x[:, :1], estimator="biased").item(), 4)
    0.8031

    Args:
        x: (n, ...), floating; further dimensions are flattened.
        y: (n, ...), the same items in the same order.
        kernel: `LinearKernel()`, `CosineKernel()` or `RBFKernel(t, median)`; for the last,
            bandwidths differ between papers, see there.
        estimator: `"debiased"` (U-centered Gram matrices) or `"biased"`.

    Returns:
        0-d float64, right at every scale and under offsets up to what the dtype of x still
        resolves; differentiable, its gradient grows as 1 / ‖y‖. NaN with a warning that names the
        side where it does not vary.

    Raises:
        UserError: If n differs or is below 4 (2 if biased), if features are 1-D, empty, integer,
            NaN or infinite, or if all rows are equal under an RBF kernel with a median bandwidth.
    """
    check_choice(estimator, Estimator, "the estimator of cka")
    debiased = estimator == "debiased"
    rows_x, rows_y = paired_rows(x, y, 4 if debiased else 2)
    with full_precision(rows_x.device):
        dots = centered_dots(rows_x, rows_y, kernel, debiased)
        # `varies` looks at the features in their own dtype: float64 would count the rounding of a
        # constant float32 layer as variation.
        constant_sides = [
            name
            for name, side, own in (("x", x, dots.xx), ("y", y, dots.yy))
            if not (bool(own.detach() > 0) and varies(side))
        ]
        if constant_sides:
            warn_undefined("CKA", constant_sides)
            return dots.xy * float("nan")
        return dots.xy / (dots.xx.sqrt() * dots.yy.sqrt())


def angular_cka(x: Tensor, y: Tensor, *, kernel: KernelFunction = LINEAR) -> Tensor:
    """Return θ = arccos of the biased CKA, in radians: a metric, which 1 - CKA is not.

    Source: A. Williams et al., NeurIPS 2021, section 2.2; ahwillia/netrep@0186b8a `LinearCKA`.

    >>> import torch
    >>> x = torch.tensor([[0.0, 1.0], [1.0, 0.0], [2.0, 1.0], [4.0, 5.0]])
    >>> round(angular_cka(x, x[:, :1]).item(), 4)
    0.4705

    Args:
        x: (n, ...), floating; further dimensions are flattened.
        y: (n, ...), the same items in the same order.
        kernel: as in `cka`.

    Returns:
        0-d float64 in [0, π/2]; within 3e-8 of 0 for equal sides. For analysis: its gradient is
        infinite there.

    Raises:
        UserError: As `cka` with the biased estimator.
    """
    return cka(x, y, kernel=kernel, estimator="biased").clamp(-1.0, 1.0).arccos()


def participation_ratio(x: Tensor, *, kernel: KernelFunction = LINEAR) -> Tensor:
    """Return the effective number of dimensions of x.

        PR = (tr HKH)² / ‖HKH‖² = (Σ λ)² / Σ λ²

    with λ the eigenvalues of the covariance.

    >>> import torch
    >>> x = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    >>> round(participation_ratio(x).item(), 4)
    2.0

    Args:
        x: (n, ...), floating.
        kernel: as in `cka`.

    Returns:
        0-d float64 between 1 and the smaller of n - 1 and the width; NaN with a warning where x is
        constant.

    Raises:
        UserError: As `cka` with the biased estimator.
    """
    rows = as_rows(x, "x")
    with full_precision(rows.device):
        if not varies(x):
            warn_undefined("the participation ratio", ["x"])
            return rows.new_full((), float("nan"))
        ratio = _participation_ratio(rows, kernel)
        if bool(ratio.isnan()):  # the items differ, but not for this kernel
            warn_undefined("the participation ratio", ["x"])
        return ratio


def expected_cka_by_chance(x: Tensor, y: Tensor, *, kernel: KernelFunction = LINEAR) -> Tensor:
    """Return the mean of the biased CKA over random pairings of the rows of y with those of x.

        mean over all n! pairings = √(PR(x) PR(y)) / (n - 1)      (exact; PR: `participation_ratio`)

    The debiased CKA has mean 0. Report this with every biased value: one near it says nothing.

    Source: derived for this library: the mean of <HKH, P HLH Pᵀ> over permutations P is
    tr HKH tr HLH / (n - 1); checked by enumeration.

    >>> import torch
    >>> x = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    >>> round(expected_cka_by_chance(x, x[:, :1]).item(), 4)
    0.4714

    Args:
        x: (n, ...), floating.
        y: (n, ...), floating.
        kernel: as in `cka`.

    Returns:
        0-d float64; NaN with a warning that names the side where it does not vary.

    Raises:
        UserError: As `cka` with the biased estimator.
    """
    rows_x, rows_y = paired_rows(x, y, 2)
    constant_sides = [name for name, side in (("x", x), ("y", y)) if not varies(side)]
    if constant_sides:
        warn_undefined("the chance level", constant_sides)
        return rows_x.new_full((), float("nan"))
    with full_precision(rows_x.device):
        ratios = [_participation_ratio(rows, kernel) for rows in (rows_x, rows_y)]
        constant_sides = [
            name for name, ratio in zip("xy", ratios, strict=True) if bool(ratio.isnan())
        ]
        if constant_sides:
            warn_undefined("the chance level", constant_sides)
        return (ratios[0] * ratios[1]).sqrt() / (len(rows_x) - 1)


def expected_cka_of_gaussians(n: int, p: int, q: int) -> float:
    """Return about what the biased linear CKA of independent Gaussian features is.

        √(p q / ((n + p)(n + q)))

    >>> round(expected_cka_of_gaussians(4096, 64, 64), 3)
    0.015
    >>> round(expected_cka_of_gaussians(64, 512, 512), 3)
    0.889

    Args:
        n: items.
        p: width of x.
        q: width of y.

    Raises:
        UserError: If a number is not positive.
    """
    if min(n, p, q) < 1:
        raise UserError(
            f"a chance level needs positive numbers of items and columns, got {n}, {p} and {q}"
        )
    return float((p * q / ((n + p) * (n + q))) ** 0.5)


def _participation_ratio(rows: Tensor, kernel: KernelFunction) -> Tensor:
    factor = kernel.factor(rows)
    if factor is None:
        k = h_centered(kernel.shifted(rows))
        return k.trace().square() / k.square().sum()
    data = factor.data * factor.unit
    # ‖X Xᵀ‖ = ‖Xᵀ X‖: take the smaller of the two matrices.
    short_side = data.mT if data.shape[1] < data.shape[0] else data
    return data.square().sum().square() / gram(short_side).square().sum()
