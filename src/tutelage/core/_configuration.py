"""The `repr` of methods, tasks and data sets: the arguments of their constructors."""

from __future__ import annotations

import inspect


def configuration(thing: object) -> str:
    """Return `name=value, ...` for every constructor argument that the object stored.

    >>> class Dial:
    ...     def __init__(self, angle: float = 0.5) -> None:
    ...         self.angle = angle
    ...         self.turns = 3
    >>> configuration(Dial())
    'angle=0.5'
    """
    stored = vars(thing)
    names = inspect.signature(type(thing)).parameters
    return ", ".join(f"{name}={stored[name]!r}" for name in names if name in stored)
