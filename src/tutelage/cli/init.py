"""`tutelage init`: recipes for a folder of one's own."""

from __future__ import annotations

import argparse
from pathlib import Path
from shlex import quote

from tutelage.cli._parser import Commands, add_command

EXAMPLES = """
tutelage init data/pets
tutelage init data/street --out street --layout masks
"""


def register(commands: Commands) -> None:
    """Add the command."""
    command = add_command(
        commands,
        "init",
        "look at a folder of your data, and write recipes that fit it",
        examples=EXAMPLES,
    )
    command.add_argument("folder", metavar="FOLDER", help="your data; or one table")
    command.add_argument(
        "--out", default="mine", metavar="DIR", help="folder of the recipes (default: mine)"
    )
    command.add_argument(
        "--layout", metavar="NAME", help="how the folder is laid out, where several ways fit"
    )
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace, overrides: list[str]) -> int:
    """Look, write, and print what was found and the next commands."""
    from tutelage.recipes.starter import look_at, write_recipes

    found = look_at(arguments.folder, arguments.layout)
    paths = write_recipes(found, arguments.out)
    print(found.describe())
    print(f"written: {', '.join(str(path) for path in paths)}")
    print("all share _setting.yaml, where comments say what to change")
    name = Path(arguments.out).resolve().name
    print(f"next: tutelage plan {quote(str(paths[0]))}")
    print(f"      tutelage study {quote(arguments.out)} --seeds 3 --out {quote(f'runs/{name}')}")
    return 0
