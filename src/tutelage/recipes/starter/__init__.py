"""Recipes for a folder of one's own: what it holds is found out, and recipes that fit are written.

`tutelage init` is the command for it.
"""

from __future__ import annotations

from tutelage.recipes.starter.found import Found
from tutelage.recipes.starter.look import look_at
from tutelage.recipes.starter.write import recipe_texts, write_recipes

__all__ = ["Found", "look_at", "recipe_texts", "write_recipes"]
