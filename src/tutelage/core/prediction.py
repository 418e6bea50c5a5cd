"""Answers to single inputs that a user names, such as a picture, for `tutelage predict`.

Data sets and tasks that cannot do that do not implement these protocols.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from tutelage.core.batch import Batch
from tutelage.core.overlay import Overlay


@dataclass(frozen=True)
class Prediction:
    """What a network answers for one input.

    Attributes:
        record: what is printed, as JSON can hold it.
        overlay: what to draw over the user's own image, in its pixels; None if there is nothing.
    """

    record: Mapping[str, Any]
    overlay: Overlay | None = None


@dataclass(frozen=True)
class ClassMap:
    """What a network has learned, from student.json: classes, or joints.

    >>> ClassMap(["background", "tree"], ids=[0, 7]).entry(1)
    {'class': 'tree', 'label': 1, 'id': 7}

    Attributes:
        names: by label; empty if they are not known.
        ids: the data's own number of each label, such as COCO's category ids; None where the data
            has no other numbers than the labels.
    """

    names: Sequence[str] = ()
    ids: Sequence[int] | None = None

    def name(self, label: int) -> str:
        """Return the name of a label; its number as text if there is none."""
        return self.names[label] if 0 <= label < len(self.names) else str(label)

    def entry(self, label: int) -> dict[str, Any]:
        """Return name, label and, where the data has its own, the id of a class."""
        entry: dict[str, Any] = {"class": self.name(label), "label": label}
        if self.ids is not None:
            entry["id"] = self.ids[label]
        return entry


@runtime_checkable
class ReadsInput(Protocol):
    """A data set that can read an input from outside of it."""

    def read_input(self, source: Any) -> Batch:
        """Return a batch of one input.

        Args:
            source: what the user typed or gave, such as the path of an image or a text.

        Raises:
            UserError: If there is no such input.
        """
        ...


@runtime_checkable
class Predicts(Protocol):
    """A task that can say in words what a network found."""

    def predictions(
        self, output: Any, batch: Batch, classes: ClassMap, top: int | None
    ) -> Sequence[Prediction]:
        """Return the answer for each item of a batch.

        Args:
            output: what the network gave in eval mode.
            batch: inputs alone; its `source_image` is a list with the user's own images (3, H, W).
            classes: what the network has learned.
            top: how many answers an item gets, where they are ranked; None leaves it to the task.
        """
        ...


@runtime_checkable
class HasOutputs(Protocol):
    """A task that says which tensors of a network's output are of use outside of this package."""

    def outputs(self, output: Any, inputs: Any) -> Mapping[str, Tensor]:
        """Return the tensors that an exported network gives, by name.

        Args:
            output: what the network gave in eval mode.
            inputs: what it was given.
        """
        ...


@runtime_checkable
class DescribesOutputs(Protocol):
    """A task that says how the tensors of an exported network become decisions."""

    def output_info(self) -> Mapping[str, Any]:
        """Return it, as JSON can hold it; the key `text` is for people."""
        ...


@runtime_checkable
class PredictsFromRun(Protocol):
    """A task that answers from files that it wrote into the run, see `Task.export`."""

    def predictor(self, folder: Path, top: int) -> Callable[[str], Prediction]:
        """Return what answers an input, such as the id of a user.

        Args:
            folder: of a finished run.
            top: how many answers an input gets.

        Raises:
            UserError: If the files are missing or damaged; the function raises it for an input that
                is not known.
        """
        ...
