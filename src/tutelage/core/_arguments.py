"""What is said about an argument of another kind than is needed, or a batch that does not fit.

The checks of values run once, or only after something has failed, so that no step waits for them.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from tutelage.core.batch import Batch, first_tensor
from tutelage.errors import UserError, reason


def check_kind(what: str, value: object, kind: type, example: str) -> None:
    """Raise unless a value is an object of a class.

    >>> check_kind("the student", nn.Linear, nn.Module, "nn.Linear(8, 3)")
    Traceback (most recent call last):
    tutelage.errors.UserError: the student is the class Linear, not an object of it; call it, as \
in nn.Linear(8, 3)

    Args:
        what: subject of the message.
        value: the argument.
        kind: the class that it must be of.
        example: how such an object is written.

    Raises:
        UserError: The message has the example.
    """
    if isinstance(value, kind):
        return
    if isinstance(value, type) and issubclass(value, kind):
        raise UserError(
            f"{what} is the class {value.__name__}, not an object of it; call it, as in {example}"
        )
    raise UserError(f"{what} must be a {kind.__name__}, such as {example}; got {shown_kind(value)}")


def check_positive_number(what: str, value: object) -> None:
    """Raise unless a value is a finite number above 0.

    >>> check_positive_number("the temperature", 0.0)
    Traceback (most recent call last):
    tutelage.errors.UserError: the temperature is a positive number, got 0.0
    """
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not 0 < value < math.inf:  # type: ignore[operator]
        raise UserError(f"{what} is a positive number, got {shown_kind(value)}")


def shown_kind(value: object) -> str:
    """Return what a value is, for messages.

    >>> shown_kind(nn.Linear), shown_kind("kd"), shown_kind([1, 2])
    ('the class Linear', "the text 'kd'", 'a list')
    """
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if value is None:
        return "None"
    if isinstance(value, str):
        return f"the text {value[:40]!r}"
    if isinstance(value, (bool, int, float)):
        return repr(value)
    if inspect.isfunction(value):
        return f"the function {value.__name__}"
    name = type(value).__name__
    return f"{'an' if name[0] in 'AEIOUaeiou' else 'a'} {name}"


def check_teacher(what: str, teacher: object, kind: type) -> None:
    """Raise unless a teacher is a `Teacher`.

    A bare network is not taken for one: to be a teacher freezes it, which should be read off the
    line that does it.

    >>> check_teacher("the teacher", nn.Linear(8, 3), object)
    Traceback (most recent call last):
    tutelage.errors.UserError: the teacher is a bare network (Linear); give \
FrozenTeacher(network), which freezes it

    Args:
        what: subject of the message.
        teacher: the argument.
        kind: the class `Teacher`.

    Raises:
        UserError: The message says what to write instead.
    """
    if teacher is None:
        raise UserError(f"{what} is None; give NoTeacher() where there is none")
    if isinstance(teacher, nn.Module):
        raise UserError(
            f"{what} is a bare network ({type(teacher).__name__}); give FrozenTeacher(network), "
            "which freezes it"
        )
    check_kind(what, teacher, kind, "FrozenTeacher(network)")


def check_teacher_name(name: object) -> None:
    """Raise unless a teacher's name is a text that can stand before the slash of a layer.

    >>> check_teacher_name(1)
    Traceback (most recent call last):
    tutelage.errors.UserError: a teacher's name is text, got 1; put it in quotes
    """
    if not isinstance(name, str):
        raise UserError(f"a teacher's name is text, got {name!r}; put it in quotes")
    if not name or "/" in name:
        raise UserError(f"a teacher's name is not empty and has no slash, got {name!r}")


def check_layer_names(what: str, layers: object) -> None:
    """Raise unless layers are a list of names; a single text would be taken for its characters.

    >>> check_layer_names("layers", "stage3")
    Traceback (most recent call last):
    tutelage.errors.UserError: layers must be a list of names, such as ['stage3'], got the text \
'stage3'
    """
    if isinstance(layers, Mapping) or not isinstance(layers, Sequence) or isinstance(layers, str):
        example = [layers[:40]] if isinstance(layers, str) else ["stage3"]
        raise UserError(
            f"{what} must be a list of names, such as {example}, got {shown_kind(layers)}"
        )
    for layer in layers:
        if not isinstance(layer, str):
            raise UserError(
                f"{what} must be names of modules, as in named_modules(), got {shown_kind(layer)}"
            )


def check_initialized(who: str, network: nn.Module) -> None:
    """Raise if a network has parameters without a shape, as those of `nn.LazyLinear`."""
    for name, parameter in network.named_parameters():
        if isinstance(parameter, UninitializedParameter):
            raise UserError(
                f"{who} ({type(network).__name__}) is lazy: its parameter {name!r} has no shape "
                "yet; run the network on one batch first"
            )


def check_task_weight(method: nn.Module) -> None:
    """Raise if a method's weight of the supervised loss is no finite number from 0 on."""
    weight: Any = getattr(method, "task_weight", None)
    is_number = isinstance(weight, (int, float)) and not isinstance(weight, bool)
    if not is_number or not 0 <= weight < math.inf:
        raise UserError(
            f"task_weight of {type(method).__name__} must be a finite number from 0 on, got "
            f"{weight!r}"
        )


def check_terms(who: str, terms: object) -> None:
    """Raise unless what a method returned are named scalars that can be added to the loss.

    Args:
        who: name of the method's class.
        terms: what its `forward` returned.

    Raises:
        UserError: The message says what to return instead.
    """
    if not isinstance(terms, Mapping):
        raise UserError(
            f"{who}.forward must return a dict of named terms, such as {{'kd': loss}}, got "
            f"{shown_kind(terms)}; {{}} is no term"
        )
    for name, value in terms.items():
        if not isinstance(name, str):
            raise UserError(f"{who}.forward must name its terms by text, got {name!r}")
        if name == "task":
            raise UserError(
                f"{who}.forward returns a term named 'task', which is the name of the supervised "
                "loss; give it another one"
            )
        check_scalar(f"the term {name!r} of {who}", value)


def check_scalar(what: str, value: object) -> None:
    """Raise unless a value is a floating-point tensor without dimensions.

    >>> import torch
    >>> check_scalar("the term 'kd' of Mine", torch.zeros(4))
    Traceback (most recent call last):
    tutelage.errors.UserError: the term 'kd' of Mine has the shape (4,), but a loss is one number; \
return its .mean() or .sum()
    """
    if not isinstance(value, Tensor):
        raise UserError(f"{what} must be a tensor without dimensions, got {shown_kind(value)}")
    if value.ndim:
        raise UserError(
            f"{what} has the shape {tuple(value.shape)}, but a loss is one number; return its "
            ".mean() or .sum()"
        )
    if not value.is_floating_point():
        raise UserError(f"{what} is of {value.dtype}, which has no gradient; return a float tensor")


def blame_inputs(
    who: str, network: nn.Module, inputs: tuple[Any, ...], error: Exception
) -> UserError | None:
    """Return why a network failed on its inputs, if they are of the wrong kind; else None.

    Args:
        who: the network, for the message.
        network: what failed.
        inputs: the positional arguments of its forward.
        error: what it raised.
    """
    named = inputs[0] if len(inputs) == 1 and isinstance(inputs[0], Mapping) else None
    if named is not None and isinstance(error, TypeError) and "argument" in str(error):
        return UserError(
            f"{who} ({type(network).__name__}) cannot take a batch of the fields {list(named)}: "
            f"{error}; all fields but labels, ids and views are passed by name, so name them as "
            "its forward does, or give batches as (inputs, labels)"
        )
    values = list(inputs if named is None else named.values())
    for value in values:
        if _is_of_numbers(value):
            return UserError(
                f"{who}'s inputs are {shown_kind(value)}; make them tensors, as in "
                "torch.as_tensor(inputs, dtype=torch.float32)"
            )
    x = first_tensor(values)
    parameter = next((p for p in network.parameters() if p.is_floating_point()), None)
    if x is None or parameter is None or x.dtype == parameter.dtype or "type" not in str(error):
        return None
    fix = f"use inputs.to({parameter.dtype})"
    if x.is_floating_point():
        fix += f", or {who.removeprefix('the ')}.to({x.dtype})"
    return UserError(
        f"{who}'s inputs are {x.dtype}, but its weights {parameter.dtype}: {reason(error)}; {fix}"
    )


def blame_labels(batch: Batch, error: Exception) -> UserError | None:
    """Return why the loss of a batch failed, if its labels are no tensors; else None."""
    labels = batch.get("labels")
    if not _is_of_numbers(labels):
        return None
    return UserError(
        f"the labels of the batch are {shown_kind(labels)} ({reason(error)}); make them a tensor, "
        "as in torch.as_tensor(labels)"
    )


def blame_batch(task: object, batch: Batch, error: Exception) -> UserError:
    """Return the error for a task that cannot make inputs of a batch."""
    fields = {name: shown_kind(value) for name, value in batch.items()}
    listed = ", ".join(f"{name} ({kind})" for name, kind in fields.items())
    return UserError(
        f"the task ({type(task).__name__}) cannot make inputs of a batch with {listed}: "
        f"{reason(error)}; check that data and task belong together"
    )


def _is_of_numbers(value: object) -> bool:
    """Return whether a value holds numbers, but not in tensors, as NumPy's arrays and lists do."""
    if isinstance(value, (list, tuple)):
        return bool(value) and _is_of_numbers(value[0])
    if isinstance(value, (str, bytes, bool, int, float)):
        return True
    return type(value).__module__.partition(".")[0] == "numpy" and not isinstance(value, Tensor)
