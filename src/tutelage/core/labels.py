"""Labels of a batch: one integer an item, −100 for an item without a label."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from tutelage.errors import UserError

IGNORED = -100


def batch_labels(batch: Any) -> Tensor:
    """Return the labels of a batch `(inputs, labels, …)` or `{"labels": …}`.

    Raises:
        UserError: the batch has none.
    """
    found = batch.get("labels") if isinstance(batch, Mapping) else batch[1] if len(batch) > 1 else None
    if not isinstance(found, Tensor):
        raise UserError("the method needs labels; give batches as (inputs, labels, ...) or as a dict with 'labels'")
    return found
