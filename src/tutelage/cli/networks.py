"""The networks that commands work on: students of finished runs, or of recipes as they start."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from tutelage.engine.checks.student_facts import FIX, StudentFacts, read_student_facts
from tutelage.engine.finished_run import setup_finished_run
from tutelage.engine.setup import ready_network
from tutelage.engine.weights import weights_file
from tutelage.errors import UserError
from tutelage.recipes import ParsedRecipe, Recipe, parse_recipe


@dataclass(frozen=True)
class LoadedNetwork:
    """A network that is ready to use.

    Attributes:
        network: with its weights and its input normalization.
        recipe: what it was made by.
        is_trained: False for the student of a recipe that names no weights.
    """

    network: nn.Module
    recipe: Recipe
    is_trained: bool


def load_network(source: str) -> LoadedNetwork:
    """Return the student of a run folder, or the student that a recipe starts from.

    Raises:
        UserError: If it is neither, or the run is not finished.
    """
    folder = Path(source)
    if folder.is_dir():
        recipe = without_teachers(open_run(folder)).build()
        _, student = setup_finished_run(recipe, folder)
        return LoadedNetwork(student, recipe, is_trained=True)
    recipe = without_teachers(parse_recipe(source)).build()
    network = ready_network(recipe.student, recipe.data, "student")
    return LoadedNetwork(network, recipe, is_trained=recipe.student.weights is not None)


def open_run(folder: Path, overrides: Sequence[str] = ()) -> ParsedRecipe:
    """Return the recipe of a finished run.

    Raises:
        UserError: If there is no finished run.
    """
    recipe = folder / "recipe.yaml"
    if not recipe.is_file():
        raise UserError(f"{folder} is no run folder (it has no recipe.yaml); {FIX}")
    weights_file(folder)
    return parse_recipe(recipe, overrides)


def read_student_info(folder: Path, expected: Mapping[str, Any]) -> StudentFacts:
    """Return what student.json of a finished run says about the inputs of the student.

    Args:
        folder: of the run.
        expected: what the data says now; all its keys are needed.

    Raises:
        UserError: If the file is missing, damaged or incomplete.
    """
    facts = read_student_facts(folder)
    if facts is None:
        path = folder / "student.json"
        raise UserError(f"{path} cannot be read (there is no such file); {FIX}")
    missing = [key for key in expected if key not in facts.entries]
    if missing:
        raise UserError(f"{facts.path} cannot be read (it lacks {missing}); {FIX}")
    return facts


def without_teachers(parsed: ParsedRecipe) -> ParsedRecipe:
    """Return a recipe without its teachers."""
    return parsed.replace({"teacher": None, "teachers": None})


def without_lost_teachers(parsed: ParsedRecipe) -> ParsedRecipe:
    """Return a recipe without its teachers, and warn, if weights of one are missing."""
    for teacher in parsed.teachers().values():
        if teacher.weights is None:
            continue
        try:
            weights_file(teacher.weights)
        except UserError:
            print(
                "without agreement and teacher_kl: the teacher's weights are not at "
                f"{teacher.weights}",
                file=sys.stderr,
            )
            return without_teachers(parsed)
    return parsed
