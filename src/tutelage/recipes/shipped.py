"""Find, list and copy the recipes that come with the package.

Each has a name, its path below this package without the suffix: `classification/digits/rcka`.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path

from tutelage.errors import UserError, near_misses
from tutelage.recipes._text import shorten
from tutelage.recipes._yaml import SETTING, read_merged, settings_of, shown

ROOT = Path(str(resources.files("tutelage.recipes")))
SUFFIXES = (".yaml", ".yml")
RUN_RECIPE = "recipe.yaml"
# What the files of a method were called before.
FORMER_METHODS = {"alone": "baseline", "mimic": "fitnet"}


def shipped_names() -> list[str]:
    """Return the names of all shipped recipes, sorted."""
    return sorted(name for path in ROOT.rglob("*.yaml") if (name := shipped_name(path)))


def shipped_name(path: Path) -> str | None:
    """Return the name of a shipped recipe, or None for any other file."""
    resolved = path.resolve()
    if resolved.name == SETTING or not resolved.is_relative_to(ROOT.resolve()):
        return None
    return resolved.relative_to(ROOT.resolve()).with_suffix("").as_posix()


def label(path: Path) -> str:
    """Return what messages call a recipe: a shipped one by its name, a file by its path."""
    return shipped_name(path) or shown(path)


def find_recipe(name: str | Path, folder: Path | None = None) -> Path:
    """Return the file of a recipe.

    Args:
        name: a file, or the name of a shipped recipe.
        folder: what a relative path starts from; None is the working folder.

    Raises:
        UserError: If there is none, or it is a folder; with the shipped recipes of similar names.
    """
    path = Path(os.path.expanduser(name))
    path = path if folder is None else folder / path
    # Unlike Path.is_file, this raises nothing for a name that is too long or holds a zero byte.
    if os.path.isfile(path):
        return path
    shipped = ROOT / f"{name}.yaml"
    is_name = Path(name).suffix not in SUFFIXES
    if is_name and os.path.isfile(shipped) and shipped_name(shipped):
        return shipped
    _refuse_folder(str(name), path)
    similar = _similar(str(name), shipped_names())
    raise UserError(
        f"there is no recipe {shorten(label(path))}{similar} `tutelage recipes` lists the shipped "
        "ones; a file of your own is given by its path, such as own/kd.yaml"
    )


def _refuse_folder(name: str, path: Path) -> None:
    """Raise for a folder in place of a recipe: a run's, one of your recipes, or a shipped one."""
    if os.path.isfile(path / RUN_RECIPE):
        raise UserError(f"{name} is the folder of a run; its recipe is {path / RUN_RECIPE}")
    folder = path if os.path.isdir(path) else ROOT / name
    if not os.path.isdir(folder):
        return
    known = methods_in(folder)
    if not known:
        return
    example = f"{name.rstrip('/')}/{known[0]}{'.yaml' if folder == path else ''}"
    raise UserError(
        f"{name} is a folder of recipes; give one of them, such as {example}, or compare them with "
        f"`tutelage study {name}`"
    )


def find_folder(name: str | Path) -> Path:
    """Return a folder of recipes: one of yours, or a shipped one such as classification/digits.

    Raises:
        UserError: If neither holds recipes.
    """
    for folder in (Path(name), ROOT / name):
        if os.path.isdir(folder) and methods_in(folder):
            return folder
    is_recipe = os.path.isfile(name) or os.path.isfile(ROOT / f"{name}.yaml")
    if is_recipe:
        path = Path(name)
        raise UserError(
            f"{name} is one recipe; a study compares those of a folder: give {path.parent}, and "
            f"--methods {path.stem} for this one alone"
        )
    folders = sorted({shipped.rpartition("/")[0] for shipped in shipped_names()})
    raise UserError(
        f"{shorten(str(name))} holds no recipes; give a folder such as classification/digits"
        + near_misses(str(name), folders)
    )


def is_folder(name: str | Path) -> bool:
    """Return whether this is a folder of recipes, one of yours or a shipped one."""
    return any(os.path.isdir(folder) and methods_in(folder) for folder in (Path(name), ROOT / name))


def chosen_methods(folder: Path, names: str | None, called: str) -> list[str]:
    """Return the recipes of a folder that are named, each once; all without names.

    Args:
        folder: of recipes.
        names: with commas, as on the command line.
        called: what the folder is called in messages.

    Raises:
        UserError: If there is no such recipe.
    """
    available = methods_in(folder)
    if names is None:
        return available
    chosen = [name.strip() for name in names.split(",") if name.strip()]
    if not chosen:
        raise UserError(f"--methods is empty; it takes names out of {available}, with commas")
    for name in chosen:
        if name not in available:
            raise UserError(
                f"{called} has no recipe {name}.yaml; "
                f"--methods takes names out of {available}, with commas"
            )
    return list(dict.fromkeys(chosen))


def methods_in(folder: Path) -> list[str]:
    """Return the names of the recipes in a folder that a study compares: all but teachers."""
    stems = (path.stem for path in folder.glob("*.yaml") if path.name != SETTING)
    return sorted(stem for stem in stems if "teacher" not in stem.split("_"))


def first_comment(path: Path) -> str:
    """Return the first comment line of a file."""
    with path.open(encoding="utf-8") as lines:
        comments = (line.lstrip("# ").strip() for line in lines if line.startswith("#"))
        return next(comments, "")


def copy_recipe(name: str, target: Path) -> list[Path]:
    """Copy a shipped recipe, or a folder of them, with the settings and teachers it needs.

    Args:
        name: of the recipe, or of a folder of recipes.
        target: folder to write; files that lie side by side in the package do so in it.

    Returns:
        The copies of the named recipes.

    Raises:
        UserError: If there is no such recipe, or a file is there already; nothing is copied then.
    """
    folder = ROOT / name
    if folder.is_dir() and methods_in(folder):
        chosen = [folder / f"{stem}.yaml" for stem in methods_in(folder)]
    else:
        chosen = [_shipped_file(name)]
    needed = sorted({file for recipe in chosen for file in _needed(recipe)})
    top = Path(os.path.commonpath([file.parent for file in needed]))
    copies = {file: target / file.relative_to(top) for file in needed}
    for copy in copies.values():
        if copy.exists():
            raise UserError(f"{copy} is there already; choose another folder, or remove it")
    for file, copy in copies.items():
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(file.read_bytes())
    return [copies[recipe] for recipe in chosen]


def _shipped_file(name: str) -> Path:
    path = ROOT / f"{name}.yaml"
    if shipped_name(path) is None or not path.is_file():
        raise UserError(
            f"there is no shipped recipe {name}{_similar(name, shipped_names())} "
            "`tutelage recipes` lists them"
        )
    return path


def _needed(recipe: Path) -> set[Path]:
    """Return the files that a shipped recipe is made of: itself, its setting, its teacher's."""
    files = {recipe, *settings_of(recipe)}
    teacher = read_merged(recipe).get("teacher")
    if isinstance(teacher, Mapping) and teacher.get("recipe"):
        path = Path(os.path.normpath(recipe.parent / teacher["recipe"]))
        files |= _needed(path)
    return files


def _similar(name: str, known: Sequence[str]) -> str:
    """Return the shipped names nearest to a wrong one, as the middle of a message."""
    wanted = name.removesuffix(".yaml").removeprefix("recipes/").strip("/")
    folder, _, method = wanted.rpartition("/")
    wanted = f"{folder}/{FORMER_METHODS.get(method, method)}".strip("/")
    # The end of a name is enough: digits/kd for classification/digits/kd.
    ending = [shipped for shipped in known if f"/{shipped}".endswith(f"/{wanted}")]
    if ending:
        return f"; did you mean {ending[:3]}?"
    close = difflib.get_close_matches(wanted, known, n=3, cutoff=0.6)
    return f"; did you mean {close}?" if close else ";"
