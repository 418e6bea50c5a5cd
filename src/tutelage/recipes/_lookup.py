"""Look into what a class path names, for messages."""

from __future__ import annotations

import inspect
from importlib import import_module
from typing import Any


def resolve(path: str) -> Any:
    """Return what a class path names, also a method of a class; None if it cannot be imported."""
    names = path.split(".")
    for count in range(len(names) - 1, 0, -1):
        try:
            value: Any = import_module(".".join(names[:count]))
        except Exception:  # of a user's own file, too; the parser says so
            continue
        for name in names[count:]:
            value = getattr(value, name, None)
        return value
    return None


def says_no_type(path: str) -> bool:
    """Return whether a function does not say what it returns, so that its kind is unknown."""
    value = resolve(path)
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
    try:
        return list(inspect.signature(resolve(path)).parameters)
    except (TypeError, ValueError):
        return []


def takes_any(path: str) -> bool:
    """Return whether a class or function takes any keyword, so that no name of it is wrong."""
    try:
        parameters = inspect.signature(resolve(path)).parameters.values()
    except (TypeError, ValueError):
        return False
    return any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters)


def public_names(module: str) -> list[str]:
    """Return the names of a module that are meant to be used."""
    return [name for name in dir(import_module(module)) if not name.startswith("_")]
