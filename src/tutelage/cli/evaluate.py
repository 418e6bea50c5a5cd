"""`tutelage evaluate`: the figures of a finished run's student, from its weights file."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import torch

from tutelage.cli.recipes import Parsed, parse_recipe
from tutelage.cli.tables import figures_line
from tutelage.core import Absent, Network
from tutelage.core.normalization import normalize_inputs
from tutelage.engine import Recipe
from tutelage.engine.assemble import EVALUATION_BATCH
from tutelage.engine.evaluate import evaluate
from tutelage.engine.loader import evaluation_loader
from tutelage.engine.weights import load_weights, weights_file
from tutelage.errors import UserError


def run(arguments: argparse.Namespace, overrides: list[str]) -> int:
    """Evaluate and print; on the run's own data the figures equal those in its metrics.json."""
    folder = Path(arguments.run_folder)
    if not (folder / "recipe.yaml").is_file():
        raise UserError(f"{folder} is no run folder (it has no recipe.yaml); give the --out of a finished run")
    weights_file(folder)
    stated = _stated(folder)
    parsed = parse_recipe(folder / "recipe.yaml", overrides)
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
    teacher = _teacher(recipe)
    student = recipe.method.ship(recipe.method.grow(recipe.student.network, teacher or Absent())).to(device)
    load_weights(student, folder)
    if stated["mean"] is not None:
        normalize_inputs(student, stated["mean"], stated["std"]).to(device)
    splits = recipe.data.splits(recipe.labels, recipe.seed)
    part = splits.test if arguments.part == "test" else splits.validation
    loader = evaluation_loader(part, EVALUATION_BATCH, recipe.train.workers)
    figures = evaluate(student, recipe.task, loader, lambda batch: tuple(x.to(device) for x in batch), teacher)
    print(json.dumps(figures) if arguments.json else f"{arguments.part} {figures_line(figures)}")
    return 0


def _stated(folder: Path) -> dict[str, Any]:
    path = folder / "student.json"
    try:
        stated: dict[str, Any] = json.loads(path.read_text())
        if not {"mean", "std", "classes"} <= set(stated):
            raise ValueError("it lacks mean, std or classes")
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{path} cannot be read ({error}); give the --out of a finished run") from error
    return stated


def _without_lost_teacher(parsed: Parsed) -> None:
    """Take the teacher out of the recipe, with a word, when its weights are not there any more."""
    spec = parsed.config.teacher
    if spec is not None and spec.weights is not None:
        try:
            weights_file(spec.weights)
        except UserError:
            print(f"without agreement and kl: the teacher's weights are not at {spec.weights}", file=sys.stderr)
            parsed.config.teacher = None


def _teacher(recipe: Recipe) -> Network | None:
    spec = recipe.teacher
    if spec is None or spec.network is None:
        return None
    if spec.weights is not None:
        load_weights(spec.network, spec.weights)
    mean = recipe.data.mean if spec.mean is None else spec.mean
    std = recipe.data.std if spec.std is None else spec.std
    return Network(normalize_inputs(spec.network, mean, std))


def _some(names: list[str]) -> str:
    return str(names) if len(names) <= 10 else f"{str(names[:10])[:-1]}, … {len(names)} in all]"
