"""The mean training pose: what stands in the metrics for a network that does not look."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from torch import Tensor


@runtime_checkable
class HasPoints(Protocol):
    """A part of a data set whose labels are at hand without loading images."""

    def input_points(self) -> Tensor:
        """Return all labels (N, K, 3)."""
        ...


def mean_pose(train: Any) -> Tensor | None:
    """Return the mean (K, 2) of the labeled points of a training part; None if they are not known.

    A joint without any label is at 0.
    """
    if not isinstance(train, HasPoints):
        return None
    points = train.input_points()
    weight = points[..., 2:] > 0
    return (points[..., :2] * weight).sum(0) / weight.sum(0).clamp(min=1)
