"""Read YAML strictly, and put a recipe on top of the setting file of its folder."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tutelage.errors import UserError

SETTING = "_setting.yaml"
MAX_BYTES = 1_000_000
MAX_VALUES = 100_000
MAX_DEPTH = 100
TOO_DEEP = f"it is nested more than {MAX_DEPTH} levels deep"
FLOAT = "tag:yaml.org,2002:float"
# YAML 1.1 reads 1e-4 as text; here it is a number, as in jsonargparse.
EXPONENT = re.compile(r"^[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+$")


class _StrictLoader(yaml.SafeLoader):
    """Reads YAML and refuses a key that is given twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            name = str(key.value)
            if name in seen:
                raise yaml.MarkedYAMLError(
                    problem=f"the key '{name}' is given twice", problem_mark=key.start_mark
                )
            seen.add(name)
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """Writes YAML; quotes the texts that `_StrictLoader` would take for numbers."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


_StrictLoader.add_implicit_resolver(FLOAT, EXPONENT, list("-+0123456789"))
_Dumper.add_implicit_resolver(FLOAT, EXPONENT, list("-+0123456789"))


def read_merged(path: Path) -> dict[str, Any]:
    """Return a recipe file on top of the setting files of its folder and those above.

    Raises:
        UserError: If a file is missing or is not YAML, or a key is given twice; with the line.
    """
    content: dict[str, Any] = {}
    for setting in settings_of(path):
        content = merge(content, read_yaml(setting))
    return merge(content, read_yaml(path))


def settings_of(path: Path) -> list[Path]:
    """Return the setting files that a recipe builds on, the outermost first.

    These are the settings of its folder and of the folders above, up to the first that has none.
    """
    settings = []
    folder = path.absolute().parent
    while (folder / SETTING).is_file():
        settings.append(folder / SETTING)
        folder = folder.parent
    return settings[::-1]


def merge(base: Mapping[str, Any], top: Mapping[str, Any]) -> dict[str, Any]:
    """Return `base` with the values of `top`.

    Mappings are merged key by key, but a mapping with another `class_path` replaces the whole:
    its arguments are those of another class. Any other value replaces, also null.

    >>> merge({"a": 1, "b": {"c": 2, "d": 3}}, {"b": {"d": 4}})
    {'a': 1, 'b': {'c': 2, 'd': 4}}
    >>> merge({"m": {"class_path": "A", "init_args": {"x": 1}}}, {"m": {"class_path": "B"}})
    {'m': {'class_path': 'B'}}
    """
    if top.get("class_path", base.get("class_path")) != base.get("class_path"):
        return dict(top)
    result = dict(base)
    for key, value in top.items():
        below = result.get(key)
        if isinstance(below, Mapping) and isinstance(value, Mapping):
            result[key] = merge(below, value)
        else:
            result[key] = value
    return result


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the mapping that a YAML file holds.

    Raises:
        UserError: If it cannot be read or is too large, or a key is given twice; with the line.
    """
    try:
        content = _load(path)
    except UserError:
        raise
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise UserError(f"{shown(path)}{line} is not YAML: {error.problem}") from error
    except RecursionError as error:
        raise UserError(f"{shown(path)} is not a recipe: {TOO_DEEP}") from error
    except (yaml.YAMLError, ValueError, TypeError, OverflowError) as error:
        # ValueError: no UTF-8, a number with too many digits, a date that does not exist.
        problem = " ".join(str(error).split())[:200]
        raise UserError(f"{shown(path)} is not YAML: {problem}") from error
    if not isinstance(content, dict):
        raise UserError(
            f"{shown(path)} holds no recipe; write keys such as data, task, student, method"
        )
    return content


def _load(path: Path) -> Any:
    """Return what a YAML file holds, in bounded time and memory.

    An alias costs nothing to read and much to write out, nested ones without bound; so the size is
    known before anything is built.
    """
    if path.stat().st_size > MAX_BYTES:
        raise UserError(f"{shown(path)} is no recipe: it is larger than {MAX_BYTES // 1000} kB")
    loader = _StrictLoader(path.read_text(encoding="utf-8"))
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        size = _num_values(node, {}, 1)
        if size > MAX_VALUES:
            raise UserError(
                f"{shown(path)} is no recipe: with its aliases written out it holds more than "
                f"{MAX_VALUES} values"
            )
        return loader.construct_document(node)
    finally:
        loader.dispose()


def _num_values(node: yaml.Node, known: dict[int, int], depth: int) -> int:
    """Return the number of values below a node, those of aliases again at each of their places.

    Args:
        node: where to start.
        known: numbers of nodes that were counted already, by identity; 0 while one is counted.
        depth: of the node.
    """
    if depth > MAX_DEPTH:
        raise yaml.YAMLError(TOO_DEEP)
    if id(node) in known:
        if not known[id(node)]:
            raise yaml.YAMLError("an alias stands within its own anchor")
        return known[id(node)]
    known[id(node)] = 0
    children: list[yaml.Node] = []
    if isinstance(node, yaml.SequenceNode):
        children = node.value
    elif isinstance(node, yaml.MappingNode):
        children = [entry for pair in node.value for entry in pair]
    known[id(node)] = 1 + sum(_num_values(child, known, depth + 1) for child in children)
    return known[id(node)]


def write_yaml(content: Mapping[str, Any]) -> str:
    """Return a mapping as YAML that reads back as the same values."""
    return yaml.dump(dict(content), Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def shown(path: Path) -> str:
    """Return a path for messages, relative to the working folder if it lies in it."""
    absolute = Path(os.path.abspath(path))
    working = Path.cwd()
    return str(absolute.relative_to(working) if absolute.is_relative_to(working) else path)
