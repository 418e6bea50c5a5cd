"""Recipes: typed sections filled from YAML, and the recipes that come with the package."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tutelage._lazy import lazy_names

if TYPE_CHECKING:
    from tutelage.recipes.config import Recipe, StudentConfig, TeacherConfig, TrainConfig
    from tutelage.recipes.read import ParsedRecipe, load_recipe, parse_recipe
    from tutelage.recipes.shipped import copy_recipe, find_recipe, shipped_names
else:
    __getattr__, __dir__ = lazy_names(__name__)

__all__ = [
    "ParsedRecipe",
    "Recipe",
    "StudentConfig",
    "TeacherConfig",
    "TrainConfig",
    "copy_recipe",
    "find_recipe",
    "load_recipe",
    "parse_recipe",
    "shipped_names",
]
