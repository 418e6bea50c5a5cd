"""Read a recipe: YAML and overrides in, typed objects out. The only file that knows jsonargparse.

Seeding comes between parsing and building, so that a student's first weights depend on the recipe's
seed alone. A recipe is code (a class path is imported), so none is ever read from a weights file.
"""

from __future__ import annotations

import argparse
import copy
import os
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from importlib import import_module
from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np
import torch
from jsonargparse import ArgumentParser, Namespace

from tutelage.errors import UserError, reason, user_error_behind
from tutelage.recipes._optimizer import default_optimizer
from tutelage.recipes._structure import check_nulls, check_override, check_structure
from tutelage.recipes._text import shorten
from tutelage.recipes._yaml import SETTING, read_merged, settings_of, write_yaml
from tutelage.recipes.config import Recipe, StudentConfig, TrainConfig, check_seed
from tutelage.recipes.messages import explain, unknown_keyword
from tutelage.recipes.own_code import (
    move_keyword,
    overrides_with_own_code,
    with_files,
    with_own_code,
)
from tutelage.recipes.shipped import find_recipe, label, shipped_name

ALIAS = re.compile(r"(^|[\s\[,{:])\*\w")
# The order matters: networks draw their first weights one after the other, the student first.
SECTIONS = ("student", "train", "data", "task", "method", "teacher", "teachers")
# The sections that jsonargparse keeps as groups of keys, where others are objects of their own.
GROUPS = {"student": StudentConfig, "train": TrainConfig}


@dataclass(frozen=True)
class ParsedRecipe:
    """A recipe that is checked but not built yet.

    Attributes:
        path: its file.
        config: its sections, classes as `class_path` and `init_args`.
    """

    path: Path
    config: Namespace
    _parser: ArgumentParser = field(repr=False)
    _files: Mapping[str, Path] = field(repr=False, default_factory=dict)

    @property
    def name(self) -> str:
        """What messages call it: the name of a shipped recipe, or the file."""
        return label(self.path)

    def text(self) -> str:
        """Return the recipe as YAML, with every default filled in."""
        return with_files(self._parser.dump(self.config, skip_unset=False), self._files)

    def monitor(self) -> str:
        """Return the metric by which the recipe's task chooses the best epoch."""
        path = self.config.task.class_path
        module, _, name = path.rpartition(".")
        task = getattr(import_module(module), name)
        if not isinstance(getattr(task, "monitor", None), str):
            raise UserError(
                f"{self.name}: the task {path} has no monitor, the metric by which the best epoch "
                "is chosen; set it in the class, as in monitor = 'top1'"
            )
        return str(task.monitor)

    def replace(self, values: Mapping[str, Any]) -> ParsedRecipe:
        """Return the recipe with other values.

        Args:
            values: by key, such as `seed`, `teacher` or `teacher.weights`; sections as in `config`.
        """
        config = copy.deepcopy(self.config)
        for key, value in values.items():
            config[key] = value
        return ParsedRecipe(self.path, config, self._parser, self._files)

    def teachers(self) -> dict[str, Namespace]:
        """Return the sections of its teachers by key: `teacher`, or `teachers.<name>`."""
        if self.config.teacher is not None:
            return {"teacher": self.config.teacher}
        several = self.config.teachers or {}
        return {f"teachers.{name}": section for name, section in several.items()}

    def build(self) -> Recipe:
        """Seed, then build the networks, the data and the method.

        Raises:
            UserError: If a constructor raises; the message names its section.
        """
        check_seed(self.config.seed)
        _set_seed(self.config.seed)
        sections = {name: self._build(name) for name in SECTIONS}
        try:
            return Recipe(**sections, num_labels=self.config.num_labels, seed=self.config.seed)
        except UserError as error:
            raise UserError(f"{self.name}: {error}") from error

    def _build(self, name: str) -> Any:
        """Return the object that a section describes."""
        section = Namespace({name: self.config[name]})
        try:
            built = self._parser.instantiate(section, instantiate_groups=False)[name]
            if name not in GROUPS:
                return built
            group = GROUPS[name]
            return group(**{key.name: built[key.name] for key in fields(group)})
        except UserError as error:
            raise UserError(f"{self.name}: {self._blame(name)}: {error}") from error
        except Exception as error:
            mistake = user_error_behind(error)  # the parser has words of its own for a union
            if mistake is not None:
                raise UserError(f"{self.name}: {mistake}") from error
            raise UserError(
                f"{self.name}: {self._blame(name)} cannot be built: {reason(error)}"
            ) from error

    def _blame(self, name: str) -> str:
        """Return a section with the class that it builds."""
        section = self.config[name]
        if isinstance(section, Namespace):
            section = section.get("model", section)
        path = section.get("class_path") if isinstance(section, Namespace) else None
        return f"{name} ({path})" if path else name


def load_recipe(name: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Return a recipe, built: data, networks, method.

    Args:
        name: a file, or the name of a shipped recipe such as `classification/digits/rcka`.
        overrides: as on the command line, such as `["--train.epochs", "3"]`.

    Raises:
        UserError: If there is no such recipe, or it has a mistake; the message says where.
    """
    return parse_recipe(name, overrides).build()


def parse_recipe(
    name: str | Path,
    overrides: Sequence[str] = (),
    *,
    folder: Path | None = None,
) -> ParsedRecipe:
    """Read a recipe and put the overrides on top.

    Args:
        name: a file, or the name of a shipped recipe.
        overrides: as on the command line.
        folder: what a relative path starts from; None is the working folder.

    Raises:
        UserError: If the file is missing or not YAML, a key is unknown or given twice, or a value
            has the wrong type; the message names it.
    """
    path = find_recipe(name, folder)
    return parse_content(read_merged(path), path, overrides)


def parse_content(
    content: dict[str, Any], path: Path, overrides: Sequence[str] = ()
) -> ParsedRecipe:
    """Read a recipe from a mapping, and put the overrides on top.

    Args:
        content: the recipe as it was read, with its settings.
        path: of the file that it is from.
        overrides: as on the command line.

    Raises:
        UserError: As `parse_recipe`.
    """
    try:
        check_structure(content)
        content, files = with_own_code(content, path.absolute().parent)
    except UserError as error:
        raise UserError(f"{_files(path)}: {error}") from error
    # YAML reads the word no as false; here it is the value that is called so.
    if content.get("train", {}).get("precision") is False:
        content["train"] = {**content["train"], "precision": "no"}
    _check_overrides(overrides, content)
    overrides, others = overrides_with_own_code(overrides)
    files |= others
    parser = ArgumentParser(
        exit_on_error=False,
        prog="tutelage",
        default_env=False,
        allow_abbrev=False,
    )
    parser.add_class_arguments(Recipe)
    parser.add_argument("--config", action="config")
    default = default_optimizer(content, overrides)
    arguments = [*default, "--config", write_yaml(content)]
    try:
        config = _parse(parser, content, default, overrides)
    except (argparse.ArgumentError, TypeError, ValueError, RecursionError) as error:
        where = "on the command line" if overrides and _parses(parser, arguments) else _files(path)
        raise UserError(f"{where}: {explain(str(error))}") from error
    except Exception as error:  # of a user's own file that a class path names
        raise UserError(
            f"{label(path)}: a class path cannot be imported: {reason(error)}"
        ) from error
    del config["config"]
    _refuse_nulls(config, path)
    parsed = ParsedRecipe(path, config, parser, files)
    for key, teacher in parsed.teachers().items():
        if teacher.recipe is not None:
            is_override = any(option.startswith(f"--{key}.recipe") for option in overrides)
            start = Path.cwd() if is_override else path.parent
            teacher.recipe = _independent_of_folder(teacher.recipe, start)
    return parsed


def _parse(
    parser: ArgumentParser, content: dict[str, Any], default: list[str], overrides: Sequence[str]
) -> Namespace:
    """Parse; what a function hands on to another one is moved to where it is not checked."""
    while True:
        try:
            return parser.parse_args([*default, "--config", write_yaml(content), *overrides])
        except (argparse.ArgumentError, TypeError, ValueError) as error:
            owner, name = unknown_keyword(str(error))
            if owner is None or name is None or not move_keyword(content, owner, name):
                raise


def _check_overrides(overrides: Sequence[str], content: Mapping[str, Any]) -> None:
    """Refuse options that are no keys of a recipe, and aliases, which can grow without bound."""
    for position, option in enumerate(overrides):
        name, equals, value = option.partition("=")
        if not equals:
            value = "".join(overrides[position + 1 : position + 2])
        try:
            check_override(name, value, content)
        except UserError as error:
            raise UserError(f"on the command line: {error}") from error
        if ALIAS.search(option):
            raise UserError(
                f"on the command line: {shorten(option)} holds an alias of YAML; write it out"
            )
        if option.partition("=")[0] in ("--config", "--print_config"):
            raise UserError(
                f"{option} is no key of a recipe; give one recipe, and keys such as "
                "--train.epochs 3"
            )


def _refuse_nulls(config: Namespace, path: Path) -> None:
    """Refuse keys that are null though their type does not allow it, which the parser lets pass."""
    sections = {"": (Recipe, config), "train.": (TrainConfig, config.train)}
    for prefix, (section, values) in sections.items():
        hints = get_type_hints(section)
        optional = [name for name, hint in hints.items() if type(None) in get_args(hint)]
        known = {name: values[name] for name in hints if name in values}
        try:
            check_nulls(known, optional, prefix)
        except UserError as error:
            raise UserError(f"{_files(path)}: {error}") from error


def _independent_of_folder(recipe: str, folder: Path) -> str:
    """Return a recipe that is named relative to a folder so that it is found from anywhere."""
    path = folder / recipe
    if not os.path.isfile(path):  # no error for a name that is too long
        return recipe
    return shipped_name(path) or str(path.absolute())


def _parses(parser: ArgumentParser, arguments: list[str]) -> bool:
    try:
        parser.parse_args(arguments)
    except (argparse.ArgumentError, TypeError, ValueError, RecursionError):
        return False
    return True


def _files(path: Path) -> str:
    """Return the file or files in which a mistake can be."""
    return f"{label(path)} (with its {SETTING})" if settings_of(path) else label(path)


def _set_seed(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
