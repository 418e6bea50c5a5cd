"""`tutelage methods`: list the available methods, and say with which one to start."""

from __future__ import annotations

import argparse
import inspect
import textwrap
from typing import TYPE_CHECKING

from tutelage.cli._parser import Commands, add_command
from tutelage.cli.evidence import START

if TYPE_CHECKING:
    from tutelage.core import Method

WIDTH = 80


def register(commands: Commands) -> None:
    """Add the command."""
    command = add_command(
        commands,
        "methods",
        "list the methods: with which to start, and what each needs",
        examples="tutelage methods",
    )
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace, overrides: list[str]) -> int:
    """Print with what to start, and every method with its class path, paper, tasks and needs."""
    import tutelage.methods
    from tutelage.core import Method

    print("Start with this (docs/results.md):")
    for task, (name, measured) in START.items():
        print(_fact(task, measured if name is None else f"{name}: {measured}", 15))
    print()
    for name in sorted(tutelage.methods.__all__, key=str.lower):
        value = getattr(tutelage.methods, name)
        if inspect.isclass(value) and issubclass(value, Method):
            print("\n".join(_describe(name, value)))
    return 0


def _describe(name: str, method: type[Method]) -> list[str]:
    summary = (inspect.getdoc(method) or "").splitlines()[0]
    info = method.info
    facts = {"class": f"tutelage.methods.{name}"}
    paper = method.__module__.split(".")[2]
    if not paper.startswith("_"):  # what papers share has no page
        facts["page"] = f"docs/methods/{paper}.md"
    facts |= {"paper": info.paper, "tasks": info.tasks, "needs": info.needs, "trains": info.trains}
    tasks = [task for task, (first, _) in START.items() if first == name]
    if tasks:
        facts["start"] = f"with this for {' and '.join(tasks)}"
    if method.search_space:
        facts["tunes"] = ", ".join(searched.name for searched in method.search_space)
    if info.caution:
        facts["caution"] = info.caution
    lines = [textwrap.fill(f"{name}  —  {summary}", WIDTH, subsequent_indent="    ")]
    return lines + [_fact(title, fact, 7) for title, fact in facts.items()]


def _fact(title: str, fact: str, width: int) -> str:
    """Return a line, or several, with a title before them."""
    line = f"    {title:<{width}} {fact}"
    indent = " " * (width + 5)
    return textwrap.fill(line, WIDTH, subsequent_indent=indent, break_on_hyphens=False)
