"""Checks of features that all analysis functions share, and the warning for undefined values."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, get_args

import torch
from torch import Tensor

from tutelage.core.precision import promote
from tutelage.errors import UserError
from tutelage.similarity._gram import centered
from tutelage.similarity._products import sum_dtype


class SimilarityWarning(UserWarning):
    """A similarity is NaN because a side does not vary, or an RBF bandwidth was replaced."""


def as_rows(x: Tensor, name: str, min_rows: int = 2) -> Tensor:
    """Return finite features as float64, one row per item; further dimensions are flattened.

    A device without float64 (MPS) keeps float32. Gradients flow through.

    >>> as_rows(torch.ones(2, 3, 4), "x").shape
    torch.Size([2, 12])

    Args:
        x: (n, ...), floating.
        name: what error messages call it.
        min_rows: the smallest n that is accepted.

    Raises:
        UserError: If there are fewer than two dimensions, fewer than `min_rows` rows or no columns,
            if the dtype is not floating, or if there is NaN or infinity.
    """
    x = flat_rows(x, name)
    if len(x) < min_rows:
        raise UserError(
            f"{name} has {len(x)} rows, but at least {min_rows} are needed; use more items"
        )
    if not x.detach().isfinite().all():
        raise UserError(
            f"{name} holds NaN or infinity; look for the layer or the input that made it"
        )
    return x.to(sum_dtype(x.device))


def check_tensors(what: str, *values: object) -> None:
    """Raise for lists, numpy arrays and whatever else is no tensor.

    >>> check_tensors("alignment", [1.0, 2.0])
    Traceback (most recent call last):
    tutelage.errors.UserError: alignment takes tensors, got a list; use torch.as_tensor

    Args:
        what: subject of the message.
        values: the arguments.

    Raises:
        UserError: The message names the type.
    """
    for value in values:
        if not isinstance(value, Tensor):
            raise UserError(
                f"{what} takes tensors, got a {type(value).__name__}; use torch.as_tensor"
            )
        if value.layout != torch.strided:
            raise UserError(f"{what} takes dense tensors, got {value.layout}; use .to_dense()")


def check_list(what: str, value: object) -> None:
    """Raise for a single tensor, or what else is no list or tuple.

    >>> check_list("a CKA map", torch.ones(2, 3))
    Traceback (most recent call last):
    tutelage.errors.UserError: a CKA map takes a list of tensors, got a Tensor; give [tensor, ...]
    """
    if not isinstance(value, (list, tuple)):
        raise UserError(
            f"{what} takes a list of tensors, got a {type(value).__name__}; give [tensor, ...]"
        )


def as_same_dtype(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return two floating tensors in the wider dtype of both, float32 at least.

    >>> x, y = as_same_dtype(torch.ones(1, dtype=torch.float16), torch.ones(1).double())
    >>> x.dtype, y.dtype
    (torch.float64, torch.float64)
    """
    x, y = promote(x), promote(y)
    if x.dtype != y.dtype:
        dtype = torch.promote_types(x.dtype, y.dtype)
        x, y = x.to(dtype), y.to(dtype)
    return x, y


def widest(tensors: Sequence[Tensor]) -> torch.dtype:
    """Return the widest floating dtype, float32 at least.

    >>> widest([torch.ones(1, dtype=torch.float16), torch.ones(1)])
    torch.float32
    """
    dtype = torch.float32
    for x in tensors:
        dtype = torch.promote_types(dtype, x.dtype)
    return dtype


def flat_rows(x: Tensor, name: str) -> Tensor:
    """Return features (n, ...) as (n, d); only type, dtype and dimensions are checked.

    >>> flat_rows(torch.ones(2, 3, 4), "x").shape
    torch.Size([2, 12])
    """
    check_tensors(f"a similarity ({name})", x)
    if not x.dtype.is_floating_point:
        raise UserError(
            f"{name} is of {x.dtype}, but features are floating-point numbers; use .float()"
        )
    if x.ndim < 2:
        raise UserError(
            f"{name} has shape {tuple(x.shape)}, but features are (items, ...); use .unsqueeze(1)"
        )
    if 0 in x.shape:
        raise UserError(
            f"{name} has shape {tuple(x.shape)}, which holds nothing; check the layer it came from"
        )
    return x if x.ndim == 2 else x.flatten(1)


def check_same_items(x: Tensor, y: Tensor) -> None:
    """Raise if x and y have different numbers of rows."""
    if len(x) != len(y):
        raise UserError(
            f"x has {len(x)} rows, y {len(y)}; both sides must be the same items in the same order"
        )


def check_choice(value: str, choices: Any, name: str) -> None:
    """Raise if an option is not among its choices.

    Args:
        value: the option.
        choices: the `Literal` of its type.
        name: what error messages call the option.
    """
    if value not in get_args(choices):
        raise UserError(f"{name} is one of {get_args(choices)}, got {value!r}")


def varies(x: Tensor) -> bool:
    """Return whether the rows of x (n, ...) differ by more than the rounding of its own dtype.

    >>> varies(torch.full((5, 2), 0.1)), varies(torch.eye(3))
    (False, True)
    """
    return bool(centered(promote(x.detach().flatten(1))).unit > 0)


def warn_undefined(measure: str, sides: Sequence[str]) -> None:
    """Warn that a similarity is NaN because these sides do not vary."""
    text = f"{measure} is undefined (NaN): the items are all equally alike in {', '.join(sides)}"
    warnings.warn(text, SimilarityWarning, stacklevel=3)
