"""What the student is trained for: how a batch enters a network, the loss, and the metrics."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

from tutelage.core._configuration import configuration
from tutelage.core.batch import Batch
from tutelage.core.method import Method
from tutelage.core.taps import call
from tutelage.core.teacher import Teacher
from tutelage.errors import UserError


class Metrics(ABC):
    """Running evaluation metrics: update, merge over ranks, compute. State is sums."""

    @abstractmethod
    def update(self, output: Any, batch: Batch, teacher: Any = None) -> None:
        """Add one batch.

        Args:
            output: what the network gave.
            batch: the batch.
            teacher: what the teacher gave, if there is one.
        """

    @abstractmethod
    def compute(self) -> dict[str, float]:
        """Return the metrics by name."""


@dataclass(frozen=True)
class Evaluation:
    """How a network is evaluated: on which part, in which batches, beside which teacher.

    Attributes:
        part: name of the part, `validation` or `test`.
        batches: gives every item of a part once, on the network's device; under several ranks each
            has its share, and the metrics add them up.
        teacher: adds metrics that compare with a teacher, such as agreement; or None.
    """

    part: str
    batches: Callable[[Any], Iterable[Batch]]
    teacher: Teacher | None = None


class Task(ABC):
    """A supervised task.

    Attributes:
        monitor: the metric by which the best epoch is chosen on validation data (higher is better).
        min_gain_over_chance: how far above chance a teacher must be, as a share of the way to 1.
    """

    monitor: str
    min_gain_over_chance: float = 0.1

    @abstractmethod
    def inputs(self, batch: Batch) -> tuple[Any, ...]:
        """Return the positional arguments of a network's forward."""

    @abstractmethod
    def loss(self, output: Any, batch: Batch) -> Tensor:
        """Return the scalar supervised loss of an output on this batch."""

    @abstractmethod
    def metrics(self) -> Metrics:
        """Return new running metrics."""

    @abstractmethod
    def chance_level(self) -> float:
        """Return what `monitor` is worth for a network that guesses."""

    def chance_level_on(self, part: Any) -> float:
        """Return what `monitor` is worth on a part for a network that guesses; default: anywhere.

        Args:
            part: the samples that are evaluated.
        """
        return self.chance_level()

    def validate(self, output: Any, batch: Batch, data: Any = None) -> None:
        """Raise unless network and data fit the task; default: its loss can be computed.

        Args:
            output: what the network gave in eval mode.
            batch: one training batch.
            data: the data set that it is from, if it is known.
        """
        self.loss(output, batch)

    def check_method(self, method: Method) -> None:
        """Raise if a method means nothing for this task; default: never.

        Raises:
            UserError: If it does.
        """
        return None

    def prepare(self, train: Any) -> None:
        """Read from the training samples what the loss needs, such as class counts; default: none.

        Called once before training.

        Args:
            train: the training part, before a method adds samples to it.
        """
        return None

    def prepare_network(self, network: nn.Module) -> None:
        """Add to a student or a teacher what it needs to train in this task; default: nothing.

        Called by the `Distiller`, before layers are tapped; adding it twice must change nothing.
        """
        return None

    def connect_teacher(self, teacher: Teacher, student: nn.Module) -> Teacher:
        """Return the teacher for training, e.g. one that runs only its backbone; default: as is."""
        return teacher

    def evaluate(
        self, model: nn.Module, parts: Mapping[str, Any], run: Evaluation
    ) -> dict[str, float]:
        """Return the metrics of a network; default: one pass over the part with `metrics()`.

        A task that ranks a whole corpus overrides it and reads further parts.

        Args:
            model: in eval mode; called without gradient.
            parts: the data by name, `train`, `validation`, `test` and what else the data set has.
            run: which part, and how to load it.
        """
        metrics = self.metrics()
        for batch in run.batches(parts[run.part]):
            inputs = self.inputs(batch)
            teacher = None if run.teacher is None else run.teacher(batch, inputs).output
            metrics.update(call(model, inputs), batch, teacher)
        return metrics.compute()

    def export(self, model: nn.Module, parts: Mapping[str, Any], folder: Path) -> None:
        """Write what the trained network needs in use beside its weights; default: nothing.

        Args:
            model: the network that is shipped.
            parts: the data by name.
            folder: of the run.
        """
        return None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({configuration(self)})"


@runtime_checkable
class HasClasses(Protocol):
    """A data set whose items have one of some named classes."""

    @property
    def classes(self) -> list[str]:
        """Names of the classes in the order of their labels."""
        ...


@runtime_checkable
class HasLabels(Protocol):
    """Samples whose labels are known without reading the samples."""

    @property
    def labels(self) -> Tensor:
        """One label an item (N,), or (N, num_classes) of 0 and 1; below 0 is none."""
        ...


def check_num_classes(num_classes: int, data: Any) -> None:
    """Raise if a data set has another number of classes than its task.

    Args:
        num_classes: of the task.
        data: the data set; one without classes passes.

    Raises:
        UserError: If the numbers differ.
    """
    if isinstance(data, HasClasses) and len(data.classes) != num_classes:
        raise UserError(
            f"the data has {len(data.classes)} classes, but task.num_classes is {num_classes}; "
            "set it and the networks' num_classes to the data's"
        )
