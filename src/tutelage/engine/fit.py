"""Run one recipe from the first check to the shipped student."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import nn

from tutelage.engine.calibration import calibrate
from tutelage.engine.checks.teacher import state_hash
from tutelage.engine.checks.terms import check_terms
from tutelage.engine.dry_run import check_recipe, num_parameters
from tutelage.engine.final_students import (
    choices,
    final_students,
    teacher_beside_students,
    test_metrics,
)
from tutelage.engine.interrupt import Interrupt
from tutelage.engine.loader import lost_loader
from tutelage.engine.previews import save_previews
from tutelage.engine.ranks import is_first_launched, lost_rank
from tutelage.engine.run_folder import RunFolder
from tutelage.engine.setup import Setup, TrainingSetup, make_accelerator
from tutelage.engine.teacher_metrics import checked_metrics, teacher_record
from tutelage.engine.teacher_run import TEACHER_DIR, TeacherRun, resolve_teachers
from tutelage.engine.trackers import Trackers
from tutelage.engine.trainer import Trainer
from tutelage.errors import UserError
from tutelage.io import expanded, write_json, write_tensors
from tutelage.recipes.config import Recipe
from tutelage.recipes.rebuild import student_sections


def fit(
    recipe: Recipe,
    out: str | Path,
    *,
    resume: bool = False,
    text: str | None = None,
    teacher_runs: Sequence[TeacherRun] = (),
    teacher_dir: str | Path = TEACHER_DIR,
) -> dict[str, Any] | None:
    """Run a recipe and return its metrics, or None if it was interrupted and can be resumed.

    The order is: check the folder, train the teachers that the recipe names by their recipes, set
    up, check the teacher, check every term, train, evaluate once on test data, ship the student.

    Args:
        recipe: what to run.
        out: the run's folder, see `engine.run_folder`.
        resume: continue from the newest checkpoint; a finished run returns its metrics.
        text: the recipe as text, kept as recipe.yaml; None keeps its repr.
        teacher_runs: runs that the recipe's weights come from; those not finished are trained.
        teacher_dir: folder of the runs of teachers that are named by `teacher.recipe`.

    Raises:
        UserError: For anything that the user can fix. A folder that this call made is removed if
            the error comes before the first epoch is over.
        FolderInUseError: If another process runs in the folder.
        NonFiniteError: If a term became NaN or infinite.
    """
    folder = RunFolder(expanded(out), writes=is_first_launched())
    text = repr(recipe) + "\n" if text is None else text
    folder.check(text, resume)
    if resume and folder.finished:
        folder.clean()
        return folder.metrics()
    recipe, further_runs = resolve_teachers(recipe, expanded(teacher_dir))
    with folder.claimed():
        return fit_claimed(recipe, folder, text, resume, [*teacher_runs, *further_runs])


def fit_claimed(
    recipe: Recipe,
    folder: RunFolder,
    text: str,
    resume: bool,
    teacher_runs: Sequence[TeacherRun] = (),
) -> dict[str, Any] | None:
    """Run a recipe, whose teachers are resolved, in a folder that this process has for itself.

    Args:
        recipe: what to run.
        folder: claimed.
        text: as `fit`.
        resume: as `fit`.
        teacher_runs: as `fit`.

    Raises:
        UserError: As `fit`.
        NonFiniteError: As `fit`.
    """
    folder.check(text, resume)  # once more: another process may have been here until now
    if resume and folder.finished:
        return folder.metrics()
    is_new = not folder.recipe.exists()
    try:
        metrics = None
        if _train_teachers(recipe, teacher_runs):
            metrics = _run(recipe, folder, text, resume)
    except BaseException as error:
        if is_new:
            folder.discard()
        if isinstance(error, SafetensorError):
            raise UserError(
                f"{folder.path} cannot be written ({error}); make room, and add --resume to go on"
            ) from error
        lost = lost_rank(error) or lost_loader(error)
        if lost is not None:
            raise lost from error
        raise
    if is_new and not folder.recipe.exists():  # a teacher's run was interrupted
        folder.discard()
    return metrics


def _train_teachers(recipe: Recipe, runs: Sequence[TeacherRun]) -> bool:
    """Train the teachers that are missing; return False if one was interrupted."""
    missing = [run for run in runs if not run.ready]
    for run in runs:
        if run.ready:
            RunFolder(run.out).clean()
    if not missing:
        return True
    for run in missing:
        run.check_processes()
    # A mistake in the student's recipe shows now, not after hours of training its teacher.
    check_recipe(recipe)
    return all(run.train() for run in missing)


def _run(recipe: Recipe, folder: RunFolder, text: str, resume: bool) -> dict[str, Any] | None:
    accelerator = make_accelerator(recipe.train, folder.path)
    folder.writes = accelerator.is_main_process
    setup = Setup.of(recipe)
    ready = TrainingSetup.of(setup, accelerator)
    ready.distiller.method.on_train_start()
    teacher_metrics = checked_metrics(ready)
    accelerator.wait_for_everyone()
    folder.create(text)
    accelerator.wait_for_everyone()
    trackers = Trackers(accelerator, folder)
    trackers.start(recipe.train.log_with, text)
    hashes = _teacher_hashes(setup)
    trainer = Trainer(ready, accelerator, folder, trackers)
    if not (resume and trainer.restore()):
        folder.rewind(-1)
        _check_terms(ready, folder)
    with Interrupt() as interrupt:
        is_done = trainer.run(interrupt)
    metrics = None
    if is_done:
        if _teacher_hashes(setup) != hashes:
            raise UserError(
                "the teacher changed during training; its weights and buffers must stay as they are"
            )
        metrics = _finish_or_stop(ready, trainer, folder, teacher_metrics, trackers)
        if metrics is not None:
            trackers.finish(metrics["test"], trainer.step)
    accelerator.wait_for_everyone()  # the first rank still writes
    trackers.close()
    return metrics


def _finish_or_stop(
    ready: TrainingSetup,
    trainer: Trainer,
    folder: RunFolder,
    teacher_metrics: dict[str, float] | None,
    trackers: Trackers,
) -> dict[str, Any] | None:
    """Finish the run, or return None at a signal: the checkpoint of the last epoch is there."""
    # A rank that waits for others cannot answer a signal; several are left to their launcher.
    handles_signals = trainer.accelerator.num_processes == 1
    try:
        with Interrupt(at_once=True) if handles_signals else nullcontext():
            return _finish(ready, trainer, folder, teacher_metrics, trackers)
    except KeyboardInterrupt:
        return None


def _teacher_hashes(setup: Setup) -> list[str]:
    return [state_hash(model) for model in setup.teacher.models().values()]


def _check_terms(ready: TrainingSetup, folder: RunFolder) -> None:
    scales = check_terms(ready.distiller, ready.example)
    if folder.writes:
        write_json(folder.path / "loss_scale.json", [scale.record() for scale in scales])
        for scale in scales:
            warning = scale.warning(is_capped=ready.cap is not None)
            if warning:
                print(f"warning: {warning}", file=sys.stderr)


def _finish(
    ready: TrainingSetup,
    trainer: Trainer,
    folder: RunFolder,
    teacher_metrics: dict[str, float] | None,
    trackers: Trackers,
) -> dict[str, Any]:
    """Evaluate the last and the best epoch on test data, and ship the one the recipe asks for."""
    setup = ready.setup
    recipe = setup.recipe
    trainer.share_buffers()
    epochs = {"last": trainer.step // trainer.steps_per_epoch, "best": trainer.best["epoch"]}
    students = final_students(trainer, epochs)
    chosen = choices(ready, students)
    beside = teacher_beside_students(ready)
    test = test_metrics(ready, students, beside)
    record = teacher_record(ready, teacher_metrics, beside)
    shipped_epoch = recipe.train.checkpoint
    student = trainer.distiller.student
    student.load_state_dict(students[shipped_epoch].state_dict())
    judged = ready.distiller.method.eval_model(student)
    calibration = calibrate(recipe, judged, setup.parts, ready.loading)
    if folder.writes:
        trackers.pictures(save_previews(ready, folder.path), trainer.step)
    shipped = trainer.distiller.deploy()
    models = setup.teacher.models()
    metrics = {
        "checkpoint": shipped_epoch,
        "test": test[shipped_epoch],
        **({} if calibration is None else {"calibration": calibration}),
        **{name: {"epoch": epochs[name], "test": test[name]} for name in epochs},
        "validation": trainer.best["metrics"],
        **({"chosen": chosen[shipped_epoch]} if chosen[shipped_epoch] else {}),
        "teacher": record,
        "parameters": {
            "student": num_parameters(shipped),
            "method": num_parameters(ready.distiller.method),
            "teacher": sum(map(num_parameters, models.values())) if models else None,
        },
        "seconds": round(trainer.seconds, 3),
        "steps": trainer.step,
        "seed": recipe.seed,
    }
    if folder.writes:
        _ship(shipped, setup, folder, calibration)
        recipe.task.export(shipped, setup.parts, folder.path)
    folder.finish(metrics)
    return metrics


def _ship(
    student: nn.Module, setup: Setup, folder: RunFolder, calibration: dict[str, Any] | None
) -> None:
    """Write the weights, and what is needed to use them without the data and the recipe."""
    data = setup.recipe.data
    facts = {"model": type(student).__name__, **data.input_info(student)}
    facts |= data.usage_info(setup.parts)
    sections = student_sections(folder.recipe)
    if sections is not None:
        facts["recipe"] = sections
    if calibration is not None:
        facts["temperature"] = calibration["temperature"]
    write_tensors(folder.path / "student.safetensors", student.state_dict())
    write_json(folder.path / "student.json", facts)
