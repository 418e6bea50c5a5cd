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
from tutelage.data.samples import Samples
from tutelage.engine.checks.chance import (
    SIGNIFICANT,
    Decides,
    Decisions,
    decisions,
    is_conclusive,
    p_value_of_gain,
    p_value_of_guessing,
    refusal_level,
)
from tutelage.engine.checks.notes import warn
from tutelage.engine.evaluate import evaluate
from tutelage.errors import UserError

TOLERATED_GAIN = 0.05
TRIAL_SIZE = 256  # samples on which other normalizations are tried
TRIAL_BATCHES = 4  # the same for data that cannot be drawn from
# Several normalizations are tried, and a good teacher must not be refused by bad luck.
CERTAIN = 0.001
ROUNDING = 1e-9


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
        UserError: If its score is at chance level, given how often each class occurs and is
            decided for, or its outputs are NaN, if another common normalization scores clearly
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
    try:
        metrics, found = _measured(model, task, parts, run)
    except UserError as error:
        raise UserError(f"the teacher on validation data: {error}") from error
    if state_hash(model) != before:
        raise UserError(
            "the teacher changes its own buffers while it predicts; "
            "freeze them (batch norm in eval mode)"
        )
    _check_normalization(model, task, parts, run)
    score = metrics[task.monitor]
    if math.isnan(score):
        raise UserError(
            f"the teacher's {task.monitor} on validation data is NaN, so that nothing is known of "
            "it; check that this part has labels"
        )
    num_samples = int(metrics.get("num_samples", len(parts[run.part])))
    chance = task.chance_level_on(parts[run.part])
    problem = _problem(score, num_samples, chance, task.min_gain_over_chance, found)
    if problem is not None:
        raise UserError(
            f"the teacher scores {task.monitor} {score:.3f} on validation data, which is chance "
            f"level ({problem}); check its weights, class order and input normalization"
        )
    return metrics


def _measured(
    model: nn.Module, task: Task, parts: Mapping[str, Any], run: Evaluation
) -> tuple[dict[str, float], Decisions | None]:
    """Return the metrics, and the decisions if the task can read them."""
    if not isinstance(task, Decides):
        return evaluate(model, task, parts, run), None
    if type(task).evaluate is not Task.evaluate:
        return evaluate(model, task, parts, run), decisions(model, task, parts, run)
    metrics = task.metrics()
    found = decisions(model, task, parts, run, metrics)
    return metrics.compute(), found


def _problem(
    score: float, num_samples: int, chance: float, min_gain: float, found: Decisions | None
) -> str | None:
    """Return why the teacher is no better than one that guesses, or None if it is."""
    if found is None:
        bound = refusal_level(chance, num_samples, min_gain, errors=1)
        if score < bound:
            return f"below {bound:.3f} with {num_samples} samples"
        if score < refusal_level(chance, num_samples, min_gain):
            warn(
                f"{num_samples} validation samples are too few to tell the teacher, which scores "
                f"{score:.3f}, from one that guesses, which is expected to score {chance:.3f}"
            )
        return None
    if found.agreement == 1:  # no test can ask for more
        return None
    if not found.is_dense:
        return _problem_of_labels(found, chance, min_gain)
    by_chance = found.agreement_by_chance
    bound = by_chance + min_gain * (1 - by_chance)
    if found.agreement < bound:
        return _compared(found.agreement, by_chance, bound)
    # No test beyond it: the decisions of one item depend on each other.
    floor = chance + min_gain * (1 - chance)
    return f"below {floor:.3f}" if score < floor else None


def _problem_of_labels(found: Decisions, chance: float, min_gain: float) -> str | None:
    """Return the problem of a teacher with one decision an item; warn if there are too few."""
    agreement = found.agreement
    by_chance = max(found.agreement_by_chance, chance)
    if agreement <= by_chance + ROUNDING:
        return _compared(agreement, by_chance, by_chance)
    p_value = p_value_of_guessing(int(found.right.sum()), found.count, by_chance)
    if not is_conclusive(found.count, by_chance):
        if p_value > SIGNIFICANT:
            warn(
                f"{found.count} validation labels are too few to tell the teacher from one that "
                f"guesses: {agreement:.3f} of its decisions are right, {by_chance:.3f} by chance "
                f"(p = {p_value:.2f})"
            )
        return None
    bound = by_chance + min_gain * (1 - by_chance)
    if agreement < bound:
        return _compared(agreement, by_chance, bound)
    if p_value > SIGNIFICANT:
        return (
            f"one that guesses is as good with p = {p_value:.2f}, as {by_chance:.3f} of such "
            "decisions are right by chance"
        )
    return None


def _compared(agreement: float, by_chance: float, bound: float) -> str:
    return (
        f"{agreement:.3f} of its decisions are right, but so are {by_chance:.3f} of such decisions "
        f"by chance; more than {bound:.3f} is needed"
    )


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
    """Refuse a normalization that a common one beats clearly, and not by the luck of few samples.

    The results are compared sample by sample, with an exact test; too few of them give no verdict.
    """
    statistics = normalization(model)
    if statistics is None:
        return
    batches = _trial_batches(parts[run.part], run.batches)
    trial_run = replace(run, batches=lambda samples: batches)
    metrics, own = _measured(model, task, parts, trial_run)
    score = metrics[task.monitor]
    trial = copy.deepcopy(model)
    channels = len(statistics[0])
    for name, (mean, std) in COMMON_STATISTICS.items():
        other = mean[:channels], std[:channels]
        if other == statistics:
            continue
        normalize_inputs(trial, *other).to(device_of(model))
        try:
            other_metrics, found = _measured(trial, task, parts, trial_run)
        except UserError:  # such inputs make its outputs NaN: no better
            continue
        other_score = other_metrics[task.monitor]
        if other_score <= score + TOLERATED_GAIN:
            continue
        if own is None or found is None:
            count = metrics.get("num_samples", 1)
            is_certain = other_score > score + TOLERATED_GAIN + 3 / math.sqrt(2 * max(count, 1))
        else:
            is_certain = p_value_of_gain(own.shares, found.shares) < CERTAIN
        if is_certain:
            raise UserError(
                f"the teacher scores {task.monitor} {score:.3f} with mean {statistics[0]} and std "
                f"{statistics[1]}, but {other_score:.3f} with {name} ({other[0]}, {other[1]}); set "
                "teacher.mean and teacher.std to what it was trained with"
            )


def _trial_batches(samples: Any, batches: Callable[[Any], Iterable[Batch]]) -> list[Batch]:
    """Return batches of some samples from all over a part, which may be sorted by class."""
    if not isinstance(samples, Samples):
        return list(islice(batches(samples), TRIAL_BATCHES))
    count = min(TRIAL_SIZE, len(samples))
    positions = torch.linspace(0, len(samples) - 1, count).round().long()
    return list(batches(samples.subset(positions)))
