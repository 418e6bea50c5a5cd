"""Write the recipes for a folder of one's own."""

from __future__ import annotations

import os
from pathlib import Path

from tutelage.errors import UserError
from tutelage.io import expanded, write_text
from tutelage.recipes.starter import classification, dense, ranking_recipes
from tutelage.recipes.starter.found import Found

WRITERS = {
    "classification": classification.texts,
    "multi-label classification": classification.texts,
    "detection": dense.detection,
    "segmentation": dense.segmentation,
    "retrieval": ranking_recipes.retrieval,
    "recommendation": ranking_recipes.recommendation,
}


def recipe_texts(found: Found) -> dict[str, str]:
    """Return the recipes for a folder: name of the file -> its content.

    `_setting.yaml` comes first, then the method to start with.

    Args:
        found: what the folder holds.
    """
    return WRITERS[found.task](found)


def write_recipes(found: Found, out: str | Path) -> list[Path]:
    """Write the recipes for a folder, and return their paths, that to start with first.

    Args:
        found: what the folder holds.
        out: folder to make or to add to.

    Raises:
        UserError: If one of the files is there; nothing is written then.
    """
    folder = expanded(out)
    texts = recipe_texts(found)
    for name in texts:
        if os.path.lexists(folder / name):
            raise UserError(
                f"{folder / name} is there already, and nothing is overwritten; choose another "
                "--out, or remove it"
            )
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        write_text(folder / name, text)
    return [folder / name for name in texts if not name.startswith("_")]
