"""Inputs of a network: how many items they hold, smaller batches of them, and their device."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from torch import Tensor, nn

from tutelage.core.batch import Batch
from tutelage.core.batch import num_items as count_items
from tutelage.core.modes import device_of
from tutelage.errors import UserError

Inputs = tuple[Any, ...]
"""Positional arguments of a network's forward; a single mapping is passed as keyword arguments."""

T = TypeVar("T")

BATCH_SIZE = 128


def batch_inputs(batch: Batch) -> Inputs:
    """Return the inputs of a batch as the only argument of a network's forward."""
    return (batch.inputs,)


def num_items(inputs: Any) -> int:
    """Return the number of items: the length of the first tensor or list in tuples and mappings.

    A list has one entry an item, such as images of different sizes.

    >>> import torch
    >>> num_items(({"ids": torch.ones(5, 7), "mask": None},)), num_items(([torch.ones(3, 8, 8)],))
    (5, 1)

    Raises:
        UserError: If there is neither a tensor nor a list.
    """
    count = count_items(inputs)
    if count is None:
        raise UserError(
            f"the inputs ({type(inputs).__name__}) hold no tensor and no list with one entry an "
            "item; give (tensor,) or ({name: tensor},)"
        )
    return count


def split_inputs(inputs: T, size: int = BATCH_SIZE) -> list[T]:
    """Return a batch, or a tuple or mapping of inputs, in smaller ones of the same kind.

    Tensors and lists with one entry an item are cut along their first axis; anything else goes into
    every part as it is.

    >>> import torch
    >>> parts = split_inputs((torch.ones(5, 2), {"ids": torch.ones(5), "scale": 0.5}), 2)
    >>> [len(tensor) for tensor, _ in parts], parts[2][1]
    ([2, 2, 1], {'ids': tensor([1.]), 'scale': 0.5})

    Args:
        inputs: a `Batch`, or a tuple or mapping of inputs.
        size: the number of items of a part; the last one may have fewer.

    Raises:
        UserError: If there is neither a tensor nor a list.
    """
    count = num_items(inputs.inputs if isinstance(inputs, Batch) else inputs)
    return [_cut(inputs, slice(start, start + size), count) for start in range(0, count, size)]


def to_device_of(network: nn.Module, inputs: Inputs) -> Inputs:
    """Return inputs with all their tensors on the device of a network.

    Raises:
        UserError: If they are not a tuple.
    """
    if not isinstance(inputs, tuple):
        raise UserError(
            "the inputs of a network are a tuple of positional arguments, got a "
            f"{type(inputs).__name__}; give (inputs,)"
        )
    moved: Inputs = Batch({"inputs": inputs}).to(device_of(network)).inputs
    return moved


def _cut(value: Any, items: slice, count: int) -> Any:
    """Return the part of a value that belongs to a slice of its `count` items."""
    if isinstance(value, Tensor):
        return value[items] if value.ndim > 0 and len(value) == count else value
    if isinstance(value, list):
        return value[items] if len(value) == count else value
    if isinstance(value, tuple):
        return tuple(_cut(entry, items, count) for entry in value)
    if isinstance(value, Mapping):
        fields = {name: _cut(entry, items, count) for name, entry in value.items()}
        return Batch(fields) if isinstance(value, Batch) else fields
    return value
