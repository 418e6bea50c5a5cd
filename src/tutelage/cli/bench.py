"""`tutelage bench`: methods × seeds, each run in a fresh process, one table at the end."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tutelage.cli.jobs import Job, run_jobs
from tutelage.cli.recipes import Parsed, parse_recipe
from tutelage.cli.study import draw_study, with_earlier, write_study
from tutelage.cli.teachers import TeacherRun, rehearse_run, resolve_teacher
from tutelage.engine.run_folder import RunFolder
from tutelage.errors import UserError


@dataclass(frozen=True)
class Part:
    """One method of a study: its recipe, its teacher, its runs."""

    parsed: Parsed
    teacher: TeacherRun | None
    jobs: list[Job]

    @property
    def done(self) -> bool:
        """Whether all of its runs are finished."""
        return all(job.done for job in self.jobs)


def run(arguments: argparse.Namespace, overrides: list[str]) -> int:
    """Check everything, train the teachers once, then all runs; write results.json, the table and the picture."""
    folder, out = Path(arguments.recipes), Path(arguments.out)
    methods = _methods(folder, arguments.methods)
    for name, value in (("--seeds", arguments.seeds), ("--jobs", arguments.jobs)):
        if value < 1:
            raise UserError(f"{name} must be at least 1, got {value}")
    if any(option.partition("=")[0] == "--seed" for option in overrides):
        raise UserError("bench gives every run its seed; say how many with --seeds")
    parts = [_part(folder / f"{method}.yaml", out / method, arguments, overrides) for method in methods]
    select = _select(parts)
    try:
        if not _run(parts, arguments, overrides):
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        print("tutelage: interrupted; what is done is kept: give the same command to go on", file=sys.stderr)
        return 130
    methods, seeds = with_earlier(out, methods, arguments.seeds, select)
    print(write_study(out, methods, seeds, select), flush=True)
    print("\n" + "  ".join(str(path) for path in (out / "results.json", *draw_study(out, methods))))
    return 0


def _select(parts: Sequence[Part]) -> str:
    """Return the figure that the recipes' tasks choose their best epoch by, which is what methods are compared in."""
    found = {part.parsed.path: part.parsed.select() for part in parts}
    if len(set(found.values())) > 1:
        told = ", ".join(f"{path} by {select}" for path, select in found.items())
        raise UserError(f"methods are compared in one figure, but these recipes choose the best epoch {told}")
    return next(iter(found.values()))


def _part(recipe: Path, out: Path, arguments: argparse.Namespace, overrides: list[str]) -> Part:
    """Make sure that runs which lie there already are runs of this recipe."""
    parsed = parse_recipe(recipe, overrides)
    teacher = resolve_teacher(parsed, arguments.teachers)
    jobs = []
    for seed in range(arguments.seeds):
        parsed.config.seed = seed
        target = out / f"seed{seed}"
        RunFolder(target).check(parsed.text(), resume=True)
        jobs.append(Job(recipe.stem, seed, recipe, target, parsed.config.train.epochs))
    return Part(parsed, teacher, jobs)


def _run(parts: Sequence[Part], arguments: argparse.Namespace, overrides: list[str]) -> bool:
    """Return False when the run of a teacher was interrupted."""
    waiting = [part for part in parts if not part.done]
    for part in waiting:
        rehearse_run(part.parsed, part.teacher)
    for part in waiting:
        if part.teacher is not None and not part.teacher.train():
            return False
    jobs = sorted((job for part in parts for job in part.jobs), key=lambda job: job.seed)  # paired when interrupted
    run_jobs(jobs, ["--teachers", str(arguments.teachers), *overrides], arguments.jobs)
    return True


def _methods(folder: Path, wanted: str | None) -> list[str]:
    there = sorted(path.stem for path in folder.glob("*.yaml") if "teacher" not in path.stem.split("_"))
    if not there:
        raise UserError(f"{folder} holds no recipes; give a folder such as recipes/classification/digits")
    names = there if wanted is None else [name.strip() for name in wanted.split(",")]
    for name in names:
        if name not in there:
            raise UserError(f"{folder} has no recipe {name}.yaml; --methods takes names out of {there}, with commas")
    return list(dict.fromkeys(names))
