"""MMD: how far apart two samples are, and what alignment has to do with it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tutelage.errors import UserError
from tutelage.similarity.checks import as_rows, one_of, say_undefined
from tutelage.similarity.gram import centred, dot, factor, full_precision, norm, product
from tutelage.similarity.hsic import two_sides
from tutelage.similarity.kernels import LINEAR, KernelFunction


def mmd2(x: Tensor, y: Tensor, *, kernel: KernelFunction = LINEAR, estimator: str = "biased") -> Tensor:
    """Return the squared maximum mean discrepancy between two samples of the same variables.

        biased    ΣΣ k(x, x')/n² + ΣΣ k(y, y')/m² - 2 ΣΣ k(x, y)/(n m)        = ‖mean φ(x) - mean φ(y)‖² ≥ 0
        unbiased  the same without the pairs of an item with itself, over n (n - 1) and m (m - 1)

    With a linear kernel the biased value is ‖mean x - mean y‖². A bandwidth is that of both samples together.

    Source: A. Gretton et al., JMLR 2012, equations 3 and 5.

    >>> import torch
    >>> x, y = torch.tensor([[0.0], [2.0]]), torch.tensor([[3.0], [5.0], [4.0]])
    >>> round(mmd2(x, y).item(), 4), round(mmd2(x, y, estimator="unbiased").item(), 4)
    (9.0, 7.6667)

    Args:
        x: (n, ...), floating; further dimensions are flattened.
        y: (m, ...), of the same width; the items are others.
        kernel: as in `cka`.
        estimator: `"biased"` or `"unbiased"`.

    Returns:
        0-d float64, differentiable; the unbiased one may be negative.

    Raises:
        UserError: the widths differ; fewer than 1 row (2 if unbiased); 1-D, empty, integer, NaN or infinite.
    """
    one_of(estimator, ("biased", "unbiased"), "the estimator of mmd2")
    least = 2 if estimator == "unbiased" else 1
    one, two = as_rows(x, "x", least), as_rows(y, "y", least)
    if one.shape[1] != two.shape[1]:
        raise UserError(
            f"x has {one.shape[1]} columns, y {two.shape[1]}; a discrepancy needs the same variables on both sides"
        )
    with full_precision(one.device):
        pooled = torch.cat([one, two])
        features = kernel.features(pooled)
        if features is None:
            return _from_kernel(kernel.shifted(pooled), len(one), estimator == "unbiased")
        return _from_features(features - features.detach().mean(0), len(one), estimator == "unbiased")


@dataclass(frozen=True)
class AlignmentBound:
    """What `alignment_mmd_bound` finds; every field is a 0-d float64 tensor.

    Attributes:
        alignment: A, at most `bound`; exactly 1 - `constant` · `distance`.
        bound: 1 - `constant` · `gap`.
        constant: N² / 2.
        gap: (E k̂ - E l̂)², the squared MMD (linear kernel) between the two distributions of pair similarities.
        distance: E (k̂ - l̂)², what the gap bounds from below.
    """

    alignment: Tensor
    bound: Tensor
    constant: Tensor
    gap: Tensor
    distance: Tensor


def alignment_mmd_bound(x: Tensor, y: Tensor, *, center: bool = False) -> AlignmentBound:
    """Return the alignment of x and y with its identity and its bound by an MMD (Theorem 2 of the RCKA paper).

    With k̂, l̂ the entries of the Gram matrices divided by their Frobenius norms:

        A = 1 - N²/2 · E_ij (k̂_ij - l̂_ij)²                exact
        A ≤ 1 - N²/2 · (E_ij k̂_ij - E_ij l̂_ij)²           Jensen

    The last bracket is (‖mean x‖² / ‖K‖ - ‖mean y‖² / ‖L‖)². After centring it is 0 and the bound reads
    A ≤ 1; uncentred it is loose too, so it explains the direction of the loss and does not replace it.

    Source: Z. Zhou et al., IJCAI 2024, Theorem 2 as relayed; the constant is derived, since the relayed
    scaling (-N E + 2) is 2, not 1, for equal Grams.

    >>> import torch
    >>> found = alignment_mmd_bound(torch.eye(3), torch.ones(3, 1))
    >>> round(found.alignment.item(), 4), round(found.bound.item(), 4), found.constant.item()
    (0.5774, 0.9107, 4.5)

    Args:
        x: (N, ...), floating; further dimensions are flattened.
        y: (N, ...), the same items in the same order.
        center: centre the features first (biased CKA; the bound is then 1).

    Returns:
        An `AlignmentBound`, differentiable; NaN with a warning where a side is zero (constant if centred).

    Raises:
        UserError: N differs or is below 2; 1-D, empty, integer, NaN or infinite features.
    """
    one, two = two_sides(x, y, 2)
    with full_precision(one.device):
        sides = [centred(side) if center else factor(side) for side in (one, two)]
        dead = [name for name, side in zip("xy", sides, strict=True) if not bool(side.unit > 0)]
        if dead:
            say_undefined("the alignment", dead)
        k, l = (product(side, side) for side in sides)  # noqa: E741 - the kernels' names
        k, l = k / norm(k), l / norm(l)  # noqa: E741
        constant = k.new_full((), len(k) ** 2 / 2)
        gap = (k.mean() - l.mean()).square()
        return AlignmentBound(dot(k, l), 1 - constant * gap, constant, gap, (k - l).square().mean())


def _from_features(features: Tensor, n: int, unbiased: bool) -> Tensor:
    one, two = features[:n], features[n:]
    value = (one.mean(0) - two.mean(0)).square().sum()
    return value - (_noise(one) + _noise(two)) if unbiased else value


def _noise(sample: Tensor) -> Tensor:
    """Return what ‖mean‖² exceeds the mean product of two different items by: the variance of the mean."""
    n = len(sample)
    return (sample - sample.mean(0)).square().sum() / (n * (n - 1))


def _from_kernel(k: Tensor, n: int, unbiased: bool) -> Tensor:
    cross = k[:n, n:].mean()
    if not unbiased:
        return k[:n, :n].mean() + k[n:, n:].mean() - 2 * cross
    within = [block.sum() - block.trace() for block in (k[:n, :n], k[n:, n:])]
    m = len(k) - n
    return within[0] / (n * (n - 1)) + within[1] / (m * (m - 1)) - 2 * cross
