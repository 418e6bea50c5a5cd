"""Resolve the recipes of teachers, and check a recipe before its teacher is trained."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tutelage.engine.dry_run import check_recipe
from tutelage.engine.teacher_run import TeacherRun
from tutelage.errors import UserError
from tutelage.recipes import ParsedRecipe, parse_recipe


def resolve_teachers(
    parsed: ParsedRecipe, teacher_dir: Path
) -> tuple[ParsedRecipe, list[TeacherRun]]:
    """Replace the `recipe` keys of teachers by the models and weights that they lead to.

    `tutelage.engine.fit` does the same for recipes that are built in Python. Here it is done on the
    parsed recipe, so that recipe.yaml of the run folder states the model and the weights.

    Args:
        parsed: the recipe; stays as it is.
        teacher_dir: folder of the teachers' runs.

    Returns:
        The recipe, and the runs that its weights come from, finished or not.

    Raises:
        UserError: If a teacher's recipe cannot be read or has a teacher of its own, or if its
            folder holds another run.
    """
    runs: list[TeacherRun] = []
    values: dict[str, Any] = {}
    for key, teacher in parsed.teachers().items():
        if teacher.recipe is None:
            continue
        if teacher.model is not None:
            raise UserError(
                f"{parsed.name}: {key} has a model and a recipe; give one, "
                "the recipe has a model itself"
            )
        source = _teacher_recipe(parsed, teacher.recipe)
        values[f"{key}.model"] = source.config.student.model
        values[f"{key}.mean"] = source.config.student.mean
        values[f"{key}.std"] = source.config.student.std
        values[f"{key}.recipe"] = None
        if teacher.weights is None:
            run = TeacherRun.of(Path(source.name), source.text(), teacher_dir, source.build)
            values[f"{key}.weights"] = str(run.out)
            runs.append(run)
    return parsed.replace(values), runs


def without_weights(parsed: ParsedRecipe, runs: Sequence[TeacherRun]) -> ParsedRecipe:
    """Return a recipe whose teachers are untrained where their runs are not finished."""
    missing = [str(run.out) for run in runs if not run.ready]
    sections = parsed.teachers().items()
    return parsed.replace(
        {f"{key}.weights": None for key, teacher in sections if teacher.weights in missing}
    )


def check_before_training(parsed: ParsedRecipe, runs: Sequence[TeacherRun]) -> None:
    """Find the mistakes of a recipe and of its teachers' in a second or two.

    Raises:
        UserError: If data, networks, layers or shapes do not fit; the message names the recipe.
    """
    recipes = {parsed.name: parsed.build()}
    for run in runs:
        if not run.ready:
            recipes[run.source] = run.build()
    for name, recipe in recipes.items():
        try:
            check_recipe(recipe)
        except UserError as error:
            raise UserError(f"{name}: {error}") from error


def _teacher_recipe(parsed: ParsedRecipe, name: str) -> ParsedRecipe:
    """Return the recipe of a teacher, on the data of its student's."""
    source = parse_recipe(name, folder=parsed.path.parent)
    if source.teachers():
        raise UserError(
            f"{source.name} has a teacher of its own; train it by itself and give teacher.weights"
        )
    return source.replace({"data": parsed.config.data})
