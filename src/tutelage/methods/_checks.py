"""Checks of inputs and options that several methods share."""

from __future__ import annotations

import math
from typing import Any, Literal, get_args, get_origin

import torch
from torch import Tensor

from tutelage.core.batch import IGNORE_INDEX
from tutelage.errors import UserError
from tutelage.similarity._checks import check_tensors


def check_positive(what: str, value: float) -> None:
    """Raise for 0, a negative number, infinity and NaN.

    >>> check_positive("the temperature of DKD", 0.0)
    Traceback (most recent call last):
    tutelage.errors.UserError: the temperature of DKD must be positive, got 0.0

    Args:
        what: subject of the message.
        value: the number to check.

    Raises:
        UserError: If the value is no number, not positive or infinite.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise UserError(f"{what} must be a positive number, got {value!r}")
    if not value > 0:
        raise UserError(f"{what} must be positive, got {value}")
    if value == math.inf:
        raise UserError(f"{what} must be finite, got {value}")


def check_weights(method: str, *weights: float | None, optional: bool = False) -> None:
    """Raise for weights of terms that are negative, infinite, NaN or no numbers.

    >>> check_weights("DIST", 2.0, -1.0)
    Traceback (most recent call last):
    tutelage.errors.UserError: the weights of DIST are finite numbers from 0 on, got -1.0

    Args:
        method: name of the method, for the message.
        weights: of its terms.
        optional: None turns a term off.

    Raises:
        UserError: The message has the first such weight.
    """
    for weight in weights:
        if weight is None and optional:
            continue
        is_number = isinstance(weight, (int, float)) and not isinstance(weight, bool)
        if weight is None or not is_number or not 0 <= weight < math.inf:
            raise UserError(f"the weights of {method} are finite numbers from 0 on, got {weight!r}")


def check_choice(name: str, value: object, choices: Any) -> None:
    """Raise unless an option has one of the values that its type allows.

    A recipe's options are checked against their types when it is read; this is for Python users.

    >>> check_choice("gram", "cosine", Literal["plain", "normalized"])
    Traceback (most recent call last):
    tutelage.errors.UserError: gram is 'plain' or 'normalized', got 'cosine'; choose one of them
    >>> check_choice("scale", None, Literal["rows", "cosine"] | None)

    Args:
        name: of the option.
        value: what it was set to.
        choices: the option's type, `Literal[...]` or `Literal[...] | None`.

    Raises:
        UserError: If the value is none of the choices.
    """
    allowed = _values_of(choices)
    if value not in allowed:
        names = [repr(choice) for choice in allowed]
        listing = f"{', '.join(names[:-1])} or {names[-1]}"
        raise UserError(f"{name} is {listing}, got {value!r}; choose one of them")


def _values_of(choices: Any) -> tuple[object, ...]:
    """Return the values of a `Literal`, None first if it is allowed."""
    if get_origin(choices) is Literal:
        return get_args(choices)
    values: tuple[object, ...] = ()
    for member in get_args(choices):
        values = (None, *values) if member is type(None) else (*values, *get_args(member))
    return values


def check_floating(needs: str, student: Tensor, teacher: Tensor) -> None:
    """Raise for what is no tensor, and for tensors of integers, booleans and complex numbers.

    >>> check_floating("KD needs floating-point logits", torch.ones(1), torch.tensor([1]))
    Traceback (most recent call last):
    tutelage.errors.UserError: KD needs floating-point logits, got torch.float32 and torch.int64; \
use .float()

    Args:
        needs: how the message begins.
        student: the student's logits or features.
        teacher: the teacher's.

    Raises:
        UserError: If one of the two is no tensor, or not of a floating-point dtype.
    """
    check_tensors(needs.partition(" needs ")[0], student, teacher)
    if not (student.is_floating_point() and teacher.is_floating_point()):
        raise UserError(f"{needs}, got {student.dtype} and {teacher.dtype}; use .float()")


def check_items(method: str, *values: Tensor) -> None:
    """Raise for what is no tensor (N, ...) with one row an item.

    >>> check_items("RCKA", torch.zeros(4))
    Traceback (most recent call last):
    tutelage.errors.UserError: RCKA needs tensors (N, ...), one row an item, got (4,)
    """
    check_tensors(method, *values)
    for value in values:
        if value.ndim < 2:
            raise UserError(
                f"{method} needs tensors (N, ...), one row an item, got {tuple(value.shape)}"
            )


def check_features(method: str, student: Tensor, teacher: Tensor) -> None:
    """Raise unless both features are floating-point tensors (N, ...) of the same items.

    >>> check_features("RCKA", torch.zeros(4, 3), torch.zeros(5))
    Traceback (most recent call last):
    tutelage.errors.UserError: RCKA needs features (N, ...) of the same items, got (4, 3) from the \
student and (5,) from the teacher; give both the same batch, one row an item

    Args:
        method: name of the method, for the message.
        student: the student's feature.
        teacher: the teacher's.

    Raises:
        UserError: If shapes or dtypes do not fit, or a feature is empty.
    """
    check_floating(f"{method} needs floating-point features", student, teacher)
    has_rows = student.ndim > 1 and teacher.ndim > 1 and student.numel() and teacher.numel()
    if not has_rows or len(student) != len(teacher):
        raise UserError(
            f"{method} needs features (N, ...) of the same items, got {tuple(student.shape)} from "
            f"the student and {tuple(teacher.shape)} from the teacher; give both the same batch, "
            "one row an item"
        )


def check_logits(
    method: str,
    student: Tensor,
    teacher: Tensor,
    *,
    maps: bool = True,
    min_classes: int = 1,
) -> None:
    """Raise unless both networks gave floating-point logits of one shape.

    >>> check_logits("KD", torch.zeros(4, 3), torch.zeros(4, 5))
    Traceback (most recent call last):
    tutelage.errors.UserError: KD needs logits (N, C, ...) of one shape, got (4, 3) from the \
student and (4, 5) from the teacher; give both the same batch, the same number of classes and \
maps of one size

    Args:
        method: name of the method, for the message.
        student: the student's logits.
        teacher: the teacher's logits.
        maps: accept (N, C, ...) with further dimensions for positions, not only (N, C).
        min_classes: the smallest number of classes that the method can use, 1 or 2.

    Raises:
        UserError: If shapes differ, there are too few dimensions or classes, the batch is empty,
            or a dtype is not floating.
    """
    check_tensors(method, student, teacher)
    ranks_fit = student.ndim >= 2 if maps else student.ndim == 2
    fits = student.shape == teacher.shape and ranks_fit and student.numel() > 0
    if not fits or student.shape[1] < min_classes:
        layout = "(N, C, ...)" if maps else "(N, C)"
        classes = " with two classes or more" if min_classes > 1 else ""
        advice = "give both the same items and classes, no maps"
        if maps:
            advice = "give both the same batch, the same number of classes and maps of one size"
        raise UserError(
            f"{method} needs logits {layout} of one shape{classes}, got {tuple(student.shape)} "
            f"from the student and {tuple(teacher.shape)} from the teacher; {advice}"
        )
    check_floating(f"{method} needs floating-point logits", student, teacher)


def check_labels(method: str, labels: Tensor, logits: Tensor) -> None:
    """Raise unless there is one class per item, as int64.

    >>> check_labels("DKD", torch.zeros(4), torch.zeros(4, 3))
    Traceback (most recent call last):
    tutelage.errors.UserError: DKD needs labels (4,) of int64, one class an item, got (4,) of \
torch.float32

    Args:
        method: name of the method, for the message.
        labels: classes (N,), -100 for an item without a label.
        logits: (N, C), of the same items.

    Raises:
        UserError: If shape or dtype differ, or a label is none of the C classes.
    """
    check_tensors(f"{method} (labels)", labels)
    if labels.shape != logits.shape[:1] or labels.dtype != torch.int64:
        needs = f"{method} needs labels ({len(logits)},) of int64, one class an item"
        raise UserError(f"{needs}, got {tuple(labels.shape)} of {labels.dtype}")
    check_classes(labels, logits.shape[1])


def check_classes(labels: Tensor, classes: int) -> None:
    """Raise for labels that are neither a class nor -100; labels on an accelerator pass unseen.

    >>> check_classes(torch.tensor([0, -100, 3]), 3)
    Traceback (most recent call last):
    tutelage.errors.UserError: the label 3 is none of the 3 classes, nor -100

    Args:
        labels: integers (N,).
        classes: how many classes there are.

    Raises:
        UserError: The message names the first such label.
    """
    # Reading values from an accelerator would make every training step wait for it.
    if labels.device.type != "cpu":
        return
    if labels.numel():
        lowest, highest = labels.aminmax()
        if lowest.item() >= 0 and highest.item() < classes:
            return
    wrong = (labels != IGNORE_INDEX) & ((labels < 0) | (labels >= classes))
    if wrong.any():
        raise UserError(
            f"the label {int(labels[wrong][0])} is none of the {classes} classes, nor -100"
        )


def check_layout(student: Tensor, teacher: Tensor, pair: str) -> None:
    """Raise if one of two maps (N, C, H, W) seems to have its channels last, as Swin's have.

    Maps of the same images have the same proportions, up to rounding. If they have not, and the
    second and third dimension of one of them are equal, that one is probably (N, H, W, C).

    >>> check_layout(torch.zeros(2, 96, 14, 14), torch.zeros(2, 14, 14, 192), "a → layers.1")
    Traceback (most recent call last):
    tutelage.errors.UserError: the pair a → layers.1 gives (2, 96, 14, 14) and (2, 14, 14, 192), \
of which one seems to have its channels last; tap a layer that gives (N, C, H, W), or wrap the \
network so that it has one
    >>> check_layout(torch.zeros(2, 64, 64, 96), torch.zeros(2, 256, 32, 48), "wide images")

    Args:
        student: a feature of the student; only maps are checked.
        teacher: a feature of the teacher.
        pair: the pair of layers, for the message.

    Raises:
        UserError: If one of the two seems to have its channels last.
    """
    if student.ndim != 4 or teacher.ndim != 4:
        return
    student_ratio = student.shape[3] / student.shape[2]
    teacher_ratio = teacher.shape[3] / teacher.shape[2]
    same_proportions = 0.8 < student_ratio / teacher_ratio < 1.25
    square_first = any(x.shape[1] == x.shape[2] != x.shape[3] for x in (student, teacher))
    if square_first and not same_proportions:
        raise UserError(
            f"the pair {pair} gives {tuple(student.shape)} and {tuple(teacher.shape)}, of which "
            "one seems to have its channels last; tap a layer that gives (N, C, H, W), or wrap "
            "the network so that it has one"
        )
