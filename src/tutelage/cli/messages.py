"""Turn the parser's messages into one sentence that names the key and its nearest neighbours."""

from __future__ import annotations

import inspect
import re
from importlib import import_module

from tutelage.engine import Recipe
from tutelage.engine.recipe import Student, TeacherNetwork, Training
from tutelage.errors import near_misses

GROUPS = {"student": Student, "teacher": TeacherNetwork, "train": Training}


def mend(message: str) -> str:
    """Return the message as one line, with the options that were perhaps meant.

    >>> mend("Group 'train' does not accept option 'epochz'")
    "train has no key 'epochz'; did you mean ['epochs', 'warmup_epochs']?"
    >>> mend("Option 'tran.epochs' is not accepted")
    "the recipe has no key 'tran'; did you mean ['train', 'task']?"
    """
    line = " ".join(message.split())
    group = re.fullmatch(r"Group '([\w.]+)' does not accept option '([\w.]+)'", line)
    if group:
        known = inspect.signature(GROUPS.get(group[1].split(".")[0], Recipe)).parameters
        return f"{group[1]} has no key '{group[2]}'{near_misses(group[2], known)}"
    option = re.fullmatch(r"Option '([\w]+)[\w.]*' is not accepted", line)
    if option:
        return f"the recipe has no key '{option[1]}'{near_misses(option[1], inspect.signature(Recipe).parameters)}"
    inner = re.search(r"class_path '([\w.]+)': (?:Parser key .*?: )?Option '(\w+)' is not accepted", line)
    if inner:
        return f"{inner[1]} has no argument '{inner[2]}'{near_misses(inner[2], _arguments(inner[1]))}"
    name = re.search(r"class_path '([\w.]+)': module '([\w.]+)' has no attribute '(\w+)'", line)
    if name:
        return f"{name[2]} has no '{name[3]}'{near_misses(name[3], _names(name[2]))}"
    return line


def _arguments(path: str) -> list[str]:
    module, _, name = path.rpartition(".")
    try:
        return list(inspect.signature(vars(import_module(module))[name]).parameters)
    except (ImportError, KeyError, TypeError, ValueError):
        return []


def _names(module: str) -> list[str]:
    return [name for name in vars(import_module(module)) if not name.startswith("_")]
