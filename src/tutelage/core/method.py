"""The one abstraction for every distillation method: named terms, and hooks that do nothing by default."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from tutelage.core.configuration import configuration
from tutelage.core.output import Step
from tutelage.core.teacher import Teacher


@dataclass(frozen=True)
class Card:
    """What `tutelage methods` says of a method.

    Attributes:
        paper: authors, title, venue and year, arXiv number.
        tasks: what it was made for.
        needs: what it asks of the teacher and the recipe.
        trains: trainable parts it adds, dropped at ship.
    """

    paper: str
    tasks: str
    needs: str
    trains: str = "nothing"


class Method(nn.Module, ABC):
    """One paper: the terms it adds to the task loss.

    A subclass stores its hyper-parameters in the constructor under the names of the arguments, and nothing else; shapes
    arrive in `setup`. The engine treats all methods alike.

    Attributes:
        card: what the list of methods says of it.
        task_weight: factor of the supervised loss.
        listens: False for a method that trains without a teacher; one that is given is only compared with at the end.
        grows: True for a method whose `grow` has to be called before the `Distiller` is made.
        student_taps, teacher_taps: addresses of the submodule outputs that `forward` reads.
    """

    card: ClassVar[Card]
    task_weight: float = 1.0
    listens: bool = True
    grows: bool = False
    student_taps: Sequence[str] = ()
    teacher_taps: Sequence[str] = ()

    def __init__(self) -> None:
        super().__init__()

    def grow(self, student: nn.Module, teacher: Teacher) -> nn.Module:
        """Change the student before training (an assistant, branches, an inherited tower); default: as it is."""
        return student

    def data(self, train: Any, teacher: Teacher) -> Any:
        """Change the training data (an open set, sampled pairs); default: as it is."""
        return train

    def setup(self, example: Step, teacher: Teacher) -> None:
        """Build trainable parts from one real batch; default: there are none."""
        return None

    def begin(self, progress: float) -> None:
        """Put frozen parts of a grown student into eval mode, before every forward pass; default: there are none."""
        return None

    @abstractmethod
    def forward(self, step: Step) -> dict[str, Tensor]:
        """Return named, weighted scalar terms; their sum is minimised together with the task loss."""

    def inspect(self, step: Step) -> dict[str, Tensor]:
        """Return, for a report, where in the step's first image the student does as the teacher; default: nothing.

        Returns:
            Maps (rows, columns) over the image by name, values up to 1, which is agreement; NaN where there is none.
        """
        return {}

    def ship(self, student: nn.Module) -> nn.Module:
        """Return what is deployed; default: the student."""
        return student

    def extra_repr(self) -> str:
        """Show the configuration: the constructor's arguments with their values."""
        return configuration(self)
