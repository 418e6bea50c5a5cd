"""Several methods at once: their terms side by side."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

from torch import Tensor, nn

from tutelage.core._arguments import check_kind, check_task_weight, check_terms, shown_kind
from tutelage.core.method import Method
from tutelage.core.output import Step
from tutelage.core.teacher import Teacher
from tutelage.errors import UserError


class CombinedMethod(Method):
    """Several methods trained at once; itself a method.

    Hooks run in the order of the list, `eval_model` and `deploy` in reverse. Terms of the same name
    (the same method twice) get `#2`, `#3`, ....

    Args:
        methods: the methods, in a list.
        others: none; methods that are given one by one are refused with the list that is meant.
        task_weight: factor of the supervised loss; None multiplies the methods' own factors, so
            that `CombinedMethod([KD(), RCKA()])` keeps KD's.

    Raises:
        UserError: If there are no methods, or if they are no list of methods.
    """

    def __init__(
        self,
        methods: Sequence[Method],
        *others: Method,
        task_weight: float | None = None,
    ) -> None:
        super().__init__()
        _check_methods(methods, others)
        self.methods = nn.ModuleList(methods)
        if task_weight is None:
            task_weight = math.prod(method.task_weight for method in methods)
        self.task_weight = task_weight
        check_task_weight(self)
        self.uses_teacher = any(method.uses_teacher for method in methods)
        self.needs_one_class = any(method.needs_one_class for method in methods)
        self.student_layers = _unique(layer for m in methods for layer in m.student_layers)
        self.teacher_layers = _unique(layer for m in methods for layer in m.teacher_layers)

    def build_student(self, student: nn.Module, teacher: Teacher) -> nn.Module:
        """Let every method change the student, in order."""
        for method in self:
            student = method.build_student(student, teacher)
        return student

    def build_data(self, train: Any, teacher: Teacher) -> Any:
        """Let every method change the training data, in order."""
        for method in self:
            train = method.build_data(train, teacher)
        return train

    def setup(self, example: Step, teacher: Teacher) -> None:
        """Let every method build its trainable parts."""
        for method in self:
            method.setup(example, teacher)

    def on_train_start(self) -> None:
        """Call the hook of every method."""
        for method in self:
            method.on_train_start()

    def on_step_start(self, progress: float) -> None:
        """Call the hook of every method."""
        for method in self:
            method.on_step_start(progress)

    def forward(self, step: Step) -> dict[str, Tensor]:
        """Return the terms of all methods."""
        terms: dict[str, Tensor] = {}
        for method in self:
            added = method(step)
            if not isinstance(added, dict):
                check_terms(type(method).__name__, added)
            for name, value in added.items():
                terms[free_name(name, terms)] = value
        return terms

    def eval_model(self, student: nn.Module) -> nn.Module:
        """Let every method choose what is validated, in reverse order."""
        for method in reversed(list(self)):
            student = method.eval_model(student)
        return student

    def choose(self, student: nn.Module, score: Callable[[nn.Module], float]) -> dict[str, Any]:
        """Let every method choose, in order."""
        chosen: dict[str, Any] = {}
        for method in self:
            chosen |= method.choose(student, score)
        return chosen

    def deploy(self, student: nn.Module) -> nn.Module:
        """Let every method take off what is not shipped, in reverse order."""
        for method in reversed(list(self)):
            student = method.deploy(student)
        return student

    def __iter__(self) -> Iterator[Method]:
        """Iterate over the methods."""
        return iter(cast("Sequence[Method]", self.methods))

    def extra_repr(self) -> str:
        """Show the weight; the methods show themselves as children."""
        return f"task_weight={self.task_weight}"


def _check_methods(methods: object, others: Sequence[object]) -> None:
    if others or isinstance(methods, Method):
        names = [type(method).__name__ for method in (methods, *others)]
        listed = ", ".join(f"{name}()" for name in names if name not in ("int", "float", "list"))
        raise UserError(
            f"CombinedMethod takes one list of methods, as in CombinedMethod([{listed}]), and "
            "task_weight by name"
        )
    if not isinstance(methods, (list, tuple, nn.ModuleList)):
        raise UserError(
            "CombinedMethod takes a list of methods, as in CombinedMethod([KD(), RCKA()]), got "
            f"{shown_kind(methods)}"
        )
    if not methods:
        raise UserError("CombinedMethod needs at least one method, got an empty list")
    for method in methods:
        check_kind("a method in CombinedMethod", method, Method, "KD()")
        check_task_weight(method)


def _unique(names: Iterator[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))


def free_name(name: str, taken: dict[str, Tensor]) -> str:
    """Return the name, or the name with the first free number behind it if it is taken.

    >>> free_name("kd", {"kd": Tensor(), "kd#2": Tensor()})
    'kd#3'
    """
    candidate, count = name, 1
    while candidate in taken:
        count += 1
        candidate = f"{name}#{count}"
    return candidate
