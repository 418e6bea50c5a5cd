"""Unlabeled items in the training batches, for methods that do not bring them themselves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from tutelage.core.method import Method, MethodInfo
from tutelage.core.output import Step
from tutelage.core.teacher import Teacher


class UnlabeledData(Method):
    """Add unlabeled items to the training batches; no term of its own.

    `CombinedMethod([KD(), UnlabeledData({"near": 1.0})])` distills on labeled and unlabeled items;
    the supervised loss leaves out those whose label is -100.

    >>> UnlabeledData({"near": 0.5, "far": 0.5})
    UnlabeledData(shares={'near': 0.5, 'far': 0.5})

    Args:
        shares: pool of unlabeled items → how many of them join a batch per labeled item.
    """

    info = MethodInfo(
        paper="none: data for other methods",
        tasks="all",
        needs="training data with pools of unlabeled items, such as that of OpenSet",
    )
    uses_teacher = False

    def __init__(self, shares: Mapping[str, float]) -> None:
        super().__init__()
        self.shares = dict(shares)

    def build_data(self, train: Any, teacher: Teacher) -> Any:
        """Return the training data with a stream of items from every pool that has a share."""
        return train.with_streams(self.shares)

    def forward(self, step: Step) -> dict[str, Tensor]:
        """Return no terms."""
        return {}
