"""CKA of two representations, for analysis: linear, centred, debiased and in float64 unless asked otherwise."""

from __future__ import annotations

from torch import Tensor

from tutelage.errors import UserError
from tutelage.similarity.checks import as_rows, one_of, say_undefined, varies
from tutelage.similarity.gram import full_precision, gram, h_centred
from tutelage.similarity.hsic import centred_dots, two_sides
from tutelage.similarity.kernels import LINEAR, KernelFunction


def cka(x: Tensor, y: Tensor, *, kernel: KernelFunction = LINEAR, estimator: str = "debiased") -> Tensor:
    """Return the centred kernel alignment of two representations of the same n items.

        CKA = HSIC(K, L) / √(HSIC(K, K) HSIC(L, L))

    the cosine of the centred Gram matrices: blind to orthogonal maps, translation and one scale, not to other
    linear maps. For a linear kernel and n > 1.5 d it comes from cross products, without an n × n matrix:

        biased    ‖XcᵀYc‖² / (‖XcᵀXc‖ ‖YcᵀYc‖)
        debiased  S(X, Y) / √(S(X, X) S(Y, Y)),   a_i = ‖xc_i‖², b_i = ‖yc_i‖²,
                  S(X, Y) = ‖XcᵀYc‖² - n/(n - 2) Σ a_i b_i + Σa Σb / ((n - 1)(n - 2))

    The biased value of unrelated features grows with their width (`chance_level`); the debiased one stays at
    0 and may be negative: nothing is clamped. For a training loss take `alignment`, which is faster and gives
    0 instead of NaN for a dead side.

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
        kernel: `LinearKernel()`, `CosineKernel()` or `RBFKernel(t, median)`; for the last, bandwidths differ
            between papers, see there.
        estimator: `"debiased"` (U-centred Grams) or `"biased"`.

    Returns:
        0-d float64, right at every scale and under offsets up to what the dtype of x still resolves;
        differentiable, its gradient grows as 1 / ‖y‖. NaN with a warning that names the side where it does
        not vary.

    Raises:
        UserError: n differs or is below 4 (2 if biased); 1-D, empty, integer, NaN or infinite features; all
            rows are equal under an RBF kernel with a median bandwidth.
    """
    one_of(estimator, ("debiased", "biased"), "the estimator of cka")
    debiased = estimator == "debiased"
    one, two = two_sides(x, y, 4 if debiased else 2)
    with full_precision(one.device):
        dots = centred_dots(one, two, kernel, debiased)
        dead = [
            name
            for name, side, own in (("x", x, dots.xx), ("y", y, dots.yy))
            if not (bool(own.detach() > 0) and varies(side))
        ]
        if dead:
            say_undefined("CKA", dead)
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
        0-d float64 in [0, π/2]; within 3e-8 of 0 for equal sides. For analysis: its gradient is infinite there.

    Raises:
        UserError: as `cka` with the biased estimator.
    """
    return cka(x, y, kernel=kernel, estimator="biased").clamp(-1.0, 1.0).arccos()


def participation_ratio(x: Tensor, *, kernel: KernelFunction = LINEAR) -> Tensor:
    """Return the effective number of dimensions, (Σ λ)² / Σ λ² of the eigenvalues of the covariance.

        PR = (tr HKH)² / ‖HKH‖²

    >>> import torch
    >>> round(participation_ratio(torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])).item(), 4)
    2.0

    Args:
        x: (n, ...), floating.
        kernel: as in `cka`.

    Returns:
        0-d float64 between 1 and the smaller of n - 1 and the width; NaN with a warning where x is constant.

    Raises:
        UserError: as `cka` with the biased estimator.
    """
    rows = as_rows(x, "x")
    with full_precision(rows.device):
        if not varies(x):
            say_undefined("the participation ratio", ["x"])
            return rows.new_full((), float("nan"))
        return _participation_ratio(rows, kernel)


def chance_level(x: Tensor, y: Tensor, *, kernel: KernelFunction = LINEAR) -> Tensor:
    """Return what the biased CKA is on average when the rows of y are paired with those of x at random.

        mean over all n! pairings = √(PR(x) PR(y)) / (n - 1)      (exact; PR: `participation_ratio`)

    The debiased CKA has mean 0. Print this beside every biased value: one near it says nothing.

    Source: derived for this library: the mean of <HKH, P HLH Pᵀ> over permutations P is
    tr HKH tr HLH / (n - 1); checked by enumeration.

    >>> import torch
    >>> x = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    >>> round(chance_level(x, x[:, :1]).item(), 4), round(gaussian_chance_level(64, 512, 512), 3)
    (0.4714, 0.889)

    Args:
        x: (n, ...), floating.
        y: (n, ...), floating.
        kernel: as in `cka`.

    Returns:
        0-d float64; NaN with a warning that names the side where it does not vary.

    Raises:
        UserError: as `cka` with the biased estimator.
    """
    one, two = two_sides(x, y, 2)
    dead = [name for name, side in (("x", x), ("y", y)) if not varies(side)]
    if dead:
        say_undefined("the chance level", dead)
        return one.new_full((), float("nan"))
    with full_precision(one.device):
        ratios = _participation_ratio(one, kernel) * _participation_ratio(two, kernel)
        return ratios.sqrt() / (len(one) - 1)


def gaussian_chance_level(n: int, p: int, q: int) -> float:
    """Return what the biased linear CKA of independent Gaussian features is, about √(p q / ((n + p)(n + q))).

    >>> round(gaussian_chance_level(4096, 64, 64), 3), round(gaussian_chance_level(64, 65536, 65536), 3)
    (0.015, 0.999)

    Args:
        n: items.
        p, q: widths of the two sides.
    """
    if min(n, p, q) < 1:
        raise UserError(f"a chance level needs positive numbers of items and columns, got {n}, {p} and {q}")
    return float((p * q / ((n + p) * (n + q))) ** 0.5)


def _participation_ratio(rows: Tensor, kernel: KernelFunction) -> Tensor:
    side = kernel.factor(rows)
    if side is None:
        k = h_centred(kernel.shifted(rows))
        return k.trace().square() / k.square().sum()
    data = side.data * side.unit
    narrow = data.mT if data.shape[1] < data.shape[0] else data
    return data.square().sum().square() / gram(narrow).square().sum()
