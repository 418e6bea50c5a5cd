"""How much the items of each class count in the loss."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tutelage.core.task import HasLabels
from tutelage.errors import UserError


def checked_weights(weights: Any, num_classes: int) -> Tensor:
    """Return weights as float32 (num_classes,), scaled so that the smallest is 1.

    >>> checked_weights([0.5, 2.0], 2).tolist()
    [1.0, 4.0]

    Args:
        weights: one positive number for each class.
        num_classes: of the task.

    Raises:
        UserError: If they are none.
    """
    is_list = isinstance(weights, Sequence) and not isinstance(weights, str)
    if not is_list or not all(_is_positive(weight) for weight in weights):
        raise UserError(
            "task.class_weights is 'balanced', or a list with one positive number for each class, "
            f"got {weights!r}"
        )
    if len(weights) != num_classes:
        raise UserError(
            f"task.class_weights has {len(weights)} numbers for {num_classes} classes; give one "
            "for each, in the order of the classes"
        )
    tensor = torch.tensor(weights, dtype=torch.float64)
    return (tensor / tensor.min()).float()


def balanced_weights(train: Any, num_classes: int) -> Tensor:
    """Return weights with which every class of the training samples counts alike.

    Args:
        train: samples with their labels (N,).
        num_classes: of the task.

    Raises:
        UserError: If the labels are not known, or a class has no item.
    """
    if not isinstance(train, HasLabels) or train.labels.ndim != 1:
        raise UserError(
            f"task.class_weights is balanced, but {type(train).__name__} does not say the label of "
            "each item; give a list with one weight for each class"
        )
    labels = train.labels[train.labels >= 0]
    counts = torch.bincount(labels, minlength=num_classes)[:num_classes]
    missing = (counts == 0).nonzero().flatten().tolist()
    if missing:
        raise UserError(
            f"task.class_weights is balanced, but class {missing[0]} has no training item; give "
            "a list with one weight for each class, or more data"
        )
    return checked_weights((1 / counts.double()).tolist(), num_classes)


def _is_positive(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return math.isfinite(value) and value > 0
