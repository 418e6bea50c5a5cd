"""The logits in what a classifier returns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from tutelage.errors import UserError


def class_logits(output: Any, num_classes: int) -> Tensor:
    """Return the logits (N, num_classes): the output itself, or its entry `logits`.

    Raises:
        UserError: If there are none of that shape.
    """
    logits = output["logits"] if isinstance(output, Mapping) else output
    if not isinstance(logits, Tensor) or logits.ndim != 2 or logits.shape[1] != num_classes:
        got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise UserError(
            f"the network gives {got}, but the task has {num_classes} classes and needs logits "
            f"(N, {num_classes}); check the network's num_classes and task.num_classes"
        )
    return logits
