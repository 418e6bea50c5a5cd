"""The runs of a study: what is finished, and training what is not."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tutelage.cli.jobs import Job, run_jobs
from tutelage.cli.teachers import check_before_training, resolve_teachers
from tutelage.cluster.ray_runner import RayRunner
from tutelage.cluster.ray_session import ray_session
from tutelage.cluster.runner import LocalRunner
from tutelage.cluster.shared_folders import shared_folders
from tutelage.engine.run_folder import RunFolder
from tutelage.engine.teacher_run import TeacherRun
from tutelage.errors import UserError
from tutelage.recipes import ParsedRecipe, parse_recipe


@dataclass(frozen=True)
class MethodRuns:
    """One method of a study.

    Attributes:
        recipe: its recipe, with the teachers' models and weights.
        teachers: the runs that these weights come from.
        jobs: its runs, one per seed.
    """

    recipe: ParsedRecipe
    teachers: list[TeacherRun]
    jobs: list[Job]

    @property
    def done(self) -> bool:
        """Whether all of its runs are finished."""
        return all(job.done for job in self.jobs)


def method_runs(
    recipe: Path, arguments: argparse.Namespace, overrides: Sequence[str]
) -> MethodRuns:
    """Parse a recipe, and check that runs which lie in its folders are runs of it."""
    parsed = parse_recipe(recipe, overrides)
    parsed, teachers = resolve_teachers(parsed, Path(arguments.teacher_dir))
    jobs = []
    for seed in range(arguments.seeds):
        target = Path(arguments.out) / recipe.stem / f"seed{seed}"
        RunFolder(target).check(parsed.replace({"seed": seed}).text(), resume=True)
        jobs.append(Job(recipe.stem, seed, recipe, target, parsed.config.train.epochs))
    return MethodRuns(parsed, teachers, jobs)


def common_monitor(parts: Sequence[MethodRuns]) -> str:
    """Return the metric by which all recipes choose the best epoch, to compare methods in."""
    monitors = {part.recipe.name: part.recipe.monitor() for part in parts}
    if len(set(monitors.values())) > 1:
        listed = ", ".join(f"{name} by {monitor}" for name, monitor in monitors.items())
        raise UserError(
            "methods are compared in one metric, but these recipes choose the best epoch by "
            f"different ones: {listed}"
        )
    return next(iter(monitors.values()))


def run_missing(
    parts: Sequence[MethodRuns], arguments: argparse.Namespace, overrides: Sequence[str]
) -> bool:
    """Run what is not finished; return False if the run of a teacher was interrupted."""
    for part in parts:
        for job in part.jobs:
            if job.done:
                RunFolder(job.out).clean()
    waiting = [part for part in parts if not part.done]
    for part in waiting:
        check_before_training(part.recipe, part.teachers)
    # All methods with one seed after the other, so that an interrupted study has pairs.
    jobs = sorted((job for part in parts for job in part.jobs), key=lambda job: job.seed or 0)
    options = ["--teacher-dir", str(arguments.teacher_dir), *overrides]
    if arguments.ray is None:
        for part in waiting:
            for teacher in part.teachers:
                if not teacher.train():
                    return False
        run_jobs(jobs, options, LocalRunner(arguments.jobs or 1))
    elif waiting:
        folders = [Path(arguments.out), Path(arguments.teacher_dir)]
        with ray_session(arguments.ray) as ray, shared_folders(folders) as shared:
            runner = RayRunner(ray, shared, arguments.cpus_per_run or 1, arguments.gpus_per_run)
            run_jobs(_teacher_jobs(waiting), options, runner)
            run_jobs(jobs, options, runner)
    return True


def _teacher_jobs(parts: Sequence[MethodRuns]) -> list[Job]:
    """Return jobs that train what is missing, each teacher in one of them."""
    jobs: list[Job] = []
    planned: set[Path] = set()
    for part in parts:
        missing = [run for run in part.teachers if not run.ready and run.out not in planned]
        planned.update(run.out for run in missing)
        if missing:
            # Of several, the last one's folder tells when all are trained.
            recipe = part.recipe.path
            epochs = missing[-1].build().train.epochs
            jobs.append(Job(recipe.stem, None, recipe, missing[-1].out, epochs))
    return jobs
