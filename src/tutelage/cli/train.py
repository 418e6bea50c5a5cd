"""`tutelage train`: run one recipe into one folder."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tutelage.cli._parser import OVERRIDES, Commands, add_command, add_recipe, add_teacher_dir
from tutelage.errors import UserError

if TYPE_CHECKING:
    from tutelage.engine.teacher_run import TeacherRun
    from tutelage.recipes import ParsedRecipe

EXAMPLES = """
tutelage train classification/digits/rcka --out runs/digits-rcka
tutelage train classification/digits/rcka --seed 1 --resume
tutelage train own/kd.yaml --data.root DIR
torchrun --nproc_per_node 2 -m tutelage train RECIPE --out runs/two
"""


# The runs of a study that was killed end as soon as they are saved; then it can be started again.
STUDY_WAITS_SECONDS = 60.0
TEACHER_INTERRUPTED = "interrupted in the teacher's run; give the same command to go on"


def register(commands: Commands) -> None:
    """Add the command."""
    command = add_command(
        commands,
        "train",
        "train the student of a recipe, after its teacher if it has one",
        examples=EXAMPLES,
        overrides=OVERRIDES,
    )
    add_recipe(command)
    command.add_argument(
        "--out", help="run folder (default: runs/<task>-<data>-<method>-seed<seed>)"
    )
    command.add_argument(
        "--resume", action="store_true", help="go on from the last checkpoint in --out"
    )
    command.add_argument(
        "--teachers-only",
        action="store_true",
        help="train the teachers that the recipe names by their recipes, and end",
    )
    add_teacher_dir(command)
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace, overrides: list[str]) -> int:
    """Train; print where the run lies and its metrics on test data."""
    from tutelage.cli.metrics_line import calibration_line, metrics_line
    from tutelage.cli.runs import is_main_process, train_run, write_memory
    from tutelage.cli.teachers import resolve_teachers
    from tutelage.cluster.processes import end_with_study
    from tutelage.engine.run_folder import RunFolder
    from tutelage.recipes import parse_recipe

    in_study = end_with_study()
    parsed = parse_recipe(arguments.source, overrides)
    out = Path(arguments.out or default_out(parsed))
    parsed, teachers = resolve_teachers(parsed, Path(arguments.teacher_dir))
    if arguments.teachers_only:
        return _train_teachers(arguments, teachers)
    # A study starts all runs so, and one that was interrupted in its teacher's run has no folder.
    may_be_new = in_study or any(not teacher.ready for teacher in teachers)
    if arguments.resume and not may_be_new and not out.exists():
        raise UserError(f"there is no run at {out} to resume; check --out, or leave --resume out")
    # The peak memory of this process is the run's only if nothing else is trained in it.
    is_only_run = all(teacher.ready for teacher in teachers) and not RunFolder(out).finished
    wait = STUDY_WAITS_SECONDS if in_study else 0.0
    metrics = train_run(parsed, out, resume=arguments.resume, teachers=teachers, wait=wait)
    if metrics is None:
        print(f"tutelage: {_how_to_go_on(out)}", file=sys.stderr)
        return 130
    if is_main_process():
        if is_only_run:
            write_memory(out)
        print(f"{out}: test {metrics_line(metrics['test'])}  ({metrics['seconds']:.0f} s)")
        fitted = metrics.get("calibration")
        if fitted is not None:
            print(calibration_line(fitted["temperature"], fitted["test"], metrics["test"]))
    return 0


def _train_teachers(arguments: argparse.Namespace, teachers: Sequence[TeacherRun]) -> int:
    """Train the teachers that are not trained, and print where they lie."""
    if arguments.out is not None or arguments.resume:
        raise UserError(
            "--teachers-only trains into --teacher-dir and always goes on where it was; leave "
            "--out and --resume out"
        )
    if not teachers:
        raise UserError(
            f"{arguments.source} names no recipe of a teacher, so there is none to train"
        )
    for teacher in teachers:
        teacher.check_processes()
        if not teacher.train():
            print(f"tutelage: {TEACHER_INTERRUPTED}", file=sys.stderr)
            return 130
        print(teacher.out)
    return 0


def default_out(parsed: ParsedRecipe) -> str:
    """Return runs/<task>-<data>-<method>-seed<seed>, from the last two folders of the recipe."""
    from tutelage.recipes.shipped import shipped_name

    name = shipped_name(parsed.path)
    if name is None:
        path = parsed.path.resolve()
        working = Path.cwd().resolve()
        # The working folder says nothing about the run: own/kd.yaml gives own-kd wherever it lies.
        known = path.relative_to(working) if path.is_relative_to(working) else path
        parts = [*known.parent.parts[-2:], path.stem]
    else:
        parts = name.split("/")
    return f"runs/{'-'.join(parts)}-seed{parsed.config.seed}"


def _how_to_go_on(out: Path) -> str:
    if out.exists():
        return f"interrupted; {out} is saved: add --resume to go on"
    return TEACHER_INTERRUPTED
