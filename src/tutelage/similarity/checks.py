"""What every analysis function asks of its features, and how it says that a similarity is undefined."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import torch
from torch import Tensor

from tutelage.errors import UserError
from tutelage.similarity.gram import centred, promote


class SimilarityWarning(UserWarning):
    """A similarity is NaN because a side does not vary, or a bandwidth had to be chosen another way."""


def as_rows(x: Tensor, name: str, least: int = 2) -> Tensor:
    """Return finite features as float64, one row per item; further dimensions are flattened.

    A device without float64 (MPS) keeps float32. Gradients flow through.

    >>> as_rows(torch.ones(2, 3, 4), "x").shape
    torch.Size([2, 12])

    Args:
        x: (n, ...), floating.
        name: what messages call it.
        least: the fewest rows that make sense.

    Raises:
        UserError: fewer than two dimensions or than `least` rows, no columns, another dtype, NaN or infinity.
    """
    x = flat_rows(x, name)
    if len(x) < least:
        raise UserError(f"{name} has {len(x)} rows, but at least {least} are needed; use more items")
    if not x.detach().isfinite().all():
        raise UserError(f"{name} holds NaN or infinity; look for the layer or the input that made it")
    return x.to(exact(x.device))


def flat_rows(x: Tensor, name: str) -> Tensor:
    """Return features (n, ...) as (n, d); only dtype and dimensions are checked.

    >>> flat_rows(torch.ones(2, 3, 4), "x").shape
    torch.Size([2, 12])
    """
    if not x.dtype.is_floating_point:
        raise UserError(f"{name} is of {x.dtype}, but features are floating-point numbers; use .float()")
    if x.ndim < 2:
        raise UserError(f"{name} has shape {tuple(x.shape)}, but features are (items, ...); use .unsqueeze(1)")
    if 0 in x.shape:
        raise UserError(f"{name} has shape {tuple(x.shape)}, which holds nothing; check the layer it came from")
    return x if x.ndim == 2 else x.flatten(1)


def same_items(x: Tensor, y: Tensor) -> None:
    """Raise if two sides cannot be the same items."""
    if len(x) != len(y):
        raise UserError(f"x has {len(x)} rows, y {len(y)}; both sides must be the same items in the same order")


def one_of(value: str, options: Sequence[str], what: str) -> None:
    """Raise if an option is unknown."""
    if value not in options:
        raise UserError(f"{what} is one of {tuple(options)}, got {value!r}")


def exact(device: torch.device) -> torch.dtype:
    """Return the dtype of sums on this device: float64 where there is one.

    >>> exact(torch.device("cpu")), exact(torch.device("mps"))
    (torch.float64, torch.float32)
    """
    return torch.float32 if device.type == "mps" else torch.float64


def varies(x: Tensor) -> bool:
    """Return whether the rows of x (n, ...) differ by more than the rounding that its own dtype brings.

    >>> varies(torch.full((5, 2), 0.1)), varies(torch.eye(3))
    (False, True)
    """
    return bool(centred(promote(x.detach().flatten(1))).unit > 0)


def say_undefined(what: str, sides: Sequence[str]) -> None:
    """Warn that a similarity is NaN, and because of which sides."""
    text = f"{what} is undefined (NaN): the items are all equally alike in {', '.join(sides)}"
    warnings.warn(text, SimilarityWarning, stacklevel=3)
