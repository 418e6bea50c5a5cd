"""Look into what a class path names, for messages."""

from __future__ import annotations

import inspect
from importlib import import_module


def says_no_type(path: str) -> bool:
    """Return whether a function does not say what it returns, so that its kind is unknown."""
    module, _, name = path.rpartition(".")
    try:
        value = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError):
        return False
    if not inspect.isfunction(value):
        return False
    return inspect.signature(value).return_annotation is inspect.Signature.empty


def lacks_of(path: str) -> str:
    """Return what an abstract class does not define, for messages."""
    module, _, name = path.rpartition(".")
    try:
        lacking = getattr(import_module(module), name).__abstractmethods__
    except (ImportError, AttributeError, ValueError):
        return "all that it must"
    return " and ".join(sorted(lacking))


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
