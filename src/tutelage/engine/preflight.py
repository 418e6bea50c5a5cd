"""Is the teacher worth listening to? Asked before training, on validation data.

Teachers that were loaded with the wrong weights, fed with the wrong normalisation or left in train mode cost days,
because the run looks fine. Each is refused here, with what to change.
"""

from __future__ import annotations

import copy
import hashlib
import math
from collections.abc import Iterable
from itertools import islice
from typing import Any

import torch
from torch import nn

from tutelage.core import Network, Task
from tutelage.core.normalization import normalization, normalize_inputs
from tutelage.engine.evaluate import Mover, evaluate
from tutelage.errors import UserError

USUAL = {
    "0.5/0.5": ([0.5, 0.5, 0.5], [0.5, 0.5, 0.5]),
    "ImageNet's": ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    "none": ([0.0, 0.0, 0.0], [1.0, 1.0, 1.0]),
}
MARGIN = 0.05
TRIAL_BATCHES = 4


def preflight(teacher: Network, task: Task, loader: Iterable[Any], move: Mover) -> dict[str, float]:
    """Evaluate the teacher and refuse it when it cannot teach; return its figures.

    Raises:
        UserError: its score is at chance level; another usual normalisation scores clearly better; or it changes
            its own buffers or stays in train mode although it was put into eval mode.
    """
    network = teacher.network
    training = [name or type(network).__name__ for name, module in network.named_modules() if module.training]
    if training:
        raise UserError(
            f"the teacher's {training[0]!r} is in train mode after eval(); let its train() pass the mode on"
        )
    before = buffers_hash(network)
    figures = evaluate(network, task, loader, move)
    if buffers_hash(network) != before:
        raise UserError("the teacher changes its own buffers while it predicts; freeze them (batch norm in eval mode)")
    better = _better_normalization(network, task, list(islice(loader, TRIAL_BATCHES)), move)
    if better:
        raise UserError(better)
    least = chance_level(task.chance(), int(figures["count"]), task.margin)
    if figures[task.select] < least:
        raise UserError(
            f"the teacher scores {task.select} {figures[task.select]:.3f} on validation data, which is chance level "
            f"(below {least:.3f}); check its weights, class order and input normalisation"
        )
    return figures


def chance_level(chance: float, count: int, margin: float = 0.1) -> float:
    """Return what a guess stays below: chance plus three standard errors, and at least `margin` of the way to 1.

    >>> round(chance_level(0.1, 100), 3)
    0.19
    """
    return chance + max(margin * (1 - chance), 3 * math.sqrt(chance * (1 - chance) / max(count, 1)))


def buffers_hash(network: nn.Module) -> str:
    """Return a digest of all buffers and parameters, to show that a network was left untouched."""
    digest = hashlib.sha256()
    for name, value in sorted({**dict(network.named_buffers()), **dict(network.named_parameters())}.items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _better_normalization(network: nn.Module, task: Task, batches: list[Any], move: Mover) -> str | None:
    """Return a sentence when a usual normalisation beats the one in use by more than the margin."""
    stated = normalization(network)
    if stated is None:
        return None
    score = evaluate(network, task, batches, move)[task.select]
    trial = copy.deepcopy(network)
    channels = len(stated[0])
    for name, (mean, std) in USUAL.items():
        other = mean[:channels], std[:channels]
        if other == stated:
            continue
        normalize_inputs(trial, *other).to(next(network.parameters()).device)
        found = evaluate(trial, task, batches, move)[task.select]
        if found > score + MARGIN:
            return (
                f"the teacher scores {task.select} {score:.3f} with mean {stated[0]} and std {stated[1]}, but "
                f"{found:.3f} with {name} ({other[0]}, {other[1]}); set teacher.mean and teacher.std to what it was "
                "trained with"
            )
    return None
