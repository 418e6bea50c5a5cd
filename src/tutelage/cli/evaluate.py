"""`tutelage evaluate`: the figures of a finished run's student, from its weights file."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

from tutelage.cli.recipes import parse_recipe
from tutelage.cli.tables import figures_line
from tutelage.core import Absent
from tutelage.core.normalization import normalize_inputs
from tutelage.engine.assemble import EVALUATION_BATCH
from tutelage.engine.evaluate import evaluate
from tutelage.engine.loader import evaluation_loader
from tutelage.engine.weights import load_weights
from tutelage.errors import UserError


def run(arguments: argparse.Namespace, overrides: list[str]) -> int:
    """Evaluate and print."""
    folder = Path(arguments.run_folder)
    if not (folder / "recipe.yaml").is_file():
        raise UserError(f"{folder} is no run folder (it has no recipe.yaml); give the --out of a finished run")
    parsed = parse_recipe(folder / "recipe.yaml", overrides)
    parsed.config.teacher = None
    recipe = parsed.build()
    student = recipe.method.ship(recipe.method.grow(recipe.student.network, Absent()))
    load_weights(student, folder)
    stated = json.loads((folder / "student.json").read_text())
    if stated["mean"] is not None:
        normalize_inputs(student, stated["mean"], stated["std"])
    splits = recipe.data.splits(recipe.labels, recipe.seed)
    part = splits.test if arguments.part == "test" else splits.validation
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    student.to(device)
    loader = evaluation_loader(part, EVALUATION_BATCH, recipe.train.workers)
    figures = evaluate(student, recipe.task, loader, lambda batch: tuple(x.to(device) for x in batch))
    print(json.dumps(figures) if arguments.json else f"{arguments.part} {figures_line(figures)}")
    return 0
