"""The metrics of a recipe's teachers on validation and test data, measured once for all runs.

A teacher that comes from a run folder is the same in every run of a study. What was measured of it
is kept there, in `known/`, under a name that depends on its weights, the task and the data; the
next run reads it. Tasks that read more than one part of the data are evaluated in every run, as are
teachers from other files and runs of several processes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tutelage.core import Batch, Evaluation, Teacher
from tutelage.core.batch import tensors_in
from tutelage.engine.checks.teacher import check_teacher, state_hash
from tutelage.engine.evaluate import RecordedTeacher, evaluate, evaluation, is_one_pass
from tutelage.engine.setup import TrainingSetup
from tutelage.errors import UserError
from tutelage.io import read_json, write_json
from tutelage.provenance import version
from tutelage.recipes.config import TeacherConfig

FOLDER = "known"
PROBES = 16  # samples of a part that stand for all of it

Metrics = dict[str, float]


def checked_metrics(ready: TrainingSetup) -> Metrics | None:
    """Return the validation metrics of the teacher, or of each by name; None if not checked.

    Raises:
        UserError: If one of them cannot teach, see `check_teacher`.
    """
    setup = ready.setup
    recipe = setup.recipe
    run = evaluation("validation", ready.loading)

    def check(config: TeacherConfig, model: nn.Module) -> Metrics:
        return _known_or(
            lambda: check_teacher(model, recipe.task, setup.parts, run),
            ready,
            config,
            model,
            "validation",
        )

    models = setup.teacher.models()
    if recipe.teacher is not None and recipe.teacher.preflight:
        return check(recipe.teacher, models["teacher"])
    metrics: Metrics = {}
    for name, config in (recipe.teachers or {}).items():
        if config.preflight:
            own = check(config, models[name])
            metrics |= {f"{name}/{key}": value for key, value in own.items()}
    return metrics or None


def teacher_record(
    ready: TrainingSetup, validation: Metrics | None, beside: Teacher | None
) -> dict[str, Metrics] | None:
    """Return what metrics.json says of the teachers: checked ones on test data, too.

    Args:
        ready: the run.
        validation: what `checked_metrics` returned.
        beside: the teacher that the students were compared with on test data; it need not run
            again where it remembers its outputs.
    """
    if validation is None:
        return None
    setup = ready.setup
    recipe = setup.recipe
    run = evaluation("test", ready.loading)
    test: Metrics = {}
    for name, model in setup.teacher.models().items():
        if recipe.teacher is not None:
            config, prefix = recipe.teacher, ""
        else:
            config, prefix = (recipe.teachers or {})[name], f"{name}/"
            if f"{prefix}{recipe.task.monitor}" not in validation:
                continue  # not checked, so nothing is said of it
        remembers = beside if recipe.teacher is not None else None
        metrics = _known_or(
            lambda model=model, beside=remembers: _measured(model, beside, ready, run),  # type: ignore[misc]
            ready,
            config,
            model,
            "test",
        )
        test |= {f"{prefix}{key}": value for key, value in metrics.items()}
    return {"validation": validation, "test": test}


def _measured(
    model: nn.Module, beside: Teacher | None, ready: TrainingSetup, run: Evaluation
) -> Metrics:
    """Return the metrics of a teacher, from the outputs that are remembered where they are."""
    task = ready.setup.recipe.task
    parts = ready.setup.parts
    if not isinstance(beside, RecordedTeacher) or not is_one_pass(task):
        return evaluate(model, task, parts, run)
    metrics = task.metrics()
    for batch in run.batches(parts[run.part]):
        metrics.update(beside(batch, task.inputs(batch)).output, batch)
    return metrics.compute()


def _known_or(
    measure: Callable[[], Metrics],
    ready: TrainingSetup,
    config: TeacherConfig,
    model: nn.Module,
    part: str,
) -> Metrics:
    """Return the metrics that an earlier run has left, or measure them and leave them."""
    path = _path(ready, config, model, part)
    if path is None:
        return measure()
    if path.is_file():
        content = read_json(path, "remove it to measure the teacher anew")
        metrics: Any = content.get("metrics")
        if not isinstance(metrics, dict) or ready.setup.recipe.task.monitor not in metrics:
            raise UserError(f"{path} holds no metrics; remove it to measure the teacher anew")
        return dict(metrics)
    metrics = measure()
    with suppress(OSError):  # a teacher of others, whose folder cannot be written
        path.parent.mkdir(exist_ok=True)
        write_json(path, {"part": part, "metrics": metrics})
    return dict(metrics)


def _path(ready: TrainingSetup, config: TeacherConfig, model: nn.Module, part: str) -> Path | None:
    """Return where the metrics of a teacher are kept; None if they are measured in every run."""
    setup = ready.setup
    task = setup.recipe.task
    if config.weights is None or ready.loading.world > 1 or not is_one_pass(task):
        return None
    folder = Path(config.weights).expanduser()
    if not (folder / "metrics.json").is_file():
        return None
    facts = {
        "version": version(),
        "class": f"{type(model).__module__}.{type(model).__qualname__}",
        "architecture": repr(model),
        "weights": state_hash(model),  # with the input statistics
        "task": f"{type(task).__module__}.{task!r}",
        "data": repr(setup.recipe.data),
        "part": part,
        "samples": _digest(setup.parts[part]),
    }
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
    return folder / FOLDER / f"{part}-{digest}.json"


def _digest(samples: Any) -> str:
    """Return what changes with the number of samples, or with one of some from all over them."""
    digest = hashlib.sha256(f"{len(samples)}".encode())
    positions = torch.linspace(0, len(samples) - 1, PROBES).round().long()
    keys = [(0, position) for position in sorted(set(positions.tolist()))]
    batch = Batch.of(samples.batch(keys))
    for name in sorted(batch):
        for tensor in tensors_in(batch[name]):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
