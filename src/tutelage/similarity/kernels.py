"""Kernels: how two items of one representation are compared."""

from __future__ import annotations

import math
import warnings
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from tutelage.core.precision import full_precision
from tutelage.errors import UserError
from tutelage.similarity._checks import SimilarityWarning, as_rows, check_choice
from tutelage.similarity._gram import Factor, centered, unit_rows
from tutelage.similarity._products import gram

Median = Literal["all", "lower", "off-diagonal", "nonzero", "mean"]


class KernelFunction(ABC):
    """A symmetric, positive semi-definite function of two items; a subclass defines `matrix`."""

    def gram(self, x: Tensor) -> Tensor:
        """Return the kernel matrix K of the items x (n, ...), (n, n) in float64.

        Raises:
            UserError: As `as_rows`; for RBF also if the bandwidth is undefined.
        """
        rows = as_rows(x, "x", min_rows=1)
        with full_precision(rows.device):
            return self.matrix(rows)

    @abstractmethod
    def matrix(self, rows: Tensor) -> Tensor:
        """Return K of rows (n, d) that are known to be finite."""

    def shifted(self, rows: Tensor) -> Tensor:
        """Return K up to some a_i + a_j, which centering removes; chosen to keep digits."""
        return self.matrix(rows)

    def features(self, rows: Tensor) -> Tensor | None:
        """Return φ(x) with K = φ φᵀ, or None if φ has infinitely many dimensions."""
        return None

    def factor(self, rows: Tensor) -> Factor | None:
        """Return the centered φ(x) as a factor of the kernel matrix, or None."""
        features = self.features(rows)
        return None if features is None else centered(features)


@dataclass(frozen=True)
class LinearKernel(KernelFunction):
    """Dot products, k(x, y) = x·y: the kernel of linear CKA (Kornblith et al., ICML 2019).

    >>> LinearKernel().gram(torch.tensor([[1.0, 2.0], [0.0, 3.0]])).tolist()
    [[5.0, 6.0], [6.0, 9.0]]
    """

    def features(self, rows: Tensor) -> Tensor:
        """Return the rows themselves."""
        return rows

    def matrix(self, rows: Tensor) -> Tensor:
        """Return the Gram matrix."""
        return gram(rows)


@dataclass(frozen=True)
class CosineKernel(KernelFunction):
    """Cosines, k(x, y) = x·y / (‖x‖ ‖y‖).

    All rows weigh the same, so outliers have little leverage. Not invariant to translation. A zero
    row is orthogonal to all.

    >>> cosines = CosineKernel().gram(torch.tensor([[3.0, 4.0], [6.0, 8.0], [0.0, 1.0]]))
    >>> [round(value, 4) for value in cosines[0].tolist()]
    [1.0, 1.0, 0.8]
    """

    def features(self, rows: Tensor) -> Tensor:
        """Return rows of length 1."""
        return unit_rows(rows)

    def matrix(self, rows: Tensor) -> Tensor:
        """Return the matrix of cosines."""
        return gram(unit_rows(rows))


@dataclass(frozen=True)
class RBFKernel(KernelFunction):
    """Gaussian kernel, k(x, y) = exp(-‖x - y‖² / (2 t² m)), each side with an m of its own.

    t → ∞ gives the linear kernel. Below t = 1 use the debiased estimator: at t = 0.2 even unrelated
    features look similar otherwise.

    Source: Kornblith et al., ICML 2019, `gram_rbf` of google-research/google-research@10bf941
    `representation_similarity/Demo.ipynb` (`median="all"`); `median="nonzero"` is the rule of
    rezazzr/xmas_cka@9849812, whose multiplier of the bandwidth is t.

    >>> x = torch.tensor([[0.0], [1.0], [3.0]])
    >>> [round(value, 4) for value in RBFKernel(median="lower").gram(x)[0].tolist()]
    [1.0, 0.6065, 0.0111]
    >>> RBFKernel(m=4.0).bandwidth(x), round(RBFKernel().bandwidth(x), 4)
    (4.0, 1.0)

    Attributes:
        t: the bandwidth as a multiple of √m.
        median: which squared distance m is. `"all"`: the median of all n² of them, the zeros of the
            diagonal included, the mean of the two middle values; `"lower"`: the same, the lower
            middle value (`torch.median`); `"off-diagonal"`: as `"all"` without the diagonal;
            `"nonzero"`: the lower median of those that are not 0; `"mean"`: the square of the mean
            off-diagonal distance. Where it is 0 (many equal rows) the median of the positive ones
            is taken, with a warning.
        m: a squared distance to use instead, for example the same for both sides.
    """

    t: float = 1.0
    median: Median = "all"
    m: float | None = None

    def __post_init__(self) -> None:
        check_choice(self.median, Median, "the median of an RBF kernel")
        for value in (self.t, 1.0 if self.m is None else self.m):
            if not isinstance(value, (int, float)) or not 0 < value < math.inf:
                raise UserError(
                    f"the bandwidth of an RBF kernel is positive and finite, got t={self.t} and "
                    f"m={self.m}"
                )

    def bandwidth(self, x: Tensor) -> float:
        """Return m for the items x (n, ...); no gradient passes through it.

        Raises:
            UserError: If all rows are equal, so that there is no positive distance.
        """
        rows = as_rows(x.detach(), "x", min_rows=1)
        with full_precision(rows.device):
            return self._bandwidth(squared_distances(rows))

    def matrix(self, rows: Tensor) -> Tensor:
        """Return exp(-D / (2 t² m))."""
        return self._exponent(rows).exp()

    def shifted(self, rows: Tensor) -> Tensor:
        """Return K - 1, which keeps its digits where t is large."""
        return self._exponent(rows).expm1()

    def _exponent(self, rows: Tensor) -> Tensor:
        distances = squared_distances(rows)
        return distances * (-0.5 / (self.t**2 * self._bandwidth(distances.detach())))

    def _bandwidth(self, distances: Tensor) -> float:
        if self.m is not None:
            return self.m
        positive = distances[distances > 0]
        if positive.numel() == 0:
            raise UserError(
                "all rows of x are equal: the median bandwidth is undefined; give m, or leave it "
                "out"
            )
        m = _median_distance(distances, positive, self.median)
        if m <= 0:
            m = float(positive.median())
            warnings.warn(
                f"the median {self.median!r} of the squared distances is 0 (many equal rows): "
                f"the median of the positive ones, {m:.4g}, is used",
                SimilarityWarning,
                stacklevel=2,
            )
        return m


LINEAR = LinearKernel()


def squared_distances(rows: Tensor) -> Tensor:
    """Return D_ij = ‖x_i - x_j‖²: never negative, and exactly 0 for equal rows.

    >>> squared_distances(torch.tensor([[0.0, 0.0], [3.0, 4.0], [0.0, 0.0]]))[0].tolist()
    [0.0, 25.0, 0.0]

    Args:
        rows: (n, d), float32 or float64.

    Returns:
        (n, n); no square root is taken, so that gradients stay finite.
    """
    # Distances do not depend on the mean, but the digits of ‖x_i‖² + ‖x_j‖² - 2 x_i·x_j do.
    k = gram(rows - rows.detach().mean(0))
    lengths = k.diagonal()
    distances = (lengths[:, None] + lengths - 2 * k).clamp_min(0)
    _, group = torch.unique(rows.detach(), dim=0, return_inverse=True)
    return distances.masked_fill(group[:, None] == group, 0.0)


def _median_distance(distances: Tensor, positive: Tensor, median: Median) -> float:
    """Return the squared distance that a rule names.

    Args:
        distances: (n, n), squared.
        positive: those that are not 0.
        median: the rule.
    """
    if median == "lower":
        return float(distances.median())
    if median == "nonzero":
        return float(positive.median())
    diagonal = torch.eye(len(distances), dtype=torch.bool, device=distances.device)
    off_diagonal = distances[~diagonal]
    if median == "mean":
        return float(off_diagonal.sqrt().mean().square())
    values = (distances if median == "all" else off_diagonal).flatten().sort().values
    half = values.numel() // 2
    if values.numel() % 2:
        return float(values[half])
    return float((values[half - 1] + values[half]) / 2)
