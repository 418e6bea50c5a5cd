"""The optimizer of a run: its parameter groups, and the learning rate of every step."""

from __future__ import annotations

import math
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn

from tutelage.core import Distiller
from tutelage.errors import UserError, near_misses
from tutelage.recipes.config import TrainConfig


def make_optimizer(distiller: Distiller, train: TrainConfig) -> torch.optim.Optimizer:
    """Return the recipe's optimizer of all trainable parameters of student and method.

    Raises:
        UserError: If a pattern of `train.no_weight_decay` fits no parameter.
    """
    return train.optimizer(parameter_groups(distiller, train))


def parameter_groups(distiller: Distiller, train: TrainConfig) -> list[dict[str, Any]]:
    """Return the trainable parameters in one group, or in two, the second without weight decay.

    Raises:
        UserError: If a pattern of `train.no_weight_decay` fits no parameter.
    """
    # Users know the parameters by the names in their network, without `student.` or `method.`.
    named = [
        (name.partition(".")[2], parameter)
        for name, parameter in distiller.named_parameters()
        if parameter.requires_grad
    ]
    names = [name for name, _ in named]
    for pattern in train.no_weight_decay:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise UserError(
                f"train.no_weight_decay: no parameter is named like {pattern!r}"
                f"{near_misses(pattern, names)}"
            )
    decayed: dict[str, Any] = {"params": []}
    exempt: dict[str, Any] = {"params": [], "weight_decay": 0.0}
    for name, parameter in named:
        group = exempt if _is_exempt(name, parameter, train) else decayed
        group["params"].append(parameter)
    return [group for group in (decayed, exempt) if group["params"]]


def _is_exempt(name: str, parameter: nn.Parameter, train: TrainConfig) -> bool:
    if parameter.ndim < 2 and not train.weight_decay_norm_and_bias:
        return True
    return any(fnmatchcase(name, pattern) for pattern in train.no_weight_decay)


def lr_factor(step: int, steps_per_epoch: int, train: TrainConfig) -> float:
    """Return the factor of the base learning rate at an optimizer step.

    It is a pure function of the step: there is no scheduler state to save or to step twice.

    >>> lr_factor(0, 10, TrainConfig(epochs=2, schedule="constant", warmup_epochs=0.5))
    0.2
    >>> lr_factor(10, 10, TrainConfig(epochs=2, schedule="cosine"))
    0.5
    >>> round(lr_factor(15, 10, TrainConfig(epochs=2, schedule="step", milestones=[1])), 3)
    0.1
    """
    warmup = round(train.warmup_epochs * steps_per_epoch)
    if step < warmup:
        return (step + 1) / warmup
    if train.schedule == "constant":
        return 1.0
    if train.schedule == "step":
        passed = sum(step >= epoch * steps_per_epoch for epoch in train.milestones)
        return math.pow(train.gamma, passed)
    total = train.epochs * steps_per_epoch
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))
