"""Try a recipe's parts on one real batch before training, and name the one that does not fit."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from tutelage.core import Batch, Distiller, FeatureTaps, Method, Metrics, Task, Teacher
from tutelage.core.modes import device_of, eval_mode
from tutelage.core.taps import call
from tutelage.engine.optim import make_optimizer
from tutelage.errors import UserError, reason
from tutelage.recipes.config import TrainConfig


def check_layers(method: Method, student: nn.Module, teacher: Teacher) -> None:
    """Look up every layer that the method reads.

    Raises:
        UserError: If there is none of that name. The message says in which network, and the nearest
            names.
    """
    try:
        FeatureTaps(student, method.student_layers).remove()
    except UserError as error:
        raise UserError(f"a layer of the student: {error}") from error
    if method.uses_teacher:
        teacher.with_taps(method.teacher_layers)


def _role(name: str) -> str:
    return name if name == "teacher" else f"teacher {name!r}"


@contextmanager
def blame_network(student: nn.Module, teacher: Teacher, task: Task, batch: Batch) -> Iterator[None]:
    """Turn an error in the block into a sentence about a network, if one fails by itself.

    Args:
        student: tried first.
        teacher: its networks are tried next.
        task: gives the inputs.
        batch: what to try them on.
    """
    try:
        yield
    except Exception:
        try:
            inputs = task.inputs(batch)
        except Exception:
            inputs = None
        if inputs is None:  # the error is about the batch, and no network's
            raise
        with torch.no_grad(), eval_mode(student):
            run_once("student", student, inputs)
            for name, model in teacher.models().items():
                run_once(_role(name), model.to(device_of(student)), inputs)
        raise


def check_student(student: nn.Module, task: Task, batch: Batch, data: Any) -> None:
    """Check that the student's output and the data fit the task.

    Raises:
        UserError: If they do not.
    """
    _check_metrics(task)
    try:
        inputs = task.inputs(batch)
    except Exception as error:
        raise UserError(
            f"the task ({type(task).__name__}) cannot use the batches of the data "
            f"({type(data).__name__}): {reason(error)}; check that task and data belong together"
        ) from error
    with torch.no_grad(), eval_mode(student):
        output = call(student, inputs)
    try:
        task.validate(output, batch, data)
    except UserError as error:
        said = str(error)
        if said.startswith("the network "):  # a task does not know which one it is
            raise UserError(said.replace("the network", "the student", 1)) from error
        raise
    except Exception as error:
        raise UserError(
            f"the task cannot use what the student ({type(student).__name__}) gives, a "
            f"{type(output).__name__}: {reason(error)}; check student.model"
        ) from error


def _check_metrics(task: Task) -> None:
    """Refuse a task that could not be validated, which would show after an epoch only."""
    name = type(task).__name__
    if not isinstance(getattr(task, "monitor", None), str):
        raise UserError(
            f"the task ({name}) has no monitor, the metric by which the best epoch is chosen; set "
            "it in the class, as in monitor = 'top1'"
        )
    uses_metrics = type(task).evaluate is Task.evaluate
    if uses_metrics and not isinstance(task.metrics(), Metrics):
        raise UserError(f"the task ({name}) must return running metrics, a Metrics, from metrics()")


def checked_optimizer(distiller: Distiller, train: TrainConfig) -> torch.optim.Optimizer:
    """Return the optimizer.

    Raises:
        UserError: If there is nothing to train, or the optimizer cannot be made.
    """
    if not any(parameter.requires_grad for parameter in distiller.parameters()):
        raise UserError(
            f"the student ({type(distiller.student).__name__}) has no trainable parameters; "
            "check student.model"
        )
    try:
        optimizer = make_optimizer(distiller, train)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"train.optimizer cannot be made: {reason(error)}") from error
    _check_step(optimizer)
    return optimizer


def _check_step(optimizer: torch.optim.Optimizer) -> None:
    """Refuse an optimizer that training cannot call.

    Raises:
        UserError: If its step needs a closure, or sparse gradients.
    """
    name = type(optimizer).__name__
    closure = inspect.signature(type(optimizer).step).parameters.get("closure")
    if closure is not None and closure.default is inspect.Parameter.empty:
        raise UserError(
            f"train.optimizer: {name} needs a closure that computes the loss again, which training "
            "in batches has not; take another, such as torch.optim.AdamW"
        )
    if isinstance(optimizer, torch.optim.SparseAdam):
        raise UserError(
            f"train.optimizer: {name} takes sparse gradients only, and those of networks are "
            "dense; take torch.optim.Adam"
        )


def run_once(role: str, network: nn.Module, inputs: tuple[Any, ...]) -> None:
    """Run a network once.

    Args:
        role: what to call it in a message.
        network: the network.
        inputs: positional arguments of its forward.

    Raises:
        UserError: If it fails. The message names the network and the shapes of its inputs.
    """
    try:
        call(network, inputs)
    except UserError as error:
        raise UserError(f"the {role}: {error}") from error
    except Exception as error:
        raise UserError(
            f"the {role} ({type(network).__name__}) fails on a batch of inputs {_shapes(inputs)}: "
            f"{reason(error)}; check its channels and the size of the inputs"
        ) from error


def _shapes(inputs: tuple[Any, ...]) -> str:
    shapes = []
    for value in inputs:
        entries = value.values() if isinstance(value, Mapping) else [value]
        shapes += [str(tuple(entry.shape)) for entry in entries if isinstance(entry, Tensor)]
    return ", ".join(shapes)
