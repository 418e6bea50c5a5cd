"""Look into what a class path names, for messages."""

from __future__ import annotations

import inspect
from importlib import import_module


def arguments_of(path: str) -> list[str]:
    """Return the names of the arguments of a class or function."""
    module, _, name = path.rpartition(".")
    try:
        return list(inspect.signature(getattr(import_module(module), name)).parameters)
    except (ImportError, AttributeError, TypeError, ValueError):
        return []


def takes_any(path: str) -> bool:
    """Return whether a class or function takes any keyword, so that no name of it is wrong."""
    module, _, name = path.rpartition(".")
    try:
        parameters = inspect.signature(getattr(import_module(module), name)).parameters.values()
    except (ImportError, AttributeError, TypeError, ValueError):
        return False
    return any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters)


def public_names(module: str) -> list[str]:
    """Return the names of a module that are meant to be used."""
    return [name for name in dir(import_module(module)) if not name.startswith("_")]
