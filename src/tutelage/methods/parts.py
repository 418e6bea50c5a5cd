"""Parts that several methods share: looks at what they are given, and a fade-in."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from tutelage.core import Step
from tutelage.core.batch import IGNORED
from tutelage.errors import UserError


def check_finite(example: Step) -> None:
    """Refuse NaN and infinity in what both networks gave; for `setup`, since it makes an accelerator wait.

    >>> from tutelage.core import Output
    >>> check_finite(Step(Output(torch.zeros(1)), Output(torch.tensor([torch.nan])), None, torch.sum))
    Traceback (most recent call last):
    tutelage.errors.UserError: the teacher's output holds NaN or infinity; check its weights and input scaling

    Raises:
        UserError: the message says whose output or tap it is.
    """
    for whose, output in (("student", example.student), ("teacher", example.teacher)):
        named = {"output": output.out, **{f"tap {name!r}": value for name, value in output.taps.items()}}
        if isinstance(output.out, Mapping):  # of which methods read the logits
            named |= {f"output {name!r}": output.out[name] for name in ("logits", "out") if name in output.out}
        for name, value in named.items():
            if isinstance(value, Tensor) and not value.isfinite().all():
                raise UserError(f"the {whose}'s {name} holds NaN or infinity; check its weights and input scaling")


def check_floating(needs: str, student: Tensor, teacher: Tensor) -> None:
    """Refuse integers and booleans on either side; `needs` begins the message.

    >>> check_floating("KD needs floating-point logits", torch.ones(1), torch.tensor([1]))
    Traceback (most recent call last):
    tutelage.errors.UserError: KD needs floating-point logits, got torch.float32 and torch.int64; use .float()
    """
    if not (student.is_floating_point() and teacher.is_floating_point()):
        raise UserError(f"{needs}, got {student.dtype} and {teacher.dtype}; use .float()")


def check_layout(student: Tensor, teacher: Tensor, pair: str) -> None:
    """Refuse a pair of maps (N, C, H, W) of which one seems to have its channels last, as Swin's do.

    Maps of the same images have the same proportions, up to rounding; one that has not, and whose second and third
    dimension are equal, is read the wrong way round.

    >>> check_layout(torch.zeros(2, 96, 14, 14), torch.zeros(2, 14, 14, 192), "a → layers.1")
    Traceback (most recent call last):
    tutelage.errors.UserError: the pair a → layers.1 gives (2, 96, 14, 14) and (2, 14, 14, 192), of which one seems \
to have its channels last; tap a layer that gives (N, C, H, W), or wrap the network so that it has one
    >>> check_layout(torch.zeros(2, 64, 64, 96), torch.zeros(2, 256, 32, 48), "wide images, as many channels as rows")
    """
    if student.ndim != 4 or teacher.ndim != 4:
        return
    proportions = [x.shape[3] / x.shape[2] for x in (student, teacher)]
    alike = 0.8 < proportions[0] / proportions[1] < 1.25
    if not alike and any(x.shape[1] == x.shape[2] != x.shape[3] for x in (student, teacher)):
        raise UserError(
            f"the pair {pair} gives {tuple(student.shape)} and {tuple(teacher.shape)}, of which one seems to have its "
            "channels last; tap a layer that gives (N, C, H, W), or wrap the network so that it has one"
        )


def check_classes(labels: Tensor, classes: int) -> None:
    """Refuse labels (N,) that are neither a class nor -100; on the CPU only, elsewhere the look would make a step wait.

    >>> check_classes(torch.tensor([0, -100, 3]), 3)
    Traceback (most recent call last):
    tutelage.errors.UserError: the label 3 is none of the 3 classes, nor -100
    """
    if labels.device.type == "cpu":
        wrong = (labels != IGNORED) & ((labels < 0) | (labels >= classes))
        if wrong.any():
            raise UserError(f"the label {int(labels[wrong][0])} is none of the {classes} classes, nor -100")


def check_labels(method: str, labels: Tensor, logits: Tensor) -> None:
    """Refuse labels that are not one class an item of logits (N, C), as int64; `method` begins the message.

    >>> check_labels("DKD", torch.zeros(4), torch.zeros(4, 3))
    Traceback (most recent call last):
    tutelage.errors.UserError: DKD needs labels (4,) of int64, one class an item, got (4,) of torch.float32
    """
    if labels.shape != logits.shape[:1] or labels.dtype != torch.int64:
        needs = f"{method} needs labels ({len(logits)},) of int64, one class an item"
        raise UserError(f"{needs}, got {tuple(labels.shape)} of {labels.dtype}")
    check_classes(labels, logits.shape[1])


def check_any(method: str, terms: Mapping[str, Tensor]) -> None:
    """Refuse weights that leave nothing of a method.

    >>> check_any("DIST", {})
    Traceback (most recent call last):
    tutelage.errors.UserError: DIST has no term left with these weights and this number of classes; give one a weight
    """
    if not terms:
        raise UserError(f"{method} has no term left with these weights and this number of classes; give one a weight")


def check_positive(what: str, value: float) -> None:
    """Refuse 0, a negative number and NaN.

    >>> check_positive("the temperature of DKD", 0.0)
    Traceback (most recent call last):
    tutelage.errors.UserError: the temperature of DKD must be positive, got 0.0
    """
    if not value > 0:
        raise UserError(f"{what} must be positive, got {value}")


def fade_in(progress: float, ramp: tuple[float, float] | None) -> float:
    """Return 0 up to the first point of the ramp, 1 from the second on, linear in between; 1 without a ramp.

    >>> fade_in(0.2, (0.3, 0.7)), round(fade_in(0.4, (0.3, 0.7)), 6), fade_in(0.7, (0.3, 0.7)), fade_in(0.0, None)
    (0.0, 0.25, 1.0, 1.0)

    Args:
        progress: share of the run that is done, 0 to 1.
        ramp: start and stop as shares of the run, 0 ≤ start ≤ stop ≤ 1.
    """
    if ramp is None or progress >= ramp[1]:
        return 1.0
    start, stop = ramp
    return 0.0 if progress <= start else (progress - start) / (stop - start)
