"""What metrics say about odd outputs and data.

Outputs that hold NaN have no metrics: they are counted, and refused by all ranks alike.
"""

from __future__ import annotations

import os
import sys
from functools import cache

import torch
from torch import Tensor

from tutelage.errors import UserError


def num_undefined(logits: Tensor) -> Tensor:
    """Return how many rows of the logits (N, C, ...) have no softmax.

    That are those with NaN, with +∞, or of -∞ alone; -∞ for some classes rules these out.

    >>> import torch
    >>> rows = [[0.0, 1.0], [0.0, float("nan")], [0.0, float("inf")], [0.0, float("-inf")]]
    >>> num_undefined(torch.tensor(rows)).item()
    2
    """
    return logits.amax(1).isfinite().logical_not().sum()


def refuse_undefined(role: str, count: int, total: str) -> None:
    """Raise if there are outputs without a meaning.

    Args:
        role: whose outputs they are, `network` or `teacher`.
        count: how many there are.
        total: how many of what were evaluated, such as `100 items`.

    Raises:
        UserError: If `count` is not 0.
    """
    if count:
        raise UserError(
            f"the {role} gives NaN or infinity for {count} of {total}, so that metrics mean "
            "nothing; check its weights, its input normalization and the data"
        )


def refuse_labels(labels: Tensor, num_classes: int) -> None:
    """Raise if labels are no classes, or count more of them than the task has.

    Args:
        labels: of any shape; those below 0 are none.
        num_classes: of the task.

    Raises:
        UserError: The message has the data type or the largest label.
    """
    if not isinstance(labels, Tensor):
        raise UserError(
            f"the labels of the batch are a {type(labels).__name__}; make them a tensor, as in "
            "torch.as_tensor(labels)"
        )
    if labels.dtype not in (torch.int64, torch.uint8):
        raise UserError(f"the labels are {labels.dtype}, but classes are int64; use labels.long()")
    highest = int(labels.max()) if labels.numel() else 0
    if highest >= num_classes:
        raise UserError(
            f"there is a label {highest}, but the task has {num_classes} classes (0 to "
            f"{num_classes - 1}); check task.num_classes and the classes of the data that is "
            "evaluated"
        )


@cache
def warn_once(text: str) -> None:
    """Print a warning on standard error, once in a process and by the first rank only.

    Validation follows validation; what is odd about the data is odd in each of them.
    """
    if os.environ.get("RANK", "0") == "0":
        print(f"warning: {text}", file=sys.stderr)
