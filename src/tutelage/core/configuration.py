"""An object's configuration: the arguments of its constructor, with the values that it stored under their names."""

from __future__ import annotations

import inspect


def configuration(thing: object) -> str:
    """Return `name=value, …` for every argument of the constructor that the object stored.

    >>> class Dial:
    ...     def __init__(self, angle: float = 0.5) -> None:
    ...         self.angle, self.turns = angle, 3
    >>> configuration(Dial())
    'angle=0.5'
    """
    stored = vars(thing)
    return ", ".join(f"{name}={stored[name]!r}" for name in inspect.signature(type(thing)).parameters if name in stored)
