"""Packages whose public names are imported when they are first used.

`tutelage --help` and `from tutelage import UserError` need no torch, which takes seconds.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.util import find_spec
from typing import Any


def lazy_names(package: str) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return `__getattr__` and `__dir__` of a package (PEP 562).

    Its names are those of the imports below `if TYPE_CHECKING:`, so that type checkers, which take
    that branch, and Python read one list. Submodules are found as if they had been imported:

        if TYPE_CHECKING:
            from tutelage.methods.kd import KD, kd_loss
        else:
            __getattr__, __dir__ = lazy_names(__name__)

    >>> import tutelage
    >>> tutelage.KD.__module__, "KD" in dir(tutelage)
    ('tutelage.methods.kd', True)
    >>> tutelage.KDD
    Traceback (most recent call last):
    AttributeError: module 'tutelage' has no attribute 'KDD'

    Args:
        package: its `__name__`; it is being imported.
    """
    namespace = vars(sys.modules[package])
    source = namespace["__loader__"].get_source(package)
    origins = dict(_imports_for_type_checkers(source))
    for name, module in origins.items():
        # `from tutelage.data.concat import concat`: once the submodule is imported, by whomever,
        # the package's attribute of that name is the submodule, and nobody asks `__getattr__`.
        if module == f"{package}.{name}":
            namespace[name] = getattr(import_module(module), name)

    def get(name: str) -> Any:
        if name in origins:
            value = getattr(import_module(origins[name]), name)
        elif not name.startswith("__") and find_spec(f"{package}.{name}"):
            value = import_module(f"{package}.{name}")
        else:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        namespace[name] = value  # asked for once
        return value

    def names() -> list[str]:
        return sorted({*namespace, *origins})

    return get, names


def _imports_for_type_checkers(source: str) -> Iterator[tuple[str, str]]:
    """Give (name, module) of all that is imported below `if TYPE_CHECKING:`."""
    for branch in ast.parse(source).body:
        if not (isinstance(branch, ast.If) and ast.unparse(branch.test) == "TYPE_CHECKING"):
            continue
        for node in branch.body:
            if isinstance(node, ast.ImportFrom) and node.module:
                for alias in node.names:
                    is_star = alias.name == "*"
                    found = import_module(node.module).__all__ if is_star else [alias.name]
                    yield from ((name, node.module) for name in found)
