"""The command line: its commands and what follows them, which overrides keys of the recipe."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from tutelage import __version__
from tutelage.cli import (
    advise,
    cache,
    compare,
    doctor,
    evaluate,
    export,
    init,
    methods,
    plan,
    predict,
    prepare,
    push,
    recipes,
    report,
    study,
    train,
    tune,
)
from tutelage.cli._parser import Parser
from tutelage.errors import UserError

# Each module has register(commands) and run(arguments, overrides). They import what takes long,
# such as torch, in run only.
COMMANDS = (
    init,
    train,
    evaluate,
    predict,
    export,
    push,
    plan,
    advise,
    study,
    tune,
    compare,
    report,
    recipes,
    methods,
    prepare,
    cache,
    doctor,
)

# The recipes of this package; found without importing it, which would import torch.
SHIPPED = Path(__file__).parents[1] / "recipes"
FORMER_OPTIONS = {
    "--part": "--split",
    "--samples": "--num-samples",
    "--teachers": "--teacher-dir",
}

EXAMPLES = """examples:
  tutelage train classification/digits/rcka --out runs/rcka"""


def parse(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Return the command's options, with its `run`, and the overrides of the recipe.

    Raises:
        UserError: If the command line is wrong.
    """
    arguments, overrides = _make_parser().parse_known_args(list(argv))
    if overrides and not arguments.takes_overrides:
        options = arguments.parser.option_names()
        known = f"its options are {options}" if options else "it takes no options"
        raise UserError(
            f"{arguments.parser.prog} does not know {' '.join(overrides)[:200]}; {known}"
        )
    _check_former_options(arguments, overrides)
    _expand_home(arguments)
    _check_order(arguments, overrides, argv)
    return arguments, overrides


def _make_parser() -> Parser:
    parser = Parser(
        prog="tutelage",
        allow_abbrev=False,
        description="Knowledge distillation in PyTorch: train a small network from a large one.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"tutelage {__version__}")
    parser.set_defaults(run=_show_help, parser=parser, takes_overrides=False)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    for module in COMMANDS:
        module.register(commands)
    return parser


def _show_help(arguments: argparse.Namespace, overrides: list[str]) -> int:
    arguments.parser.print_help(sys.stderr)
    return 2


def _expand_home(arguments: argparse.Namespace) -> None:
    """Let `~` be the home folder in paths; a shell does not see to it in `--out=~/runs`."""
    for name, value in vars(arguments).items():
        values = value if isinstance(value, list) else [value]
        expanded = [os.path.expanduser(v) if isinstance(v, str) else v for v in values]
        if expanded != values:
            setattr(arguments, name, expanded if isinstance(value, list) else expanded[0])


def _check_order(
    arguments: argparse.Namespace, overrides: Sequence[str], argv: Sequence[str]
) -> None:
    """Refuse keys before the recipe: the parser took the value of such a key for the recipe."""
    if not arguments.takes_overrides or _exists(arguments.source):
        return
    given = [os.path.expanduser(word) for word in argv]
    before = argv[given.index(arguments.source) - 1]
    if not before.startswith("--") or "=" in before:
        return
    for word in overrides:
        if not word.startswith("-") and _exists(word):
            raise UserError(
                f"{word} comes before all keys: {arguments.parser.prog} {word} --key value"
            )


def _exists(source: str) -> bool:
    """Return whether there is such a file, folder or shipped recipe."""
    places = (Path(source), SHIPPED / source, SHIPPED / f"{source}.yaml")
    return any(os.path.exists(path) for path in places)  # no error for a name that is too long


def _check_former_options(arguments: argparse.Namespace, overrides: Sequence[str]) -> None:
    """Name the present option for a former one that would be taken for a key of the recipe."""
    options = arguments.parser.option_names()
    for position, word in enumerate(overrides):
        value = "".join(overrides[position + 1 : position + 2])
        option = word.partition("=")[0]
        present = FORMER_OPTIONS.get(option)
        is_mapping = value.startswith("{") or "={" in word  # the recipe's key `teachers`
        if present in options and not is_mapping:
            raise UserError(f"there is no option {option}; it is {present}")
