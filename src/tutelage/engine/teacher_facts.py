"""How good and how sure a recipe's teacher is on validation data."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from tutelage.core import Batch, Output, Task
from tutelage.core.modes import eval_mode
from tutelage.core.taps import call
from tutelage.engine.calibration import Calibrates
from tutelage.engine.checks.teacher import check_teacher
from tutelage.engine.evaluate import evaluation
from tutelage.engine.setup import Setup, make_accelerator
from tutelage.recipes.config import Recipe


@dataclass(frozen=True)
class TeacherFacts:
    """A teacher on validation data.

    Attributes:
        metrics: of the task.
        confidence: the mean probability of the class that it decides for; None where a network
            does not decide for one class an item.
    """

    metrics: dict[str, float]
    confidence: float | None


def teacher_on_validation(recipe: Recipe) -> TeacherFacts | None:
    """Return the facts of the only teacher of a recipe; None without one. Nothing is written.

    Args:
        recipe: with a teacher that has its weights.

    Raises:
        UserError: If data or weights do not fit, or the teacher cannot teach.
    """
    device = make_accelerator(recipe.train).device
    setup = Setup.of(recipe)
    models = list(setup.teacher.models().values())
    if len(models) != 1:
        return None
    teacher = models[0].to(device)
    run = evaluation("validation", setup.eval_loading(device))
    metrics = check_teacher(teacher, recipe.task, setup.parts, run)
    batches = run.batches(setup.parts[run.part])
    confidence = None
    if isinstance(recipe.task, Calibrates):
        sums = [_confidence(teacher, recipe.task, batch) for batch in batches]
        confidence = sum(total for total, _ in sums) / max(sum(count for _, count in sums), 1)
    return TeacherFacts(metrics, confidence)


@torch.no_grad()
def _confidence(network: nn.Module, task: Task, batch: Batch) -> tuple[float, int]:
    """Return the sum of the largest probabilities in a batch, and the number of items."""
    with eval_mode(network):
        output = Output(call(network, task.inputs(batch)), {})
    largest = output.logits.float().softmax(1).amax(1)
    return float(largest.sum()), len(largest)
