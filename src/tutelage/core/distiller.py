"""The one module that is trained, wrapped, compiled and saved."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from tutelage.core._arguments import (
    blame_batch,
    blame_inputs,
    blame_labels,
    check_kind,
    check_scalar,
    check_teacher,
    check_terms,
)
from tutelage.core._checks import (
    check_finite,
    check_gradients,
    check_rows,
    refuse_changed_inputs,
    refuse_frozen,
    versions_of,
)
from tutelage.core._methods import check_method, rebuilds_student, single_methods, try_methods
from tutelage.core._pieces import Pieces, checkpointed
from tutelage.core._second_pass import buffers_of, check_second_pass
from tutelage.core._shared import refuse_shared
from tutelage.core.batch import Batch
from tutelage.core.method import Method
from tutelage.core.modes import eval_mode
from tutelage.core.output import Output, Step
from tutelage.core.precision import HALF
from tutelage.core.taps import FeatureTaps
from tutelage.core.task import Task
from tutelage.core.teacher import NoTeacher, Teacher
from tutelage.errors import UserError


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
        accumulate: number of pieces in which the networks run on a batch, so that a step needs
            memory for a piece alone; the student runs twice. The method sees the whole batch.

    Raises:
        UserError: If an argument is of another kind, such as a class or a bare network as the
            teacher, if a layer that the method reads is not in its network, or if student and
            teacher share a module or weights.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher,
        method: Method,
        task: Task,
        *,
        accumulate: int = 1,
    ) -> None:
        super().__init__()
        check_kind("the student", student, nn.Module, "torch.nn.Linear(8, 3)")
        check_method(method)
        check_teacher("the teacher", teacher, Teacher)
        check_kind("the task", task, Task, "Classification(num_classes=10)")
        refuse_shared(student, teacher.models())
        for network in (student, *teacher.models().values()):
            task.prepare_network(network)
        self.student = student
        self.method = method
        self.task = task
        self._pieces = Pieces(accumulate)
        connected: Teacher = NoTeacher()
        if method.uses_teacher:
            connected = task.connect_teacher(teacher, student)
        self._untapped_teacher = connected
        self._has_checked_terms = False
        self.teacher: Teacher = connected.with_taps(method.teacher_layers)
        try:
            self._taps = self._taps_on(student)
        except UserError:
            self.teacher = connected  # and the hooks go, which the error would keep alive
            raise

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute; another student is checked and tapped as the first one was.

        Wrappers and tools for quantization or adapters return a new student. An optimizer that was
        made before has the former one's parameters.

        Raises:
            UserError: If the new student does not have the layers that the method reads, if it
                shares modules or weights with the teacher, or if the method had built the old one.
        """
        if name == "student" and "_taps" in self.__dict__:
            check_kind("the student", value, nn.Module, "torch.nn.Linear(8, 3)")
            taps = self._new_student(value)
            self._taps.remove()
            self._taps = taps
            self._pieces = Pieces(self._pieces.count)
        super().__setattr__(name, value)

    def forward(self, batch: Any, progress: float = 1.0) -> dict[str, Tensor]:
        """Return the named, weighted scalar terms of one batch, whose sum is the loss.

        `task` comes first, unless its weight is 0.

        Args:
            batch: a `Batch`, or what `Batch.of` understands.
            progress: the share of the run that is done, 0 to 1; methods with a ramp read it.

        Raises:
            UserError: In the first call, if the method returns no named scalars; see `step` too.
        """
        step = self.step(batch, progress)
        terms: dict[str, Tensor] = {}
        weight = self.method.task_weight
        if weight:
            loss = self._task_loss(step)
            terms["task"] = loss if weight == 1 else weight * loss
        added = self.method(step)
        if not self._has_checked_terms:
            check_terms(type(self.method).__name__, added)
            self._has_checked_terms = True
        terms.update(added)
        return terms

    def step(self, batch: Any, progress: float = 1.0) -> Step:
        """Run student and teacher once and return what a method sees.

        Raises:
            UserError: If the first axis of an output is not the items, if the student changes its
                inputs in place, if a layer that the method reads runs without gradients, or if the
                batch has inputs of the wrong kind.
        """
        batch = Batch.of(batch)
        self.method.on_step_start(progress)
        if self._pieces.count > 1:
            return self._step_in_pieces(batch, progress)
        return self._step(batch, self._inputs(batch), progress)

    def setup(self, batch: Any) -> None:
        """Let the method build its trainable parts from one real batch, and try it once.

        Call it before making the optimizer. The student runs in eval mode without gradient, so its
        batch-norm statistics stay as they are. A second pass, without the last item, tells whether
        rows are items and the teacher is fixed. New parts land on the student's device; they are
        float32, and float64 for a student in float64.

        Raises:
            UserError: If an output is NaN or infinite or has no row for each item, if the teacher
                gives other outputs or buffers in each pass, if the method cannot use the outputs,
                has no term left or means nothing for the task, if it trains parts beside a student
                in half precision, or if the whole student is frozen.
        """
        refuse_shared(self.student, self.teacher.models())  # parts may have been exchanged since
        refuse_frozen(self.student)
        self.task.check_method(self.method)
        batch = Batch.of(batch)
        self.method.on_step_start(1.0)
        with torch.no_grad(), eval_mode(self.student):
            inputs = self._inputs(batch)
            before = buffers_of(self.teacher)
            example = self._step(batch, inputs, 1.0)
            check_finite(example)
            if self.method.uses_teacher or self._taps.layers:
                check_second_pass(example, inputs, self._taps, self.teacher, before)
        self.method.setup(example, self.teacher)
        parameter = next(self.student.parameters(), None)
        if parameter is not None:
            self._match(parameter)
        with torch.no_grad(), eval_mode(self.method):
            try_methods(self.method, example)

    def deploy(self) -> nn.Module:
        """Return the network to ship, in eval mode, without taps and what only training needed."""
        self.remove_taps()
        return self.method.deploy(self.student).eval()

    def remove_taps(self) -> None:
        """Remove the hooks from student and teacher; the distiller cannot be called afterwards."""
        self._taps.remove()
        # The hooks of the tapped teacher go with it; the network may have other students.
        self.teacher = self._untapped_teacher

    def _inputs(self, batch: Batch) -> tuple[Any, ...]:
        try:
            return self.task.inputs(batch)
        except UserError:
            raise
        except Exception as error:
            raise blame_batch(self.task, batch, error) from error

    def _step_in_pieces(self, batch: Batch, progress: float) -> Step:
        """Run student and teacher on pieces of the batch and join what they gave."""
        run_student = checkpointed(self._taps)

        def run(piece: Batch) -> Step:
            return self._step(piece, self._inputs(piece), progress, run_student)

        student, teacher = self._pieces(batch, run, self.student)
        return Step(student, teacher, batch, partial(self.task.loss, batch=batch), progress)

    def _step(
        self,
        batch: Batch,
        inputs: tuple[Any, ...],
        progress: float,
        run_student: Callable[..., Output] | None = None,
    ) -> Step:
        versions = versions_of(inputs) if self.method.uses_teacher else []
        # The student runs first: a teacher may need what the student's layers made of the inputs.
        try:
            student = self._taps(*inputs) if run_student is None else run_student(*inputs)
        except Exception as error:
            blamed = blame_inputs("the student", self.student, inputs, error)
            if blamed is None:
                raise
            raise blamed from error
        refuse_changed_inputs("the student", versions)
        teacher = self.teacher(batch, inputs, student)
        student = Output(student.output, student.features, "student")
        step = Step(student, teacher, batch, partial(self.task.loss, batch=batch), progress)
        check_rows(step, inputs, self.teacher.other_rows)
        if torch.is_grad_enabled():
            check_gradients(step, self.method.student_layers, self._taps.without_gradients)
        return step

    def _task_loss(self, step: Step) -> Tensor:
        """Return the supervised loss."""
        try:
            loss = step.task_loss(step.student.output)
        except UserError:
            raise
        except Exception as error:
            blamed = blame_labels(step.batch, error)
            if blamed is None:
                raise
            raise blamed from error
        if not self._has_checked_terms:
            check_scalar(f"the loss of the task ({type(self.task).__name__})", loss)
        return loss

    def _taps_on(self, student: nn.Module) -> FeatureTaps:
        try:
            return FeatureTaps(student, (*self.method.student_layers, *self.teacher.student_layers))
        except UserError as error:
            fix = ""
            if any(rebuilds_student(method) for method in single_methods(self.method)):
                fix = "; give the student that method.build_student(student, teacher) returns"
            raise UserError(f"a layer of the student: {error}{fix}") from error

    def _new_student(self, student: nn.Module) -> FeatureTaps:
        """Return the taps on another student."""
        if student is not self.student:
            for method in single_methods(self.method):
                if rebuilds_student(method):
                    raise UserError(
                        f"distiller.student cannot be set: {type(method).__name__} has built it "
                        "and trains it; make a new Distiller of the student that "
                        "method.build_student(student, teacher) returns"
                    )
        refuse_shared(student, self.teacher.models())
        self.task.prepare_network(student)
        return self._taps_on(student)

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
