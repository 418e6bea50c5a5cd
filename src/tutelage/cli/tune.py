"""`tutelage tune`: choose a method and its numbers by trials on validation data."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

from tutelage.cli._parser import STUDY_OVERRIDES, Commands, add_command, add_teacher_dir
from tutelage.errors import UserError

if TYPE_CHECKING:
    from tutelage.engine.teacher_run import TeacherRun
    from tutelage.tune.candidates import Candidate
    from tutelage.tune.folder import TuneFolder
    from tutelage.tune.records import TrialRecord

EXAMPLES = """
tutelage tune classification/digits/kd --trials 20 --out runs/tune-kd
tutelage tune classification/digits --methods kd,rcka,dist --out runs/tune
"""
OVERRIDES = STUDY_OVERRIDES.replace(", but the seed,", "")
INTERRUPTED = "interrupted; what is done is kept: give the same command to go on"


def register(commands: Commands) -> None:
    """Add the command."""
    command = add_command(
        commands,
        "tune",
        "choose a method and its numbers by trials on validation data",
        examples=EXAMPLES,
        overrides=OVERRIDES,
    )
    command.add_argument(
        "source", metavar="RECIPE", help="a recipe, shipped or a YAML file, or a folder of them"
    )
    command.add_argument(
        "--methods",
        help="names of recipes beside it, with commas (default: it alone; of a folder, all)",
    )
    command.add_argument(
        "--trials", type=int, default=20, help="in all, earlier ones included (default 20)"
    )
    command.add_argument(
        "--out", required=True, help="folder of the search; the same command goes on with it"
    )
    add_teacher_dir(command)
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace, overrides: list[str]) -> int:
    """Check everything, train the teachers once, run the trials; write the best recipe."""
    from tutelage.cli.teachers import check_before_training
    from tutelage.cli.tune_text import outcome_text
    from tutelage.engine.trial import check_has_validation, check_one_process
    from tutelage.tune.folder import TuneFolder
    from tutelage.tune.search import check_installed

    if arguments.trials < 1:
        raise UserError(f"--trials must be at least 1, got {arguments.trials}")
    check_installed()
    check_one_process()
    candidates, teachers = _candidates(arguments, overrides)
    if arguments.trials < len(candidates):
        raise UserError(
            f"--trials {arguments.trials} is less than one for each of {len(candidates)} methods; "
            "give more trials, or fewer --methods"
        )
    folder = TuneFolder(Path(arguments.out))
    folder.check(candidates)
    check_has_validation(candidates[0].recipe.build())
    for candidate in candidates:
        check_before_training(candidate.recipe, teachers[candidate.name])
    try:
        if not all(run.train() for runs in teachers.values() for run in runs):
            raise KeyboardInterrupt
        records, best, baseline = _search(folder, candidates, arguments.trials)
    except KeyboardInterrupt:
        print(f"tutelage: {INTERRUPTED}", file=sys.stderr)
        return 130
    monitor = candidates[0].source.monitor()
    print(outcome_text(records, best, baseline, monitor))
    _print_next(folder, arguments)
    return 0


def _candidates(
    arguments: argparse.Namespace, overrides: list[str]
) -> tuple[list[Candidate], dict[str, list[TeacherRun]]]:
    """Return the recipes to choose from, and the runs of the teachers of each by its name."""
    from tutelage.cli.teachers import resolve_teachers
    from tutelage.recipes import parse_recipe
    from tutelage.tune.candidates import Candidate, check_comparable, check_has_numbers

    candidates, teachers = [], {}
    paths = _recipes(arguments)
    for path in paths:
        source = parse_recipe(path, overrides)
        recipe, runs = resolve_teachers(source, Path(arguments.teacher_dir))
        candidate = Candidate.of(path.stem, source, recipe)
        if candidate.numbers or arguments.methods is not None or len(paths) == 1:
            check_has_numbers(candidate)
            candidates.append(candidate)
            teachers[candidate.name] = runs
    if not candidates:
        raise UserError(f"no recipe of {arguments.source} has a method with numbers to tune")
    check_comparable(candidates)
    return candidates, teachers


def _recipes(arguments: argparse.Namespace) -> list[Path]:
    """Return the files of the recipes to choose from."""
    from tutelage.recipes.shipped import chosen_methods, find_folder, find_recipe, is_folder

    if is_folder(arguments.source):
        folder = find_folder(arguments.source)
        own = None
    else:
        own = find_recipe(arguments.source)
        folder = own.parent
    if arguments.methods is None and own is not None:
        return [own]
    names = chosen_methods(folder, arguments.methods, str(folder if own else arguments.source))
    return [folder / f"{name}.yaml" for name in names]


def _search(
    folder: TuneFolder, candidates: list[Candidate], wanted: int
) -> tuple[list[TrialRecord], TrialRecord, float]:
    """Run the trials and write the outcome; a folder without any trial that ended is removed."""
    from tutelage.cli.tune_text import TrialLines
    from tutelage.report import write_report
    from tutelage.tune.baseline import baseline_score
    from tutelage.tune.outcome import write_outcome
    from tutelage.tune.runner import run_search

    seed = int(candidates[0].source.config.seed)
    is_new = not folder.path.exists()
    lines = TrialLines(wanted, candidates[0].source.monitor())
    try:
        with folder.claimed(candidates):
            lines.begin_baseline()
            baseline = baseline_score(folder, candidates[0])
            lines.end_baseline(baseline)
            records = run_search(folder, candidates, wanted, seed, lines)
            best = write_outcome(folder, candidates, records, baseline, seed)
            write_report(folder.path, folder.path / "report.html")
    except UserError:
        if is_new and not lines.count:
            folder.discard()
        raise
    finally:
        lines.close()
    return records, best, baseline


def _print_next(folder: TuneFolder, arguments: argparse.Namespace) -> None:
    """Print the files, and the command that compares the best recipe."""
    files = (folder.best, folder.outcome, folder.path / "report.html")
    print("\n" + "  ".join(map(str, files)))
    teachers = arguments.teacher_dir
    where = "" if teachers == "runs/teachers" else f" --teacher-dir {quote(teachers)}"
    print("the best of many flatters itself; with other seeds, on test data, beside the baseline:")
    source, out = quote(str(folder.path)), quote(f"{folder.path}-study")
    print(f"  tutelage study {source} --seeds 5 --out {out}{where}")
