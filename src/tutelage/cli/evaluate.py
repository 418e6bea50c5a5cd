"""`tutelage evaluate`: the figures of a finished run's student, from its weights file."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import torch

from tutelage.cli.networks import open_run, run_student
from tutelage.cli.recipes import Parsed
from tutelage.cli.tables import figures_line
from tutelage.core import Network
from tutelage.engine.evaluate import evaluate, mover
from tutelage.engine.loader import evaluation_loader
from tutelage.engine.networks import ready_network
from tutelage.engine.weights import weights_file
from tutelage.errors import UserError


def run(arguments: argparse.Namespace, overrides: list[str]) -> int:
    """Evaluate and print; on the run's own data the figures equal those in its metrics.json."""
    folder = Path(arguments.run_folder)
    parsed, stated = open_run(folder, overrides)
    _without_lost_teacher(parsed)
    recipe = parsed.build()
    if recipe.data.classes != stated["classes"]:
        raise UserError(
            f"the data has the classes {_some(recipe.data.classes)}, but the run learned {_some(stated['classes'])}; "
            "give data with the same classes in the same order"
        )
    if recipe.train.threads is not None:
        torch.set_num_threads(recipe.train.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    teacher = None if recipe.teacher is None else Network(ready_network(recipe.teacher, recipe.data))
    student = run_student(folder, recipe, teacher).to(device)
    splits = recipe.data.splits(recipe.labels, recipe.seed)
    part = splits.test if arguments.part == "test" else splits.validation
    loader = evaluation_loader(part, recipe.task.evaluation_batch, recipe.train.workers)
    figures = evaluate(student, recipe.task, loader, mover(device), teacher)
    print(json.dumps(figures) if arguments.json else f"{arguments.part} {figures_line(figures)}")
    return 0


def _without_lost_teacher(parsed: Parsed) -> None:
    """Take the teacher out of the recipe, with a word, when its weights are not there any more."""
    spec = parsed.config.teacher
    if spec is not None and spec.weights is not None:
        try:
            weights_file(spec.weights)
        except UserError:
            print(f"without agreement and kl: the teacher's weights are not at {spec.weights}", file=sys.stderr)
            parsed.config.teacher = None


def _some(names: list[str]) -> str:
    return str(names) if len(names) <= 10 else f"{str(names[:10])[:-1]}, … {len(names)} in all]"
