"""Run a network over a data set once and compute the task's figures, on any number of ranks."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from tutelage.core import Task, Teacher

Mover = Callable[[Any], Any]


@torch.no_grad()
def evaluate(
    network: nn.Module, task: Task, loader: Iterable[Any], move: Mover, teacher: Teacher | None = None
) -> dict[str, float]:
    """Return the task's figures of `network` over `loader`.

    Args:
        network: put into eval mode for the while; the mode of every submodule is restored.
        task: gives the inputs of a batch and the metrics.
        loader: batches; under several ranks each has its share, and the metrics add them up.
        move: brings a batch to the network's device.
        teacher: adds the figures that compare with a teacher (agreement, KL).
    """
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    metrics = task.metrics()
    try:
        for batch in loader:
            moved = move(batch)
            inputs = task.inputs(moved)
            told = None if teacher is None else teacher(moved, inputs).out
            metrics.update(network(*inputs), moved, told)
    finally:
        for module, mode in modes:
            module.training = mode
    return metrics.compute()
