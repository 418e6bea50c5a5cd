"""What the student is trained for: how a batch enters a network, the supervised loss, and the metrics."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from tutelage.core.configuration import configuration
from tutelage.core.output import Output
from tutelage.core.sketch import Sketch
from tutelage.core.teacher import Teacher


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
        margin: how far a teacher must be on the way from `chance` to 1.
        evaluation_batch: items in a batch of an evaluation.
        student_taps: addresses of what the task itself reads of the student, to feed the teacher with it.
    """

    select: str
    margin: float = 0.1
    evaluation_batch: int = 256
    student_taps: Sequence[str] = ()

    @abstractmethod
    def inputs(self, batch: Any) -> tuple[Any, ...]:
        """Return the positional arguments of a network's forward."""

    @abstractmethod
    def loss(self, out: Any, batch: Any) -> Tensor:
        """Return the scalar supervised loss of an output on this batch."""

    def teacher_inputs(self, inputs: tuple[Any, ...], student: Output) -> tuple[Any, ...]:
        """Return what the teacher takes in training, given the student's inputs and outputs; default: the same."""
        return inputs

    def in_training(self, teacher: Teacher, student: nn.Module) -> Teacher:
        """Return how the teacher is listened to in training, if that is not by its whole forward pass."""
        return teacher

    def accept(self, out: Any, batch: Any) -> None:
        """Raise unless an output in eval mode fits the task; default: its loss can be computed."""
        self.loss(out, batch)

    def sketch(self, batch: Any, out: Any = None) -> list[Sketch] | None:
        """Return what a report draws over each of the images `batch[0]`; default: nothing, and no images are kept.

        Args:
            batch: images (3, H, W) in [0, 1], as a list or a tensor, and their targets.
            out: what a network gave for it in eval mode; None asks for the truth.
        """
        return None

    def class_count(self) -> int | None:
        """Return how many classes the data must have; default: that is not checked."""
        return None

    @abstractmethod
    def metrics(self) -> Metrics:
        """Return fresh running metrics."""

    @abstractmethod
    def chance(self) -> float:
        """Return what `select` is worth for a network that guesses; a teacher at that level is refused."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({configuration(self)})"
