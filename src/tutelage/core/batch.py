"""What a usual batch holds: inputs, and labels of one integer an item, −100 for an item without a label."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from tutelage.errors import UserError

IGNORED = -100


def batch_inputs(batch: Any) -> tuple[Any, ...]:
    """Return what a network takes of a batch: a tensor, the first of several, or a dict without its labels.

    >>> import torch
    >>> batch_inputs([torch.ones(2, 3), torch.zeros(2)])[0].shape, list(batch_inputs({"pixels": 1, "labels": 2})[0])
    (torch.Size([2, 3]), ['pixels'])
    """
    if isinstance(batch, Mapping):
        return ({name: value for name, value in batch.items() if name != "labels"},)
    return (batch[0],) if isinstance(batch, (tuple, list)) else (batch,)


def batch_labels(batch: Any) -> Tensor:
    """Return the labels of a batch `(inputs, labels, …)` or `{"labels": …}`.

    Raises:
        UserError: the batch has none.
    """
    several = isinstance(batch, (tuple, list)) and len(batch) > 1
    found = batch.get("labels") if isinstance(batch, Mapping) else batch[1] if several else None
    if not isinstance(found, Tensor):
        raise UserError("the method needs labels; give batches as (inputs, labels, ...) or as a dict with 'labels'")
    return found
