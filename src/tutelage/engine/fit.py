"""Run one recipe from the first check to the shipped student."""

from __future__ import annotations

import copy
import sys
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from torch import nn

from tutelage.core.normalization import normalization
from tutelage.engine.assemble import Assembly, assemble
from tutelage.engine.evaluate import evaluate_all
from tutelage.engine.files import write_json, write_tensors
from tutelage.engine.guard import check_terms
from tutelage.engine.interrupt import Interrupt
from tutelage.engine.pictures import keep_pictures
from tutelage.engine.preflight import buffers_hash, preflight
from tutelage.engine.recipe import Recipe
from tutelage.engine.run_folder import RunFolder
from tutelage.engine.trainer import Trainer
from tutelage.errors import UserError


def fit(recipe: Recipe, out: str | Path, resume: bool = False, text: str | None = None) -> dict[str, Any] | None:
    """Run a recipe and return its figures, or None when it was interrupted and can be resumed.

    The order is: claim the folder, assemble (seed → grow → data → probe), check the teacher, check every term, train,
    evaluate once on test data, ship.

    Args:
        recipe: what to run.
        out: the run's folder; see `run_folder`.
        resume: go on from the newest checkpoint; a finished run returns its figures.
        text: the recipe as text, kept as recipe.yaml; None keeps its repr.

    Raises:
        UserError: anything that the user can mend; NonFiniteError when a term became NaN or infinite.
    """
    accelerator = Accelerator(
        mixed_precision=recipe.train.precision, log_with=list(recipe.train.trackers) or None, project_dir=str(out)
    )
    folder = RunFolder(Path(out), writes=accelerator.is_main_process)
    if resume and folder.finished:
        return folder.metrics()
    text = repr(recipe) + "\n" if text is None else text
    folder.check(text, resume)
    parts = assemble(recipe, accelerator)
    taught = _check_teacher(recipe, parts)
    accelerator.wait_for_everyone()
    folder.begin(text)
    accelerator.wait_for_everyone()
    accelerator.init_trackers("tutelage")
    untouched = None if parts.teacher is None else buffers_hash(parts.teacher.network)
    trainer = Trainer(recipe, parts, accelerator, folder)
    if not (resume and trainer.restore()):
        folder.rewind(0)
        _check_terms(parts, folder)
    with Interrupt() as interrupt:
        if not trainer.run(interrupt):
            accelerator.end_training()
            return None
    if parts.teacher is not None and buffers_hash(parts.teacher.network) != untouched:
        raise UserError("the teacher changed during training; its weights and buffers must stay as they are")
    metrics = _finish(recipe, parts, trainer, folder, taught)
    accelerator.end_training()
    return metrics


def _check_teacher(recipe: Recipe, parts: Assembly) -> dict[str, float] | None:
    if parts.teacher is None or recipe.teacher is None or not recipe.teacher.preflight:
        return None
    return preflight(parts.teacher, recipe.task, parts.validation, parts.move)


def _check_terms(parts: Assembly, folder: RunFolder) -> None:
    scales = check_terms(parts.distiller, parts.example)
    if folder.writes:
        write_json(folder.path / "loss_scale.json", [scale.record() for scale in scales])
        for warning in filter(None, (scale.warning() for scale in scales)):
            print(f"warning: {warning}", file=sys.stderr)


def _finish(
    recipe: Recipe, parts: Assembly, trainer: Trainer, folder: RunFolder, taught: dict[str, float] | None
) -> dict[str, Any]:
    """Evaluate on test data, once for the last and once for the best epoch, and ship the one the recipe keeps."""
    network, teacher = trainer.evaluated, parts.teacher
    trainer.share_buffers()
    epochs, ends = {"last": recipe.train.epochs, "best": trainer.best["epoch"]}, {"last": network}
    if epochs["best"] != epochs["last"]:
        ends["best"] = copy.deepcopy(network)
        ends["best"].load_state_dict(trainer.best_weights)
    figures = evaluate_all(ends, recipe.task, parts.test, parts.move, teacher)
    tests = {end: figures.get(end, figures["last"]) for end in epochs}
    trainer.distiller.student.load_state_dict(ends.get(recipe.train.keep, network).state_dict())
    if folder.writes:
        keep_pictures(parts, folder.path, recipe.data.classes)
    shipped = trainer.distiller.ship()
    metrics = {
        "kept": recipe.train.keep,
        "test": tests[recipe.train.keep],
        **{end: {"epoch": epochs[end], "test": tests[end]} for end in epochs},
        "validation": trainer.best["figures"],
        "teacher": {"validation": taught} if taught is not None else None,
        "parameters": {
            "student": _parameters(shipped),
            "method": _parameters(parts.distiller.method),
            "teacher": None if teacher is None else _parameters(teacher.network),
        },
        "seconds": round(trainer.seconds, 3),
        "steps": trainer.total,
        "seed": recipe.seed,
    }
    if folder.writes:
        _ship(shipped, recipe, folder)
    folder.finish(metrics)
    return metrics


def _ship(student: nn.Module, recipe: Recipe, folder: RunFolder) -> None:
    stated = normalization(student)
    write_tensors(folder.path / "student.safetensors", student.state_dict())
    write_json(
        folder.path / "student.json",
        {
            "network": type(student).__name__,
            "mean": stated[0] if stated else None,
            "std": stated[1] if stated else None,
            "classes": recipe.data.classes,
            "inputs": "images in [0, 1]" + ("; subtract mean and divide by std" if stated else ""),
        },
    )


def _parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())
