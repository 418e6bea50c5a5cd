"""The networks that commands work on: the student of a finished run, or the one that a recipe starts from."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from tutelage.cli.recipes import Parsed, parse_recipe
from tutelage.core import Absent, Network
from tutelage.engine import Recipe
from tutelage.engine.networks import ready_network
from tutelage.engine.weights import load_weights, weights_file
from tutelage.errors import UserError


@dataclass(frozen=True)
class Loaded:
    """A network that is ready to use.

    Attributes:
        network: with its weights and its input normalisation.
        recipe: what it was made by.
        trained: False for a recipe's network without weights.
    """

    network: nn.Module
    recipe: Recipe
    trained: bool


def load_network(source: str | Path) -> Loaded:
    """Return the student of a run folder, or the student that a recipe starts from.

    Raises:
        UserError: it is neither, or the run is not finished.
    """
    path = Path(source)
    if path.is_dir():
        parsed, _ = open_run(path)
        parsed.config.teacher = None
        recipe = parsed.build()
        return Loaded(run_student(path, recipe, None), recipe, trained=True)
    parsed = parse_recipe(path)
    parsed.config.teacher = None
    recipe = parsed.build()
    return Loaded(ready_network(recipe.student, recipe.data), recipe, trained=recipe.student.weights is not None)


def open_run(folder: Path, overrides: list[str] | None = None) -> tuple[Parsed, dict[str, Any]]:
    """Return the recipe of a finished run and what it says of its student (student.json).

    Raises:
        UserError: there is no finished run.
    """
    if not (folder / "recipe.yaml").is_file():
        raise UserError(f"{folder} is no run folder (it has no recipe.yaml); give the --out of a finished run")
    weights_file(folder)
    path = folder / "student.json"
    try:
        stated: dict[str, Any] = json.loads(path.read_text())
        if not {"mean", "std", "classes"} <= set(stated):
            raise ValueError("it lacks mean, std or classes")
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{path} cannot be read ({error}); give the --out of a finished run") from error
    return parse_recipe(folder / "recipe.yaml", overrides or []), stated


def run_student(folder: Path, recipe: Recipe, teacher: Network | None) -> nn.Module:
    """Return the shipped student of a run: made by its recipe as it was for training, with its weights."""
    recipe.student.weights = None  # what it started from, and may be gone
    student = ready_network(recipe.student, recipe.data)
    student = recipe.method.ship(recipe.method.grow(student, teacher or Absent()))
    load_weights(student, folder)
    return student
