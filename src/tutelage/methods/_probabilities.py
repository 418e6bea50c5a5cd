"""Softened probabilities whose relations keep their digits, also where one class takes nearly all.

Where most items are given to one class, its probabilities are 1 - δ and round to 1, while what
relates the items is in the δ. Kernels that are centered over the items do not see a constant that
is added to a column, so there that column is 1 - δ - 1 = -(sum of the other classes) instead.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tutelage.core.precision import promote
from tutelage.similarity._products import may_read

FAINT = 1e-8  # probabilities that are lost beside 1


def about_their_constants(probabilities: Tensor) -> Tensor:
    """Return probabilities, of which 1 is subtracted in a class whose mean over the items is > ½.

    >>> about_their_constants(torch.tensor([[1.0, 1e-9], [1.0, 3e-9]]))
    tensor([[-1.0000e-09,  1.0000e-09],
            [-3.0000e-09,  3.0000e-09]])

    Args:
        probabilities: (N, C, ...), which sum to 1 over the classes.
    """
    dominant = _dominant(probabilities)
    if dominant is None:
        return probabilities
    return _deviations(probabilities.masked_fill(dominant, 0.0), dominant)


class Softened:
    """softmax(logits / T), in the forms that kernels between items and between classes need.

    Attributes:
        logits: (N, C, ...), over T, float32 or float64.
        probabilities: the softmax over the classes.
    """

    def __init__(self, logits: Tensor, temperature: float) -> None:
        self.logits = promote(logits) / temperature
        self.probabilities = self.logits.softmax(1)

    def for_items(self, *, scaled: bool) -> Tensor:
        """Return the features of kernels between items that are centered over the items.

        Where one class takes nearly all, the others are so small that a common factor, which makes
        them large enough to be squared, changes none of these kernels.

        Args:
            scaled: the kernels divide by the lengths of the items, which need the 1 of a class.
        """
        dominant = _dominant(self.probabilities)
        if dominant is None:
            return self.probabilities
        others = self._others(dominant)
        if scaled:
            return torch.where(dominant, self.probabilities, others)
        return _deviations(others, dominant)

    def for_classes(self, *, hollow: bool = False) -> Tensor:
        """Return the features of kernels between classes, in which no class is too improbable.

        Kernels between classes divide by a class's length over the items, which float32 loses below
        1e-22. A class below ε² in all items is raised to ε²: the kernels do not change by it.

        Args:
            hollow: the diagonal of the kernels is left out, so that the faint classes count beside
                one that takes nearly all: they keep their proportions.
        """
        if hollow:
            return self.for_items(scaled=True)
        smallest = torch.finfo(self.logits.dtype).eps ** 2
        largest = self.probabilities.detach().amax(0)
        if may_read(largest) and bool(largest.amin() > smallest):
            return self.probabilities
        log_probabilities = self.logits.log_softmax(1)
        return _lifted(log_probabilities, log_probabilities.detach().amax(0), smallest).exp()

    def _others(self, dominant: Tensor) -> Tensor:
        """Return the probabilities but those of dominant classes; the largest is `FAINT` or more.

        They come from logarithms, which do not underflow.
        """
        others = self.logits.log_softmax(1).masked_fill(dominant, -torch.inf)
        return _lifted(others, others.detach().amax(), FAINT).exp()


def _dominant(probabilities: Tensor) -> Tensor | None:
    """Return (C, ...), which class has a mean over the items above ½; None if surely none has."""
    means = probabilities.detach().mean(0)
    if may_read(means) and not means.max().item() > 0.5:  # NaN is not
        return None
    return means > 0.5


def _deviations(others: Tensor, dominant: Tensor) -> Tensor:
    return torch.where(dominant, -others.sum(1, keepdim=True), others)


def _lifted(log_probabilities: Tensor, largest: Tensor, floor: float) -> Tensor:
    """Return logarithms, those whose largest one is below the floor's raised to it."""
    least = math.log(floor)
    # Subtracted first: beside -1e9 the floor's logarithm would be rounded away. The largest of
    # nothing is -inf, which must not meet another.
    about_largest = log_probabilities - largest.clamp_min(torch.finfo(largest.dtype).min)
    return torch.where(largest < least, about_largest + least, log_probabilities)
