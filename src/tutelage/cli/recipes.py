"""Read a recipe: YAML and overrides in, typed objects out. The only place that knows jsonargparse.

Seeding comes between parsing and instantiating, so a student's first weights depend on the recipe's seed alone. A
recipe is code (a class path is imported), so none is ever taken from a weights file.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml
from accelerate.utils import set_seed
from jsonargparse import ArgumentParser, Namespace

from tutelage.cli.messages import mend
from tutelage.engine import Recipe, Training
from tutelage.engine.probe import reason
from tutelage.engine.recipe import check_seed
from tutelage.errors import UserError

OPTIMIZER = "--train.optimizer"


@dataclass
class Parsed:
    """A recipe that is checked but not built yet."""

    path: Path
    parser: ArgumentParser
    config: Namespace

    def text(self) -> str:
        """Return the recipe with every default filled in, as YAML."""
        return str(self.parser.dump(self.config, skip_unset=False))

    def select(self) -> str:
        """Return the figure by which the recipe's task chooses the best epoch."""
        module, _, name = self.config.task.class_path.rpartition(".")
        return str(vars(import_module(module))[name].select)

    def build(self) -> Recipe:
        """Seed, then build the networks, the data, the method.

        Raises:
            UserError: a constructor raised, or data and task differ in their number of classes.
        """
        check_seed(self.config.seed)
        set_seed(self.config.seed)
        try:
            built = self.parser.instantiate(self.config)
        except Exception as error:
            if isinstance(error, UserError):
                raise UserError(f"{self.path}: {self._culprit(error)}: {error}") from error
            raise UserError(f"{self.path}: {self._culprit(error)} cannot be built: {reason(error)}") from error
        recipe = Recipe(**{name: built[name] for name in Recipe.__dataclass_fields__})
        count = recipe.task.class_count()
        if count is not None and len(recipe.data.classes) != count:
            raise UserError(
                f"{self.path}: the data has {len(recipe.data.classes)} classes, but task.num_classes is {count}; "
                "set it and the networks' num_classes to the data's"
            )
        return recipe

    def _culprit(self, error: Exception) -> str:
        """Return the section whose constructor raises this error, with its class."""
        for name in ("student", *Recipe.__dataclass_fields__):
            section = self.config[name]
            try:
                self.parser.instantiate(Namespace({"student": self.config.student, name: section}))
            except Exception as again:
                if type(again) is type(error) and str(again) == str(error):
                    inner = section.get("network", section) if isinstance(section, Namespace) else None
                    path = inner.get("class_path") if isinstance(inner, Namespace) else None
                    return f"{name} ({path})" if path else name
        return "it"


def parse_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Parsed:
    """Read a recipe file and put the overrides on top.

    Raises:
        UserError: the file is missing or no YAML, a key is unknown or given twice, or a value has the wrong type; the
            message names it.
    """
    path = Path(path)
    content = _read(path)
    parser = ArgumentParser(exit_on_error=False, prog="tutelage", default_env=False, allow_abbrev=False)
    parser.add_class_arguments(Recipe)
    parser.add_argument("--config", action="config")
    arguments = [*_default_optimizer(content, overrides), "--config", str(path)]
    for option in overrides:
        if option.partition("=")[0] in ("--config", "--print_config"):
            raise UserError(f"{option} is no key of a recipe; give one recipe file, and keys such as --train.epochs 3")
    try:
        config = parser.parse_args([*arguments, *overrides])
    except (argparse.ArgumentError, TypeError, ValueError) as error:
        where = "on the command line" if overrides and _parses(parser, arguments) else str(path)
        raise UserError(f"{where}: {mend(str(error))}") from error
    except Exception as error:  # of a user's own file that a class path names
        raise UserError(f"{path}: a class path cannot be imported: {reason(error)}") from error
    del config["config"]
    return Parsed(path, parser, config)


def _parses(parser: ArgumentParser, arguments: list[str]) -> bool:
    try:
        parser.parse_args(arguments)
    except (argparse.ArgumentError, TypeError, ValueError):
        return False
    return True


def _default_optimizer(content: dict[str, Any], overrides: Sequence[str]) -> list[str]:
    """Return the default optimiser as class path and arguments, if neither the recipe nor the line names one.

    The default of the dataclass is a function, which could not be written to the resolved recipe.
    """
    train = content.get("train")
    mine = isinstance(train, dict) and "optimizer" in train
    if mine or any(o.partition("=")[0] in (OPTIMIZER, f"{OPTIMIZER}.class_path") for o in overrides):
        return []
    default = Training().optimizer
    assert isinstance(default, partial)
    path = f"{default.func.__module__}.{default.func.__qualname__}"
    return [OPTIMIZER, json.dumps({"class_path": path, "init_args": default.keywords})]


class _Strict(yaml.SafeLoader):
    """Reads YAML and refuses a key that is given twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            name = str(key.value)
            if name in seen:
                raise yaml.MarkedYAMLError(problem=f"the key '{name}' is given twice", problem_mark=key.start_mark)
            seen.add(name)
        return super().construct_mapping(node, deep)


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise UserError(f"there is no recipe {path}; the shipped ones lie under recipes/<task>/<dataset>/<method>.yaml")
    try:
        content: Any = yaml.load(path.read_text(encoding="utf-8"), _Strict)
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise UserError(f"{path}{line} is not YAML: {error.problem}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no recipe; write keys such as data, task, student, method")
    for name in ("student", "train"):
        if not isinstance(content.get(name, {}), dict):
            raise UserError(f"{path}: {name} must be a mapping of keys, got {content[name]!r}")
    return content
