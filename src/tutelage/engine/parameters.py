"""What the optimiser gets: all trainable parameters, some of them without weight decay if the recipe says so."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from tutelage.core import Distiller
from tutelage.engine.recipe import Training
from tutelage.errors import UserError, near_misses


def parameter_groups(distiller: Distiller, train: Training) -> list[dict[str, Any]]:
    """Return the trainable parameters of student and method: one group, or a second one without weight decay.

    Raises:
        UserError: a pattern of `train.undecayed` fits no parameter.
    """
    named = [
        (name.partition(".")[2], parameter)  # without `student.` or `method.`
        for name, parameter in distiller.named_parameters()
        if parameter.requires_grad
    ]
    names = [name for name, _ in named]
    for pattern in train.undecayed:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise UserError(f"train.undecayed: no parameter is named like {pattern!r}{near_misses(pattern, names)}")
    groups: list[dict[str, Any]] = [{"params": []}, {"params": [], "weight_decay": 0.0}]
    for name, parameter in named:
        groups[_exempt(name, parameter, train)]["params"].append(parameter)
    return [group for group in groups if group["params"]]


def _exempt(name: str, parameter: nn.Parameter, train: Training) -> bool:
    vector = parameter.ndim < 2 and not train.decay_vectors
    return vector or any(fnmatchcase(name, pattern) for pattern in train.undecayed)
