"""A batch of any task: named fields, of which `inputs` is the only one that must be there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from tutelage.errors import UserError

IGNORE_INDEX = -100
"""The label of an item without a label, as in `torch.nn.CrossEntropyLoss`."""


class Batch(Mapping[str, Any]):
    """Named fields of one batch.

    The usual fields are `inputs`, `labels`, `ids` and `views`; a data set or a method may add
    others. `ids` (N,) int64 name the samples. `views` (N,) int64 name what augmentation made of
    them: 0 is the sample as it is stored, any other number stands for a (seed, epoch). A teacher's
    outputs can be stored under (id, view).

    >>> batch = Batch({"inputs": torch.ones(2, 3), "labels": torch.tensor([0, 1])})
    >>> batch.inputs.shape, sorted(batch)
    (torch.Size([2, 3]), ['inputs', 'labels'])

    Args:
        fields: the values by name.

    Raises:
        UserError: If there are no named fields, or no field `inputs`.
    """

    def __init__(self, fields: Mapping[str, Any]) -> None:
        if not isinstance(fields, Mapping):
            raise UserError(
                f"Batch takes a mapping of fields, got {_article(fields)}; write "
                "Batch({'inputs': x, 'labels': y}), or Batch.of((x, y)) of what a loader gives"
            )
        if "inputs" not in fields:
            raise UserError(f"a batch needs the field 'inputs', got {sorted(fields)}")
        self._fields = dict(fields)

    @classmethod
    def of(cls, value: Any) -> Batch:
        """Return what a data loader gave as a `Batch`.

        >>> list(Batch.of([torch.ones(2, 3), torch.zeros(2)]))
        ['inputs', 'labels']
        >>> list(Batch.of({"pixel_values": torch.ones(2, 3), "labels": torch.zeros(2)}).inputs)
        ['pixel_values']

        Args:
            value: a `Batch`; a mapping with `inputs`; a mapping whose entries the network takes by
                name, and perhaps `labels` and `ids` (Hugging Face); `(inputs, labels, ids)` or a
                part of it from the left; or the inputs alone.

        Raises:
            UserError: If there are no inputs.
        """
        if isinstance(value, Batch):
            return value
        if isinstance(value, Mapping):
            if "inputs" in value:
                return cls(value)
            own = {name: value[name] for name in ("labels", "ids", "views") if name in value}
            inputs = {name: entry for name, entry in value.items() if name not in own}
            if not inputs:
                raise UserError(f"a batch needs inputs, got a mapping of {sorted(own)} alone")
            return cls({"inputs": inputs, **own})
        if isinstance(value, (tuple, list)) and value:
            return cls(dict(zip(("inputs", "labels", "ids"), value, strict=False)))
        if value is None or isinstance(value, (str, bytes, int, float, tuple, list)):
            raise UserError(
                f"a batch is (inputs, labels, ...), a mapping, or a tensor, got {_article(value)}"
            )
        return cls({"inputs": value})

    @property
    def inputs(self) -> Any:
        """What a network takes: a tensor, a list, or a mapping of keyword arguments."""
        return self._fields["inputs"]

    @property
    def labels(self) -> Any:
        """What the items are labeled with; -100 stands for no label.

        Raises:
            UserError: If the batch has no labels.
        """
        if self._fields.get("labels") is None:
            raise UserError(
                "the method needs labels; give batches as (inputs, labels, ...) "
                "or as a dict with 'labels'"
            )
        return self._fields["labels"]

    @property
    def ids(self) -> Tensor:
        """The number of every sample, (N,) int64.

        Raises:
            UserError: If the batch has no ids.
        """
        ids = self._fields.get("ids")
        if not isinstance(ids, Tensor):
            raise UserError(
                "the batch has no ids, by which a teacher's outputs are cached; "
                "let it be (inputs, labels, ids) or have the field 'ids'"
            )
        return ids

    @property
    def views(self) -> Tensor:
        """The augmentation of every sample, (N,) int64; zeros if the batch does not say."""
        views = self._fields.get("views")
        return torch.zeros_like(self.ids) if views is None else views

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        """Return the batch with all its tensors on a device."""
        return Batch({name: _moved(v, device, non_blocking) for name, v in self.items()})

    def cat(self, others: Sequence[Batch]) -> Batch:
        """Return this batch followed by others with the same fields.

        >>> one = Batch.of((torch.zeros(2, 3), torch.zeros(2)))
        >>> one.cat([one]).inputs.shape
        torch.Size([4, 3])

        Raises:
            UserError: If the fields differ.
        """
        for other in others:
            if set(other) != set(self):
                raise UserError(
                    f"batches of different fields cannot be joined: {sorted(self)} and "
                    f"{sorted(other)}"
                )
        return Batch({name: _joined([b[name] for b in (self, *others)]) for name in self})

    def split(self, count: int) -> list[Batch]:
        """Return the batch in pieces of equal size, the first ones an item larger if need be.

        A field may have several rows an item, one item's behind the other, such as the documents
        of a query. One that has rows for some items only is cut into equal shares of its own.

        >>> pieces = Batch.of((torch.zeros(5, 3), torch.arange(5))).split(2)
        >>> [piece.labels.tolist() for piece in pieces]
        [[0, 1, 2], [3, 4]]

        Args:
            count: number of pieces, at most that of the items.

        Raises:
            UserError: If there are fewer items.
        """
        items = num_items(self.get("ids", self.inputs))
        if items is None or not 1 <= count <= items:
            raise UserError(
                f"a batch of {items} items cannot be split into {count} pieces; take fewer pieces, "
                "or larger batches"
            )
        return [
            Batch({name: _part(value, items, number, count) for name, value in self.items()})
            for number in range(count)
        ]

    def with_fields(self, fields: Mapping[str, Any]) -> Batch:
        """Return the batch with further fields, or with others in their place."""
        return Batch({**self._fields, **fields})

    def __getitem__(self, name: str) -> Any:
        return self._fields[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)

    def __repr__(self) -> str:
        return f"Batch({', '.join(self._fields)})"


def first_tensor(value: Any) -> Tensor | None:
    """Return the first tensor in nested tuples, lists and mappings, or None.

    >>> first_tensor([{"mask": None, "ids": torch.ones(2)}])
    tensor([1., 1.])
    """
    if isinstance(value, Tensor):
        return value
    entries: Any = ()
    if isinstance(value, Mapping):
        entries = value.values()
    elif isinstance(value, (tuple, list)) and not (value and isinstance(value[0], str)):
        entries = value  # not texts, of which a batch can have hundreds
    for entry in entries:
        tensor = first_tensor(entry)
        if tensor is not None:
            return tensor
    return None


def tensors_in(value: Any) -> Iterator[Tensor]:
    """Give all tensors in nested tuples, lists and mappings.

    >>> [len(x) for x in tensors_in(({"ids": torch.ones(5)}, [torch.ones(2), None]))]
    [5, 2]
    """
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for entry in value.values():
            yield from tensors_in(entry)
    elif isinstance(value, (tuple, list)) and not (value and isinstance(value[0], str)):
        for entry in value:  # not of texts, of which a batch can have hundreds
            yield from tensors_in(entry)


def num_items(value: Any) -> int | None:
    """Return the length of the first tensor or list in tuples and mappings; None without one.

    A list has one entry an item, such as images of different sizes.

    >>> num_items(({"ids": torch.ones(5, 7), "mask": None},)), num_items(([torch.ones(3, 8, 8)],))
    (5, 1)
    """
    if isinstance(value, list) or (isinstance(value, Tensor) and value.ndim > 0):
        return len(value)
    entries: Any = ()
    if isinstance(value, Mapping):
        entries = value.values()
    elif isinstance(value, tuple):
        entries = value
    for entry in entries:
        count = num_items(entry)
        if count is not None:
            return count
    return None


def _article(value: object) -> str:
    """Return the type of a value for a message; what is empty is said to be so."""
    empty = "an empty " if isinstance(value, (str, tuple, list)) and not value else "a "
    return "None" if value is None else f"{empty}{type(value).__name__}"


def _moved(value: Any, device: torch.device | str, non_blocking: bool) -> Any:
    if isinstance(value, Tensor):
        return value.to(device, non_blocking=non_blocking)
    if isinstance(value, Mapping):
        return {name: _moved(entry, device, non_blocking) for name, entry in value.items()}
    if isinstance(value, list):
        return [_moved(entry, device, non_blocking) for entry in value]
    if isinstance(value, tuple):
        return tuple(_moved(entry, device, non_blocking) for entry in value)
    return value


def _joined(values: Sequence[Any]) -> Any:
    first = values[0]
    if isinstance(first, Tensor):
        return torch.cat(list(values))
    if isinstance(first, Mapping):
        return {name: _joined([value[name] for value in values]) for name in first}
    return [item for value in values for item in value]


def _part(value: Any, items: int, number: int, count: int) -> Any:
    """Return the rows of a field that belong to one of `count` pieces of a batch."""
    if isinstance(value, Mapping):
        return {name: _part(entry, items, number, count) for name, entry in value.items()}
    has_rows = isinstance(value, (list, tuple)) or (isinstance(value, Tensor) and value.ndim > 0)
    if not has_rows:
        return value
    per_item, rest = divmod(len(value), items)
    if rest:
        per_item, items = 1, len(value)
    start, stop = (-(-items * edge // count) * per_item for edge in (number, number + 1))
    return value[start:stop]
