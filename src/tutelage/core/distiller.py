"""The one module that is trained, wrapped, compiled and saved."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from tutelage.core.eval_mode import eval_mode
from tutelage.core.method import Method
from tutelage.core.output import Output, Step
from tutelage.core.tap import Taps, call
from tutelage.core.task import Task
from tutelage.core.teacher import Absent, Teacher
from tutelage.errors import UserError


class Distiller(nn.Module):
    """Student and method in one module; the teacher stands beside it.

    >>> import tutelage
    >>> student, teacher = nn.Linear(8, 3), tutelage.Network(nn.Linear(8, 3))
    >>> distiller = Distiller(student, teacher, tutelage.KD(), tutelage.Classification(num_classes=3))
    >>> batch = (torch.randn(16, 8), torch.randint(3, (16,)))
    >>> distiller.setup(batch)
    >>> terms = distiller(batch)
    >>> sorted(terms)
    ['kd', 'task']
    >>> sum(terms.values()).backward()

    Args:
        student: the network to train.
        teacher: a `Network`, a cache or `Absent()`; it is not registered as a submodule.
        method: what the teacher teaches.
        task: the supervised loss and how a batch enters a network.
    """

    def __init__(self, student: nn.Module, teacher: Teacher, method: Method, task: Task) -> None:
        super().__init__()
        self.student = student
        self.method = method
        heard = task.in_training(teacher, student) if method.listens else Absent()
        self.teacher: Teacher = heard.tapped(method.teacher_taps)
        self.task = task
        names = (*method.student_taps, *(task.student_taps if method.listens else ()))
        try:
            self._taps = Taps(student, names)
        except UserError as error:
            if not method.grows:
                raise
            raise UserError(f"{error}; was the student grown? Give method.grow(student, teacher) here") from error

    def forward(self, batch: Any, progress: float = 1.0) -> dict[str, Tensor]:
        """Return the named, weighted scalar terms of one batch, whose sum is the loss.

        `"task"` comes first, unless its weight is 0.

        Args:
            batch: what the loader gave.
            progress: how much of the run is done, 0 → 1; methods with a ramp read it.
        """
        step = self.step(batch, progress)
        terms: dict[str, Tensor] = {}
        if self.method.task_weight:
            supervised = step.task(step.student.out)
            terms["task"] = supervised if self.method.task_weight == 1 else self.method.task_weight * supervised
        terms.update(self.method(step))
        return terms

    def step(self, batch: Any, progress: float = 1.0) -> Step:
        """Run teacher and student once and return what a method sees."""
        self.method.begin(progress)
        inputs = self.task.inputs(batch)
        student = self._taps(*inputs)
        teacher = self.teacher(batch, self.task.teacher_inputs(inputs, student) if self.method.listens else inputs)
        return Step(student, teacher, batch, partial(self.task.loss, batch=batch), progress)

    def setup(self, batch: Any) -> None:
        """Let the method build its trainable parts from one real batch; call it before making the optimiser.

        The student runs in eval mode without gradient, so its batch-norm statistics stay as they are. New parts
        land on the student's device; they are float32, and float64 for a student in float64.

        Raises:
            UserError: the student's weights are in half precision, and the method has parts to train.
        """
        with torch.no_grad(), eval_mode(self.student):
            example = self.step(batch)
        self.method.setup(example, self.teacher)
        parameter = next(self.student.parameters(), None)
        if parameter is not None:
            self.method.to(parameter.device, torch.float64 if parameter.dtype == torch.float64 else None)
            if parameter.dtype in (torch.float16, torch.bfloat16) and any(True for _ in self.method.parameters()):
                raise UserError(
                    f"the student's weights are {parameter.dtype}, but the method trains parts of its own; keep the "
                    "student in float32 and use autocast (train.precision in a recipe)"
                )

    def predict(self, batch: Any) -> tuple[Output, Output]:
        """Return the student's and the teacher's outputs without a method, for evaluation."""
        inputs = self.task.inputs(batch)
        return Output(call(self.student, inputs)), self.teacher(batch, inputs)

    def ship(self) -> nn.Module:
        """Take off the taps and everything that only training needed; return the network to deploy."""
        self._taps.remove()
        return self.method.ship(self.student)
