"""Several methods at once: their terms side by side."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from tutelage.core.method import Method
from tutelage.core.output import Step
from tutelage.core.teacher import Teacher
from tutelage.errors import UserError


class Together(Method):
    """Several methods trained at once; itself a method.

    Hooks run in the order of the list. Terms of the same name (the same method twice) get `#2`, `#3`, ….

    Args:
        methods: the methods.
        task_weight: factor of the supervised loss; None multiplies the members' own factors, so that
            `Together([KD(), RCKA()])` keeps KD's.
    """

    def __init__(self, methods: Sequence[Method], task_weight: float | None = None) -> None:
        super().__init__()
        if not methods:
            raise UserError("Together needs at least one method, got an empty list")
        self.methods = nn.ModuleList(methods)
        self.members = list(methods)
        self.task_weight = math.prod(m.task_weight for m in methods) if task_weight is None else task_weight
        self.listens, self.grows = any(m.listens for m in methods), any(m.grows for m in methods)
        self.student_taps = tuple(dict.fromkeys(name for m in methods for name in m.student_taps))
        self.teacher_taps = tuple(dict.fromkeys(name for m in methods for name in m.teacher_taps))

    def grow(self, student: nn.Module, teacher: Teacher) -> nn.Module:
        """Let every member change the student, in order."""
        for method in self.members:
            student = method.grow(student, teacher)
        return student

    def data(self, train: Any, teacher: Teacher) -> Any:
        """Let every member change the training data, in order."""
        for method in self.members:
            train = method.data(train, teacher)
        return train

    def setup(self, example: Step, teacher: Teacher) -> None:
        """Let every member build its trainable parts."""
        for method in self.members:
            method.setup(example, teacher)

    def begin(self, progress: float) -> None:
        """Let every member freeze what it wants frozen by now."""
        for method in self.members:
            method.begin(progress)

    def forward(self, step: Step) -> dict[str, Tensor]:
        """Return all members' terms."""
        terms: dict[str, Tensor] = {}
        for method in self.members:
            for name, value in method(step).items():
                terms[_free_name(name, terms)] = value
        return terms

    def inspect(self, step: Step) -> dict[str, Tensor]:
        """Return all members' maps."""
        maps: dict[str, Tensor] = {}
        for method in self.members:
            for name, value in method.inspect(step).items():
                maps[_free_name(name, maps)] = value
        return maps

    def ship(self, student: nn.Module) -> nn.Module:
        """Let every member take off what is not deployed, in reverse order."""
        for method in reversed(self.members):
            student = method.ship(student)
        return student

    def extra_repr(self) -> str:
        """The members show themselves as children."""
        return f"task_weight={self.task_weight}"


def _free_name(name: str, taken: dict[str, Tensor]) -> str:
    candidate, count = name, 1
    while candidate in taken:
        count += 1
        candidate = f"{name}#{count}"
    return candidate
