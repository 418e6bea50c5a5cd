"""`tutelage evaluate`: the metrics of a finished run's student, from its weights file."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from tutelage.cli._parser import EVALUATE_OVERRIDES, Commands, add_command
from tutelage.errors import UserError

EXAMPLES = """
tutelage evaluate runs/digits-rcka
tutelage evaluate runs/digits-rcka --split validation --json
tutelage evaluate runs/fashion --data.root DIR
"""

FIXED = ("seed", "num_labels", "method")
READING = ("batch_size", "eval_batch_size", "num_workers", "num_threads")


def register(commands: Commands) -> None:
    """Add the command."""
    command = add_command(
        commands,
        "evaluate",
        "evaluate the student of a finished run",
        examples=EXAMPLES,
        overrides=EVALUATE_OVERRIDES,
    )
    command.add_argument("source", metavar="RUN", help="folder of a finished run")
    command.add_argument(
        "--split", choices=("test", "validation"), default="test", help="which part of the data"
    )
    command.add_argument("--json", action="store_true", help="print JSON")
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace, overrides: list[str]) -> int:
    """Evaluate and print; on the run's own data the metrics equal those in its metrics.json."""
    import torch

    from tutelage.cli.metrics_line import calibration_line, metrics_line
    from tutelage.cli.networks import open_run, read_student_info, without_lost_teachers
    from tutelage.deploy.student_record import temperature_of
    from tutelage.engine.calibration import Calibrates
    from tutelage.engine.evaluate import evaluate, evaluation
    from tutelage.engine.finished_run import setup_finished_run

    folder = Path(arguments.source)
    _check_overrides(overrides)
    recipe = without_lost_teachers(open_run(folder, overrides)).build()
    info = recipe.data.input_info(recipe.student.model)
    facts = read_student_info(folder, info)
    _check_classes(info.get("classes"), facts.classes)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    setup, student = setup_finished_run(recipe, folder)
    teacher = setup.teacher if setup.teacher.models() else None
    task, split, loading = recipe.task, arguments.split, setup.eval_loading(device)
    student = student.to(device)
    metrics = evaluate(student, task, setup.parts, evaluation(split, loading, teacher))
    print(json.dumps(metrics) if arguments.json else f"{split} {metrics_line(metrics)}")
    temperature = temperature_of(facts)
    if temperature != 1 and isinstance(task, Calibrates) and not arguments.json:
        # As in the run: without the teacher, which has answered already.
        with task.at_temperature(student, temperature):
            calibrated = evaluate(student, task, setup.parts, evaluation(split, loading))
        print(calibration_line(temperature, calibrated, metrics))
    return 0


def _check_overrides(overrides: Sequence[str]) -> None:
    """Refuse keys that would change nothing here, or that say how the data was split."""
    for option in overrides:
        key = option.partition("=")[0].removeprefix("--")
        section, _, rest = key.partition(".")
        is_of_training = section == "train" and rest not in READING
        if option.startswith("--") and (section in FIXED or is_of_training):
            raise UserError(
                f"{option[:80]} cannot be set for a finished run; what can be set are keys of data "
                f"and teacher, and of train {list(READING)}"
            )


def _check_classes(classes: Sequence[str] | None, learned: Sequence[str] | None) -> None:
    from tutelage.engine.checks.student_facts import shortened

    if classes is not None and learned is not None and list(classes) != list(learned):
        raise UserError(
            f"the data has the classes {shortened(classes)}, but the run learned "
            f"{shortened(learned)}; give data with the same classes in the same order"
        )
