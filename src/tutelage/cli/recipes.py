"""Read a recipe: YAML and overrides in, typed objects out. The only place that knows jsonargparse.

Seeding comes between parsing and instantiating, so a student's first weights depend on the recipe's seed alone. A
recipe is code (a class path is imported), so none is ever taken from a weights file.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from accelerate.utils import set_seed
from jsonargparse import ArgumentParser, Namespace

from tutelage.cli.messages import mend
from tutelage.engine import Recipe
from tutelage.errors import UserError


@dataclass
class Parsed:
    """A recipe that is checked but not built yet."""

    path: Path
    parser: ArgumentParser
    config: Namespace

    def text(self) -> str:
        """Return the recipe with every default filled in, as YAML."""
        return str(self.parser.dump(self.config, skip_unset=False))

    def build(self) -> Recipe:
        """Seed, then build the networks, the data, the method."""
        set_seed(self.config.seed)
        try:
            built = self.parser.instantiate(self.config)
        except UserError:
            raise
        except (TypeError, ImportError, FileNotFoundError) as error:
            raise UserError(f"{self.path} cannot be built: {error}") from error
        return Recipe(**{name: built[name] for name in Recipe.__dataclass_fields__})


def parse_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Parsed:
    """Read a recipe file and put the overrides on top.

    Raises:
        UserError: the file is missing or no YAML, a key is unknown, or a value has the wrong type; the message
            names it.
    """
    path = Path(path)
    _readable(path)
    parser = ArgumentParser(exit_on_error=False, prog="tutelage", default_env=False)
    parser.add_class_arguments(Recipe)
    parser.add_argument("--config", action="config")
    try:
        config = parser.parse_args(["--config", str(path), *overrides])
    except (argparse.ArgumentError, TypeError, ValueError) as error:
        raise UserError(f"{path}: {mend(str(error))}") from error
    del config["config"]
    return Parsed(path, parser, config)


def _readable(path: Path) -> None:
    if not path.is_file():
        raise UserError(f"there is no recipe {path}; the shipped ones lie under recipes/<task>/<dataset>/<method>.yaml")
    try:
        content: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no recipe; write keys such as data, task, student, method")
