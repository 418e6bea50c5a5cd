"""`tutelage recipes`: list the recipes that come with the package, or copy one to edit."""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

from tutelage.cli._parser import Commands, add_command

EXAMPLES = """
tutelage recipes
tutelage recipes copy classification/digits/rcka own
tutelage recipes copy classification/digits own
"""


def register(commands: Commands) -> None:
    """Add the command."""
    command = add_command(
        commands,
        "recipes",
        "list the shipped recipes, or copy one with all that it needs",
        examples=EXAMPLES,
    )
    command.set_defaults(run=run)
    actions = command.add_subparsers(dest="action", metavar="ACTION")
    copy = add_command(
        actions,
        "copy",
        "copy a shipped recipe, or a folder of them, with its setting and teacher",
        examples="\n".join(EXAMPLES.strip().splitlines()[1:]),
    )
    copy.add_argument("name", metavar="NAME", help="such as classification/digits/rcka")
    copy.add_argument("target", metavar="DIR", help="folder to write; nothing is overwritten")
    copy.set_defaults(run=run_copy)


def run(arguments: argparse.Namespace, overrides: list[str]) -> int:
    """Print the names of all shipped recipes with their first comment lines, by folder."""
    from tutelage.recipes._yaml import SETTING
    from tutelage.recipes.shipped import ROOT, find_recipe, first_comment, shipped_names

    names = shipped_names()
    width = max(map(len, names))
    folder = ""
    for name in names:
        if name.rpartition("/")[0] != folder:
            folder = name.rpartition("/")[0]
            _print_line(f"\n# {first_comment(ROOT / folder / SETTING)}")
        _print_line(f"{name:<{width}}  {first_comment(find_recipe(name))}")
    return 0


def _print_line(line: str) -> None:
    """Print a line, cut where a terminal ends."""
    if sys.stdout.isatty():
        columns = shutil.get_terminal_size().columns
        if len(line) > columns:
            line = f"{line[: columns - 1]}…"
    print(line)


def run_copy(arguments: argparse.Namespace, overrides: list[str]) -> int:
    """Copy, and print the paths of the copied recipes."""
    from tutelage.recipes.shipped import copy_recipe

    for path in copy_recipe(arguments.name, Path(arguments.target)):
        print(path)
    return 0
