"""The students after the last and the best epoch: what is shipped of each, and their metrics."""

from __future__ import annotations

import copy
from typing import Any

from torch import nn

from tutelage.core import Teacher
from tutelage.engine.evaluate import evaluate, evaluation
from tutelage.engine.setup import TrainingSetup
from tutelage.engine.teacher_cache import teacher_beside
from tutelage.engine.trainer import Trainer


def final_students(trainer: Trainer, epochs: dict[str, int]) -> dict[str, nn.Module]:
    """Return the student after the last and after the best epoch; one network if they are one."""
    last = trainer.averaged_student
    if epochs["best"] == epochs["last"]:
        return {"last": last, "best": last}
    best = copy.deepcopy(last)
    best.load_state_dict(trainer.best_weights)
    return {"last": last, "best": best}


def choices(ready: TrainingSetup, students: dict[str, nn.Module]) -> dict[str, dict[str, Any]]:
    """Let the method choose on validation data what is shipped of each student."""
    setup = ready.setup
    task = setup.recipe.task
    run = evaluation("validation", ready.loading)

    def score(model: nn.Module) -> float:
        return evaluate(model, task, setup.parts, run)[task.monitor]

    chosen: dict[int, dict[str, Any]] = {}
    for student in students.values():
        if id(student) not in chosen:
            chosen[id(student)] = ready.distiller.method.choose(student, score)
    return {name: chosen[id(student)] for name, student in students.items()}


def teacher_beside_students(ready: TrainingSetup) -> Teacher | None:
    """Return the teacher that the students are compared with on test data, if there is one."""
    if not ready.setup.teacher.models():
        return None
    return teacher_beside(ready.setup, "test", ready.loading.device)


def test_metrics(
    ready: TrainingSetup, students: dict[str, nn.Module], teacher: Teacher | None
) -> dict[str, dict[str, float]]:
    """Return the metrics of each student on test data, beside the teacher."""
    setup = ready.setup
    method = ready.distiller.method
    run = evaluation("test", ready.loading, teacher)
    metrics: dict[int, dict[str, float]] = {}
    for student in students.values():
        if id(student) not in metrics:
            model = method.eval_model(student)
            metrics[id(student)] = evaluate(model, setup.recipe.task, setup.parts, run)
    return {name: metrics[id(student)] for name, student in students.items()}
