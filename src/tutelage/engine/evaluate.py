"""Run networks over a data set once and compute the task's figures, on any number of ranks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from accelerate.utils import send_to_device
from torch import nn

from tutelage.core import Task, Teacher
from tutelage.core.eval_mode import eval_mode
from tutelage.core.tap import call

Mover = Callable[[Any], Any]


def mover(device: torch.device) -> Mover:
    """Return what brings a batch to a device."""
    return lambda batch: send_to_device(batch, device, non_blocking=True)


def evaluate(
    network: nn.Module, task: Task, loader: Iterable[Any], move: Mover, teacher: Teacher | None = None
) -> dict[str, float]:
    """Return the task's figures of one network; see `evaluate_all`."""
    return evaluate_all({"": network}, task, loader, move, teacher)[""]


@torch.no_grad()
def evaluate_all(
    networks: Mapping[str, nn.Module], task: Task, loader: Iterable[Any], move: Mover, teacher: Teacher | None = None
) -> dict[str, dict[str, float]]:
    """Return the task's figures of every network over `loader`; the teacher runs once for all of them.

    Args:
        networks: by name; in eval mode for the while, the mode of every submodule is restored.
        task: gives the inputs of a batch and the metrics.
        loader: batches; under several ranks each has its share, and the metrics add them up.
        move: brings a batch to the networks' device.
        teacher: adds the figures that compare with a teacher (agreement, KL).
    """
    metrics = {name: task.metrics() for name in networks}
    with eval_mode(*networks.values()):
        for batch in loader:
            moved = move(batch)
            inputs = task.inputs(moved)
            told = None if teacher is None else teacher(moved, inputs).out
            for name, network in networks.items():
                metrics[name].update(call(network, inputs), moved, told)
    return {name: metric.compute() for name, metric in metrics.items()}
