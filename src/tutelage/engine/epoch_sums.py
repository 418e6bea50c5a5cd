"""What the steps of an epoch add up to: sums by name, on the device."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor


class EpochSums:
    """Sums of named scalars over the steps of an epoch, so that no step waits for their values.

    >>> sums = EpochSums()
    >>> sums.add({"task": torch.tensor(1.0)})
    >>> sums.add({"task": torch.tensor(2.0)})
    >>> sums.by_name()
    {'task': 3.0}

    Attributes:
        names: in the order of the first step.
        values: the sums (len(names),); None before the first step.
    """

    def __init__(self) -> None:
        self.names: Sequence[str] = ()
        self.values: Tensor | None = None

    def add(self, scalars: Mapping[str, Tensor]) -> None:
        """Add the values of one step."""
        values = torch.stack([value.detach().float() for value in scalars.values()])
        if self.values is None:
            self.names = tuple(scalars)
            self.values = torch.zeros_like(values)
        self.values += values

    def are_finite(self) -> bool:
        """Return whether no sum is NaN or infinite, which it stays; an accelerator waits for it."""
        return self.values is None or math.isfinite(float(self.values.sum()))

    def by_name(self) -> dict[str, float]:
        """Return the sums as numbers."""
        values = [] if self.values is None else self.values.tolist()
        return dict(zip(self.names, values, strict=True))


def sum_terms(terms: Mapping[str, Tensor]) -> Tensor:
    """Return the loss of a step: the sum of its weighted terms."""
    return torch.stack(list(terms.values())).sum()
