"""What the student is trained for: how a batch enters a network, the supervised loss, and the metrics."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from torch import Tensor

from tutelage.core.configuration import configuration


class Metrics(ABC):
    """Running evaluation figures: update, merge over ranks, compute. State is sums."""

    @abstractmethod
    def update(self, out: Any, batch: Any, teacher: Any = None) -> None:
        """Take in one batch: the network's output, the batch, and the teacher's output where there is one."""

    @abstractmethod
    def compute(self) -> dict[str, float]:
        """Return the figures by name."""


class Task(ABC):
    """A supervised task.

    Attributes:
        select: name of the metric by which the best epoch is chosen on validation data (higher is better).
    """

    select: str

    @abstractmethod
    def inputs(self, batch: Any) -> tuple[Any, ...]:
        """Return the positional arguments of a network's forward."""

    @abstractmethod
    def loss(self, out: Any, batch: Any) -> Tensor:
        """Return the scalar supervised loss of an output on this batch."""

    @abstractmethod
    def metrics(self) -> Metrics:
        """Return fresh running metrics."""

    @abstractmethod
    def chance(self) -> float:
        """Return what `select` is worth for a network that guesses; a teacher at that level is refused."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({configuration(self)})"
