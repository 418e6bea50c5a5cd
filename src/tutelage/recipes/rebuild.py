"""What student.json keeps of a recipe, so that the student can be built again without it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tutelage.errors import UserError
from tutelage.recipes._yaml import read_yaml
from tutelage.recipes.config import Recipe
from tutelage.recipes.read import parse_content

SECTIONS = ("data", "task", "method", "student")


def student_sections(path: Path) -> dict[str, Any] | None:
    """Return the sections of a resolved recipe that say what its student is and how it is used.

    They are class paths and arguments; data is not read by them, only described.

    Args:
        path: the recipe.yaml of a run.

    Returns:
        The sections by name; None for a recipe that was made in Python, whose networks have no
        class path.
    """
    try:
        content = read_yaml(path)
    except UserError:  # the repr of a recipe in Python
        return None
    if not all(isinstance(content.get(name), Mapping) for name in SECTIONS):
        return None
    sections = {name: content[name] for name in SECTIONS if name != "student"}
    return {**sections, "student": {"model": content["student"].get("model")}}


def build_student_recipe(sections: Mapping[str, Any], path: Path) -> Recipe:
    """Return the recipe that `student_sections` kept, built; it has no teacher and no weights.

    Args:
        sections: from student.json.
        path: of that file, for messages.

    Raises:
        UserError: If a class path cannot be imported, or does not take its arguments.
    """
    return parse_content(dict(sections), path).build()
