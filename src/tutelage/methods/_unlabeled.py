"""Unlabeled items in the training batches, for methods that do not bring them themselves."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from tutelage.core._arguments import shown_kind
from tutelage.core.method import Method, MethodInfo
from tutelage.core.output import Step
from tutelage.core.teacher import Teacher
from tutelage.errors import UserError


class UnlabeledData(Method):
    """Add unlabeled items to the training batches; no term of its own.

    `CombinedMethod([KD(), UnlabeledData({"near": 1.0})])` distills on labeled and unlabeled items;
    the supervised loss leaves out those whose label is -100.

    >>> UnlabeledData({"near": 0.5, "far": 0.5})
    UnlabeledData(shares={'near': 0.5, 'far': 0.5})

    Args:
        shares: pool of unlabeled items → how many of them join a batch per labeled item.

    Raises:
        UserError: If the shares are no mapping of names to numbers.
    """

    info = MethodInfo(
        paper="none: data for other methods",
        tasks="all",
        needs="training data with pools of unlabeled items, such as that of OpenSet",
    )
    uses_teacher = False

    def __init__(self, shares: Mapping[str, float]) -> None:
        super().__init__()
        self.shares = checked_shares("UnlabeledData", shares)

    def build_data(self, train: Any, teacher: Teacher) -> Any:
        """Return the training data with a stream of items from every pool that has a share."""
        return train.with_streams(self.shares)

    def forward(self, step: Step) -> dict[str, Tensor]:
        """Return no terms."""
        return {}


def checked_shares(method: str, shares: object) -> dict[str, float]:
    """Return the shares of pools as a new dictionary.

    >>> checked_shares("SRD", {"near": -1.0})
    Traceback (most recent call last):
    tutelage.errors.UserError: SRD takes from the pool 'near' a finite number from 0 on of items \
per labeled one, got -1.0

    Args:
        method: name of the method, for the message.
        shares: pool → how many of its items join a batch per labeled item.

    Raises:
        UserError: If the shares are no mapping, or a share is no finite number from 0 on.
    """
    if not isinstance(shares, Mapping):
        raise UserError(
            f"{method} takes pools and their shares, such as {{'near': 0.5}}, got "
            f"{shown_kind(shares)}"
        )
    for name, share in shares.items():
        if not isinstance(name, str):
            raise UserError(f"{method} names pools by text, got {name!r}")
        is_number = isinstance(share, (int, float)) and not isinstance(share, bool)
        if not is_number or not 0 <= share < math.inf:
            raise UserError(
                f"{method} takes from the pool {name!r} a finite number from 0 on of items per "
                f"labeled one, got {share!r}"
            )
    return dict(shares)
