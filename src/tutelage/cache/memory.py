"""A teacher that looked at every training image once, in a fixed order, and answers from memory.

The teacher's forward pass is more than half of a training step, and without augmentation it gives the same answer in
every epoch. The pass happens before training, so a run that is resumed finds the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tutelage.core import Network, Output, Task, Teacher
from tutelage.errors import UserError

MOST_BYTES = 4 * 2**30


class Remembered:
    """A `Teacher` that answers from memory: logits and taps, found by the ids of a batch's items.

    Args:
        network: the teacher.
        task: says how a batch enters a network.
        batches: gives every training item once, `(images, labels, ids)` or a dict with `ids`, on the teacher's device;
            called each time that other taps are asked for.
        count: number of training items.
    """

    def __init__(self, network: Network, task: Task, batches: Callable[[], Iterable[Any]], count: int) -> None:
        self.network, self.task, self.batches, self.count = network, task, batches, count
        self._slots: Tensor | None = None
        self._kept: dict[str, Tensor] = {}

    def tapped(self, names: Sequence[str]) -> Teacher:
        """Return a teacher that remembers these taps, after one pass over all items.

        Raises:
            UserError: an id comes twice, or the outputs need more than 4 GiB.
        """
        filled = Remembered(self.network.tapped(names), self.task, self.batches, self.count)
        filled._fill()
        return filled

    def __call__(self, batch: Any, inputs: tuple[Any, ...]) -> Output:
        """Look the items up."""
        if self._slots is None:
            return self.network(batch, inputs)
        slots = self._slots[batch_ids(batch)]
        found = {name: kept[slots] for name, kept in self._kept.items()}
        return Output(found.pop(""), found)

    def module(self, name: str) -> nn.Module:
        """Return the submodule `name` of the network."""
        return self.network.module(name)

    def _fill(self) -> None:
        ids, done = [], 0
        for batch in self.batches():
            output = self.network(batch, self.task.inputs(batch))
            named = {"": output.logits, **output.taps}
            if not self._kept:
                self._kept = self._allocate(named)
            mine = batch_ids(batch)
            for name, value in named.items():
                self._kept[name][done : done + len(mine)] = value
            ids.append(mine)
            done += len(mine)
        every = torch.cat(ids)
        if len(every.unique(sorted=False)) != self.count:  # type: ignore[no-untyped-call]
            raise UserError(f"{self.count} items have other than {self.count} ids; give every item an id of its own")
        self._slots = torch.full((int(every.max()) + 1,), -1, device=every.device)
        self._slots[every] = torch.arange(self.count, device=every.device)

    def _allocate(self, named: Mapping[str, Tensor]) -> dict[str, Tensor]:
        needed = sum(value[0].numel() * value.element_size() for value in named.values()) * self.count
        if needed > MOST_BYTES:
            raise UserError(
                f"remembering the teacher's outputs of {self.count} items would take {needed / 2**30:.1f} GiB "
                f"(at most {MOST_BYTES / 2**30:.0f}); set teacher.remember to false, or tap smaller layers"
            )
        return {name: value.new_empty((self.count, *value.shape[1:])) for name, value in named.items()}


def batch_ids(batch: Any) -> Tensor:
    """Return the ids of a batch's items: its third element, or its entry `ids`.

    >>> batch_ids((torch.zeros(2, 1), torch.zeros(2), torch.tensor([7, 3])))
    tensor([7, 3])

    Raises:
        UserError: the batch has none.
    """
    if isinstance(batch, Mapping) and "ids" in batch:
        ids: Tensor = batch["ids"]
        return ids
    if isinstance(batch, Sequence) and len(batch) > 2 and isinstance(batch[2], Tensor):
        return batch[2]
    raise UserError("the batch has no ids to remember the teacher's outputs by; let it be (images, labels, ids)")
