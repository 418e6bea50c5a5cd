"""The one module that is trained, wrapped, compiled and saved."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from tutelage.core.batch import Batch
from tutelage.core.combined import CombinedMethod
from tutelage.core.method import Method
from tutelage.core.modes import eval_mode
from tutelage.core.output import LOGITS, Step
from tutelage.core.taps import FeatureTaps
from tutelage.core.task import Task
from tutelage.core.teacher import NoTeacher, Teacher
from tutelage.errors import UserError

HALF = (torch.float16, torch.bfloat16)


class Distiller(nn.Module):
    """Student and method in one module; the teacher stands beside it, unregistered.

    >>> import tutelage
    >>> student, teacher = nn.Linear(8, 3), tutelage.FrozenTeacher(nn.Linear(8, 3))
    >>> task = tutelage.Classification(num_classes=3)
    >>> distiller = Distiller(student, teacher, tutelage.KD(), task)
    >>> batch = (torch.randn(16, 8), torch.randint(3, (16,)))
    >>> distiller.setup(batch)
    >>> terms = distiller(batch)
    >>> sorted(terms)
    ['kd', 'task']
    >>> sum(terms.values()).backward()

    Args:
        student: the network to train.
        teacher: a `FrozenTeacher`, a `CachedTeacher`, `Teachers` or `NoTeacher()`.
        method: what the teacher teaches.
        task: the supervised loss and how a batch enters a network.

    Raises:
        UserError: If a layer that the method reads is not in its network.
    """

    def __init__(self, student: nn.Module, teacher: Teacher, method: Method, task: Task) -> None:
        super().__init__()
        self.student = student
        self.method = method
        connected: Teacher = NoTeacher()
        if method.uses_teacher:
            connected = task.connect_teacher(teacher, student)
        self.teacher: Teacher = connected.with_taps(method.teacher_layers)
        self.task = task
        try:
            self._taps = FeatureTaps(
                student, (*method.student_layers, *self.teacher.student_layers)
            )
        except UserError as error:
            raise UserError(
                f"{error}; if the method changes the student, give the one that "
                "method.build_student(student, teacher) returns"
            ) from error

    def forward(self, batch: Any, progress: float = 1.0) -> dict[str, Tensor]:
        """Return the named, weighted scalar terms of one batch, whose sum is the loss.

        `task` comes first, unless its weight is 0.

        Args:
            batch: a `Batch`, or what `Batch.of` understands.
            progress: the share of the run that is done, 0 to 1; methods with a ramp read it.
        """
        step = self.step(batch, progress)
        terms: dict[str, Tensor] = {}
        weight = self.method.task_weight
        if weight:
            loss = step.task_loss(step.student.output)
            terms["task"] = loss if weight == 1 else weight * loss
        terms.update(self.method(step))
        return terms

    def step(self, batch: Any, progress: float = 1.0) -> Step:
        """Run student and teacher once and return what a method sees."""
        batch = Batch.of(batch)
        self.method.on_step_start(progress)
        inputs = self.task.inputs(batch)
        # The student runs first: a teacher may need what the student's layers made of the inputs.
        student = self._taps(*inputs)
        teacher = self.teacher(batch, inputs, student)
        return Step(student, teacher, batch, partial(self.task.loss, batch=batch), progress)

    def setup(self, batch: Any) -> None:
        """Let the method build its trainable parts from one real batch, and try it once.

        Call it before making the optimizer. The student runs in eval mode without gradient, so its
        batch-norm statistics stay as they are. New parts land on the student's device; they are
        float32, and float64 for a student in float64.

        Raises:
            UserError: If an output is NaN or infinite, if the method cannot use the outputs or has
                no term left, or if it trains parts beside a student in half precision.
        """
        with torch.no_grad(), eval_mode(self.student):
            example = self.step(batch)
        check_finite(example)
        self.method.setup(example, self.teacher)
        parameter = next(self.student.parameters(), None)
        if parameter is not None:
            self._match(parameter)
        with torch.no_grad(), eval_mode(self.method):
            for method in _single_methods(self.method):
                # A method that only rebuilds the student, such as an ensemble, may add no term.
                rebuilds = type(method).build_student is not Method.build_student
                if method.uses_teacher and not method(example) and not rebuilds:
                    raise UserError(
                        f"{type(method).__name__} has no term left with these weights and this "
                        "number of classes; give one a weight"
                    )

    def deploy(self) -> nn.Module:
        """Remove the taps and return the network to ship, without what only training needed."""
        self.remove_taps()
        return self.method.deploy(self.student)

    def remove_taps(self) -> None:
        """Remove the hooks from the student; the distiller cannot be called afterwards."""
        self._taps.remove()

    def _match(self, parameter: nn.Parameter) -> None:
        """Move the method's parts to the student's device and precision."""
        double = parameter.dtype == torch.float64
        self.method.to(parameter.device, torch.float64 if double else None)
        trains_parts = next(self.method.parameters(), None) is not None
        if parameter.dtype in HALF and trains_parts:
            raise UserError(
                f"the student's weights are {parameter.dtype}, but the method trains parts of its "
                "own; keep the student in float32 and use autocast (train.precision in a recipe)"
            )


def check_finite(example: Step) -> None:
    """Raise if an output or a feature of either network holds NaN or infinity.

    It makes an accelerator wait, so it is for `setup`.

    Raises:
        UserError: The message names the network and the output or layer.
    """
    for role, output in (("student", example.student), ("teacher", example.teacher)):
        values: dict[str, Any] = {"output": output.output}
        if isinstance(output.output, Mapping):
            names = [name for name in LOGITS if name in output.output]
            values |= {f"output {name!r}": output.output[name] for name in names}
        values |= {f"feature {name!r}": value for name, value in output.features.items()}
        for name, value in values.items():
            if isinstance(value, Tensor) and not value.isfinite().all():
                raise UserError(
                    f"the {role}'s {name} holds NaN or infinity; "
                    "check its weights and input scaling"
                )


def _single_methods(method: Method) -> Iterator[Method]:
    if isinstance(method, CombinedMethod):
        for inner in method:
            yield from _single_methods(inner)
    else:
        yield method
