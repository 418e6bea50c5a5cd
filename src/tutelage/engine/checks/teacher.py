"""Check the teacher on validation data before training.

Teachers that were loaded with the wrong weights, fed with the wrong normalization or left in train
mode cost days, because the run looks fine. Each is refused here, with what to change.
"""

from __future__ import annotations

import copy
import hashlib
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from itertools import islice
from typing import Any

import torch
from torch import nn

from tutelage.core import Batch, Evaluation, Task
from tutelage.core.modes import device_of
from tutelage.core.normalization import COMMON_STATISTICS, normalization, normalize_inputs
from tutelage.engine.evaluate import evaluate
from tutelage.errors import UserError

TOLERATED_GAIN = 0.05
TRIAL_BATCHES = 4


def check_teacher(
    model: nn.Module, task: Task, parts: Mapping[str, Any], run: Evaluation
) -> dict[str, float]:
    """Evaluate the teacher and refuse it if it cannot teach.

    Args:
        model: the teacher's network.
        task: how it is evaluated.
        parts: the data by name.
        run: which part, and how to load it.

    Returns:
        Its metrics.

    Raises:
        UserError: If its score is at chance level, if another common normalization scores clearly
            better, if it changes its own buffers, or if it stays in train mode although it was put
            into eval mode.
    """
    for name, module in model.named_modules():
        if module.training:
            raise UserError(
                f"the teacher's {name or type(model).__name__!r} is in train mode after eval(); "
                "let its train() pass the mode on"
            )
    before = state_hash(model)
    metrics = evaluate(model, task, parts, run)
    if state_hash(model) != before:
        raise UserError(
            "the teacher changes its own buffers while it predicts; "
            "freeze them (batch norm in eval mode)"
        )
    _check_normalization(model, task, parts, run)
    score = metrics[task.monitor]
    num_samples = int(metrics.get("num_samples", len(parts[run.part])))
    bound = refusal_level(task.chance_level(), num_samples, task.min_gain_over_chance)
    if score < bound:
        raise UserError(
            f"the teacher scores {task.monitor} {score:.3f} on validation data, which is chance "
            f"level (below {bound:.3f}); check its weights, class order and input normalization"
        )
    return metrics


def refusal_level(chance: float, num_samples: int, min_gain: float = 0.1) -> float:
    """Return the score below which a teacher is refused.

    It is chance plus three standard errors, and at least `min_gain` of the way from chance to 1.

    >>> round(refusal_level(0.1, 100), 3)
    0.19
    """
    standard_error = math.sqrt(chance * (1 - chance) / max(num_samples, 1))
    return chance + max(min_gain * (1 - chance), 3 * standard_error)


def state_hash(network: nn.Module) -> str:
    """Return a digest of all parameters and buffers, to show that a network was not changed."""
    digest = hashlib.sha256()
    state = {**dict(network.named_buffers()), **dict(network.named_parameters())}
    for name, value in sorted(state.items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _check_normalization(
    model: nn.Module, task: Task, parts: Mapping[str, Any], run: Evaluation
) -> None:
    """Refuse a normalization that a common one beats by more than the tolerated gain."""
    statistics = normalization(model)
    if statistics is None:
        return
    trial_run = replace(run, batches=_first_batches(run.batches))
    score = evaluate(model, task, parts, trial_run)[task.monitor]
    trial = copy.deepcopy(model)
    channels = len(statistics[0])
    for name, (mean, std) in COMMON_STATISTICS.items():
        other = mean[:channels], std[:channels]
        if other == statistics:
            continue
        normalize_inputs(trial, *other).to(device_of(model))
        other_score = evaluate(trial, task, parts, trial_run)[task.monitor]
        if other_score > score + TOLERATED_GAIN:
            raise UserError(
                f"the teacher scores {task.monitor} {score:.3f} with mean {statistics[0]} and std "
                f"{statistics[1]}, but {other_score:.3f} with {name} ({other[0]}, {other[1]}); set "
                "teacher.mean and teacher.std to what it was trained with"
            )


def _first_batches(
    batches: Callable[[Any], Iterable[Batch]],
) -> Callable[[Any], Iterable[Batch]]:
    """Return a loader of the first few batches of a part, which loads them once for all trials."""
    loaded: dict[int, list[Batch]] = {}

    def first(samples: Any) -> list[Batch]:
        if id(samples) not in loaded:
            loaded[id(samples)] = list(islice(batches(samples), TRIAL_BATCHES))
        return loaded[id(samples)]

    return first
