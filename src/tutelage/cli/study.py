"""`tutelage study`: methods × seeds, each run in a fresh process, one table at the end."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tutelage.cli._parser import STUDY_OVERRIDES, Commands, add_command, add_ray, add_teacher_dir
from tutelage.errors import UserError

EXAMPLES = """
tutelage study classification/digits --methods baseline,kd --out runs/a
tutelage study classification/digits --seeds 5 --jobs 2 --out runs/b
tutelage study own --num_labels 4000 --out runs/c --ray 10.0.0.1:6379
"""


def register(commands: Commands) -> None:
    """Add the command."""
    command = add_command(
        commands,
        "study",
        "compare methods: the recipes of a folder, with several seeds",
        examples=EXAMPLES,
        overrides=STUDY_OVERRIDES,
    )
    command.add_argument(
        "source",
        metavar="FOLDER",
        help="folder of recipes: a shipped one such as classification/digits, or your own",
    )
    command.add_argument(
        "--methods", help="names of recipes, with commas; `baseline` is the baseline (default: all)"
    )
    command.add_argument("--seeds", type=int, default=3, help="seeds 0 … N-1 (default 3)")
    command.add_argument(
        "--out", required=True, help="folder of the study; finished runs in it are kept"
    )
    command.add_argument("--jobs", type=int, help="runs at the same time (default 1)")
    add_ray(command)
    command.add_argument(
        "--cpus-per-run", type=int, metavar="N", help="of a run with --ray (default 1)"
    )
    command.add_argument(
        "--gpus-per-run",
        type=float,
        metavar="N",
        help="of a run with --ray (default: 1 if there are any)",
    )
    add_teacher_dir(command)
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace, overrides: list[str]) -> int:
    """Check everything, train the teachers once, then all runs; write the table and the picture."""
    from tutelage.cli.study_files import draw_study, with_earlier_runs, write_study
    from tutelage.cli.study_runs import common_monitor, method_runs, run_missing
    from tutelage.recipes.shipped import chosen_methods, find_folder

    _check_numbers(arguments)
    if any(option.partition("=")[0] == "--seed" for option in overrides):
        raise UserError("study gives every run its seed; say how many with --seeds")
    folder = find_folder(arguments.source)
    out = Path(arguments.out)
    methods = chosen_methods(folder, arguments.methods, arguments.source)
    parts = [method_runs(folder / f"{method}.yaml", arguments, overrides) for method in methods]
    monitor = common_monitor(parts)
    with_earlier_runs(out, methods, arguments.seeds, monitor)  # refuses before anything runs
    try:
        if not run_missing(parts, arguments, overrides):
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        print(
            "tutelage: interrupted; what is done is kept: give the same command to go on",
            file=sys.stderr,
        )
        return 130
    methods, seeds = with_earlier_runs(out, methods, arguments.seeds, monitor)
    print(write_study(out, methods, seeds, monitor), flush=True)
    print("\n" + "  ".join(str(path) for path in (out / "results.json", *draw_study(out, methods))))
    return 0


def _check_numbers(arguments: argparse.Namespace) -> None:
    numbers = {
        "--seeds": arguments.seeds,
        "--jobs": arguments.jobs,
        "--cpus-per-run": arguments.cpus_per_run,
    }
    for name, value in numbers.items():
        if value is not None and value < 1:
            raise UserError(f"{name} must be at least 1, got {value}")
    gpus = arguments.gpus_per_run
    # Ray shares one GPU among runs, but gives a run no part of a second one.
    if gpus is not None and not (0 <= gpus <= 1 or (gpus > 1 and gpus.is_integer())):
        raise UserError(f"--gpus-per-run must be 0 to 1 or a whole number, got {gpus:g}")
    if arguments.ray is None:
        for name in ("--cpus-per-run", "--gpus-per-run"):
            if getattr(arguments, name[2:].replace("-", "_")) is not None:
                raise UserError(f"{name} is for runs on a cluster; add --ray, or leave it out")
    elif arguments.jobs is not None:
        raise UserError("--ray starts as many runs as there is room for; leave --jobs out")
