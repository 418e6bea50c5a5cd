"""The command line: its commands and what follows them, which overrides keys of the recipe."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from tutelage import __version__
from tutelage.cli import compare, evaluate, methods, plan, prepare, recipes, report, study, train
from tutelage.cli._parser import Parser
from tutelage.errors import UserError

# Each module has register(commands) and run(arguments, overrides). They import what takes long,
# such as torch, in run only.
COMMANDS = (train, evaluate, plan, study, compare, report, recipes, methods, prepare)

EXAMPLES = """examples:
  tutelage recipes
  tutelage train classification/digits/rcka --out runs/rcka
  tutelage train --help"""


def parse(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Return the command's options, with its `run`, and the overrides of the recipe.

    Raises:
        UserError: If the command line is wrong.
    """
    arguments, overrides = _make_parser().parse_known_args(list(argv))
    if overrides and not arguments.takes_overrides:
        raise UserError(
            f"{arguments.parser.prog} does not know {' '.join(overrides)}; "
            f"its options are {arguments.parser.option_names()}"
        )
    _check_order(arguments, overrides)
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


def _check_order(arguments: argparse.Namespace, overrides: Sequence[str]) -> None:
    """Refuse keys before the recipe: the parser would take a key's value for the recipe."""
    if not arguments.takes_overrides or Path(arguments.source).exists():
        return
    for word in overrides:
        if not word.startswith("-") and Path(word).exists():
            raise UserError(
                f"{word} comes before all keys: {arguments.parser.prog} {word} --key value"
            )
