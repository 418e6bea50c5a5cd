"""Answers to single inputs that a user names, such as a picture, for `tutelage predict`.

Data sets and tasks that cannot do that do not implement these protocols.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

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


@runtime_checkable
class ReadsInput(Protocol):
    """A data set that can read an input from outside of it."""

    def read_input(self, source: str) -> Batch:
        """Return a batch of one input.

        Args:
            source: what the user typed, such as the path of an image or a text.

        Raises:
            UserError: If there is no such input.
        """
        ...


@runtime_checkable
class Predicts(Protocol):
    """A task that can say in words what a network found."""

    def predictions(self, output: Any, batch: Batch, names: Sequence[str]) -> Sequence[Prediction]:
        """Return the answer for each item of a batch.

        Args:
            output: what the network gave in eval mode.
            batch: what `ReadsInput.read_input` returned. Its `source_image` is a list with the
                user's own image (3, H, W), if the input is one.
            names: what the network has learned, such as classes or joints, from student.json.
        """
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
