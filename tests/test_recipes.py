"""Every shipped recipe parses; unknown keys are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from tutelage.cli.recipes import parse_recipe

ROOT = Path(__file__).parents[1]
RECIPES = sorted([*(ROOT / "recipes").rglob("*.yaml"), *(ROOT / "benchmarks").rglob("*.yaml")])


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_recipe_parses_and_its_resolved_form_means_the_same(path: Path, tmp_path: Path) -> None:
    parsed = parse_recipe(path)
    again = tmp_path / "recipe.yaml"
    again.write_text(parsed.text())
    assert parse_recipe(again).text() == parsed.text()


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_recipe_is_short_and_its_teacher_exists(path: Path) -> None:
    lines = [line for line in path.read_text().splitlines() if line.strip() and not line.lstrip().startswith("#")]
    assert len(lines) <= 20
    teacher = parse_recipe(path).config.teacher
    if teacher is not None and teacher.recipe is not None:
        assert (path.parent / teacher.recipe).is_file()


def test_there_are_recipes() -> None:
    assert len(RECIPES) >= 10
