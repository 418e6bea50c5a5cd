"""`tutelage methods`: what there is."""

from __future__ import annotations

import inspect
import textwrap
from dataclasses import fields

import tutelage.methods
from tutelage.core import Method

WIDTH = 80


def run() -> int:
    """Print every method with its paper, tasks and needs."""
    for name in tutelage.methods.__all__:
        method = vars(tutelage.methods)[name]
        if inspect.isclass(method) and issubclass(method, Method):
            first = (inspect.getdoc(method) or "").splitlines()[0]
            print(textwrap.fill(f"{name}  —  {first}", WIDTH, subsequent_indent="    "))
            for field in fields(method.card):
                line = f"    {field.name:<7} {vars(method.card)[field.name]}"
                print(textwrap.fill(line, WIDTH, subsequent_indent=" " * 12))
    return 0
