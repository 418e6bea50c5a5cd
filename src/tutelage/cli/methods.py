"""`tutelage methods`: what there is."""

from __future__ import annotations

import inspect
from dataclasses import fields

import tutelage.methods
from tutelage.core import Method


def run() -> int:
    """Print every method with its paper, tasks and needs."""
    for name in tutelage.methods.__all__:
        method = vars(tutelage.methods)[name]
        if inspect.isclass(method) and issubclass(method, Method):
            first = (inspect.getdoc(method) or "").splitlines()[0]
            card = method.card
            print(f"{name}  —  {first}")
            for field in fields(card):
                print(f"    {field.name:<7} {vars(card)[field.name]}")
    return 0
