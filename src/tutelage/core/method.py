"""The one abstraction for every distillation method: named terms, and hooks with defaults."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from tutelage.core._configuration import configuration
from tutelage.core.output import Step
from tutelage.core.search_space import SearchRange
from tutelage.core.teacher import Teacher


@dataclass(frozen=True)
class MethodInfo:
    """What `tutelage methods` says about a method.

    Attributes:
        paper: authors, title, venue and year, arXiv number.
        tasks: the tasks it was made for.
        needs: what it needs of the teacher and the recipe.
        trains: trainable parts that it adds and drops again at the end.
        caution: where it cost accuracy in our studies, with the default cap on gradients.
    """

    paper: str
    tasks: str
    needs: str
    trains: str = "nothing"
    caution: str = ""


class Method(nn.Module, ABC):
    """One paper: the terms that it adds to the task loss.

    A subclass stores its hyper-parameters in the constructor under the names of the arguments, and
    nothing else; shapes arrive in `setup`. The engine treats all methods alike.

    Attributes:
        info: what the list of methods says about it.
        search_space: ranges of the arguments that `tutelage tune` chooses; by default it chooses
            none.
        task_weight: factor of the supervised loss.
        uses_teacher: False for a method that trains without a teacher; one that is given is then
            only compared with at the end.
        needs_one_class: True for a method that reads the logits as those of one class an item, such
            as by a softmax; a task in which items have several classes refuses it.
        student_layers: addresses of the student's layers that `forward` reads.
        teacher_layers: addresses of the teacher's layers that `forward` reads.
    """

    info: ClassVar[MethodInfo]
    search_space: ClassVar[Sequence[SearchRange]] = ()
    task_weight: float = 1.0
    uses_teacher: bool = True
    needs_one_class: bool = False
    student_layers: Sequence[str] = ()
    teacher_layers: Sequence[str] = ()

    def __init__(self) -> None:
        super().__init__()

    def build_student(self, student: nn.Module, teacher: Teacher) -> nn.Module:
        """Return the student to train, such as one with branches; default: the student itself."""
        return student

    def build_data(self, train: Any, teacher: Teacher) -> Any:
        """Return the data to train on, such as with unlabeled samples; default: `train` itself."""
        return train

    def setup(self, example: Step, teacher: Teacher) -> None:
        """Build trainable parts from one real batch; default: there are none.

        The `Distiller` has checked that the example is finite, and tries `forward` on it next.
        """
        return None

    def on_train_start(self) -> None:
        """Called once when all is checked and training begins, or goes on; default: nothing.

        What takes long belongs here, such as running the teacher over all data: a dry run does not
        call it. Neither does the `Distiller`: loops of your own call it after `setup`.
        """
        return None

    def on_step_start(self, progress: float) -> None:
        """Called before every forward pass, e.g. to keep frozen submodules in eval mode."""
        return None

    @abstractmethod
    def forward(self, step: Step) -> dict[str, Tensor]:
        """Return named, weighted scalar terms; their sum and the task loss are minimized."""

    def eval_model(self, student: nn.Module) -> nn.Module:
        """Return the network that is validated and chosen by; default: the student."""
        return student

    def choose(self, student: nn.Module, score: Callable[[nn.Module], float]) -> dict[str, Any]:
        """Choose what `deploy` will return, such as a branch; default: there is no choice.

        It is called once the student is trained, before it is evaluated on test data. A choice
        belongs into the student's state, since that is what is copied.

        Args:
            student: in training, with the weights that are judged.
            score: gives the task's monitor for a network on validation data; higher is better.

        Returns:
            What was chosen, for metrics.json.
        """
        return {}

    def deploy(self, student: nn.Module) -> nn.Module:
        """Return the network that is shipped; default: the student."""
        return student

    def extra_repr(self) -> str:
        """Show the configuration: the constructor's arguments with their values."""
        return configuration(self)
