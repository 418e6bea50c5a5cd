"""Try a recipe's parts on one real batch, before anything is trained or written, and say which one does not fit."""

from __future__ import annotations

import sysconfig
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tutelage.core import Distiller, Method, Network, Taps, Task, Teacher
from tutelage.core.device import device_of
from tutelage.core.eval_mode import eval_mode
from tutelage.engine.parameters import parameter_groups
from tutelage.engine.recipe import Training
from tutelage.errors import UserError

LIBRARIES = ("site-packages", "dist-packages", sysconfig.get_paths()["stdlib"], str(Path(__file__).parents[1]))


def check_taps(method: Method, student: nn.Module, teacher: Teacher) -> None:
    """Find every module that the method taps.

    Raises:
        UserError: there is none of that name; the message says in whose network, and the nearest names.
    """
    tapped = {"student": (student, method.student_taps)}
    if isinstance(teacher, Network) and method.listens:
        tapped["teacher"] = (teacher.network, method.teacher_taps)
    for whose, (network, names) in tapped.items():
        try:
            Taps(network, names).remove()
        except UserError as error:
            raise UserError(f"a tap of the {whose}: {error}") from error


@contextmanager
def explained(student: nn.Module, teacher: Teacher, task: Task, batch: Any) -> Iterator[None]:
    """Turn an error within the block into a sentence that names the network, when one fails on this batch by itself."""
    try:
        yield
    except Exception:
        inputs = task.inputs(batch)
        with torch.no_grad(), eval_mode(student):
            try_network("student", student, inputs)
            if isinstance(teacher, Network):
                try_network("teacher", teacher.network.to(device_of(student)), inputs)
        raise


def check_parts(distiller: Distiller, train: Training, batch: Any) -> None:
    """Make sure that the student fits the task, that there is something to train, and that the optimiser can be made.

    Raises:
        UserError: one of them is not so.
    """
    student, task = distiller.student, distiller.task
    with torch.no_grad(), eval_mode(student):
        out = Taps(student)(*task.inputs(batch)).out
    try:
        task.accept(out, batch)
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"the task cannot use what the student ({type(student).__name__}) gives, a {type(out).__name__}: "
            f"{reason(error)}; check student.network"
        ) from error
    if not any(parameter.requires_grad for parameter in distiller.parameters()):
        raise UserError(f"the student ({type(student).__name__}) has no trainable parameters; check student.network")
    groups = parameter_groups(distiller, train)
    try:
        train.optimizer(groups)
    except Exception as error:
        raise UserError(f"train.optimizer cannot be made: {reason(error)}") from error


def reason(error: BaseException) -> str:
    """Return an error as the end of a sentence: its kind, its message on one line, and where the user's code is in it.

    >>> reason(ValueError("no\\n  such width"))
    'ValueError: no such width'
    """
    text = str(error).strip()
    if text.startswith("Caught ") and "Traceback" in text:  # torch puts a loading process's whole traceback here
        return text.splitlines()[-1]
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if _is_own(frame.filename)]
    where = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {' '.join(text.split())[:300]}{where}"


def try_network(whose: str, network: nn.Module, inputs: tuple[Any, ...]) -> None:
    """Run a network once, or raise with a sentence that names it and the shapes of its inputs."""
    try:
        Taps(network)(*inputs)
    except UserError as error:
        raise UserError(f"the {whose}: {error}") from error
    except Exception as error:
        shapes = ", ".join(str(tuple(value.shape)) for value in inputs if isinstance(value, Tensor))  # not of a dict
        raise UserError(
            f"the {whose} ({type(network).__name__}) fails on a batch of images {shapes}: {reason(error)}; "
            "check its channels and the size of the images"
        ) from error


def _is_own(file: str) -> bool:
    return not any(part in file for part in LIBRARIES) and Path(file).is_file()
