"""`tutelage methods`: list the available methods."""

from __future__ import annotations

import argparse
import inspect
import textwrap
from typing import TYPE_CHECKING

from tutelage.cli._parser import Commands, add_command

if TYPE_CHECKING:
    from tutelage.core import Method

WIDTH = 80


def register(commands: Commands) -> None:
    """Add the command."""
    command = add_command(
        commands,
        "methods",
        "list the methods: paper, task, what they need",
        examples="tutelage methods",
    )
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace, overrides: list[str]) -> int:
    """Print every method with its paper, tasks and needs."""
    import tutelage.methods
    from tutelage.core import Method

    for name in sorted(tutelage.methods.__all__, key=str.lower):
        value = getattr(tutelage.methods, name)
        if inspect.isclass(value) and issubclass(value, Method):
            print("\n".join(_describe(name, value)))
    return 0


def _describe(name: str, method: type[Method]) -> list[str]:
    summary = (inspect.getdoc(method) or "").splitlines()[0]
    info = method.info
    facts = {"paper": info.paper, "tasks": info.tasks, "needs": info.needs, "trains": info.trains}
    if info.caution:
        facts["caution"] = info.caution
    lines = [textwrap.fill(f"{name}  —  {summary}", WIDTH, subsequent_indent="    ")]
    for title, fact in facts.items():
        line = f"    {title:<7} {fact}"
        lines.append(textwrap.fill(line, WIDTH, subsequent_indent=" " * 12))
    return lines
