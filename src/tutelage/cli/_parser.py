"""The argument parser, and how a command joins it."""

from __future__ import annotations

import argparse
import re
import textwrap
from typing import NoReturn, TypeAlias

from tutelage.errors import UserError, near_misses

OVERRIDES = (
    "Any key of the recipe can be set behind it, such as\n"
    "  --seed 1 --num_labels 1000 --train.epochs 3 --method.temperature 2"
)
STUDY_OVERRIDES = (
    "Keys that all its recipes have, but the seed, can be set behind it, such as\n"
    "  --num_labels 1000 --train.epochs 3 --student.model.width 8"
)
EVALUATE_OVERRIDES = (
    "Where data and teacher lie, and how fast data is read, can be set behind it:\n"
    "  --data.root DIR --teacher.weights FILE --train.eval_batch_size 512"
)
FORMER_COMMANDS = {"bench": "study"}
CHOICE = re.compile(r"argument (\w+): invalid choice: '(.*?)' \(choose from (.*)\)")


class Parser(argparse.ArgumentParser):
    """A parser whose errors are a user's mistakes: one sentence, no usage."""

    def error(self, message: str) -> NoReturn:
        """Raise a mistake as a sentence."""
        match = CHOICE.match(message)
        if match:
            if match[2] in FORMER_COMMANDS:
                present = FORMER_COMMANDS[match[2]]
                raise UserError(f"there is no command '{match[2]}'; it is '{present}'")
            names = re.findall(r"\w+", match[3])
            raise UserError(
                f"there is no {match[1].lower()} '{match[2]}'{near_misses(match[2], names)}"
            )
        raise UserError(f"{message.removeprefix('argument ')}; see {self.prog} --help")

    def option_names(self) -> list[str]:
        """Return its options but --help."""
        names = [name for action in self._actions for name in action.option_strings]
        return [name for name in names if name not in ("-h", "--help")]


Commands: TypeAlias = "argparse._SubParsersAction[Parser]"


def add_command(
    commands: Commands,
    name: str,
    summary: str,
    *,
    examples: str,
    overrides: str | None = None,
) -> Parser:
    """Add a command and return its parser.

    Args:
        commands: of the parser above it.
        name: of the command.
        summary: one sentence without its capital and full stop.
        examples: lines of command lines.
        overrides: which keys of a recipe may follow, in words; None is none.
    """
    description = textwrap.fill(f"{summary[0].upper()}{summary[1:]}.", 78)
    if overrides is not None:
        description += f"\n{overrides}"
    command = commands.add_parser(
        name,
        help=summary,
        description=description,
        epilog="examples:\n" + textwrap.indent(examples.strip(), "  "),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    command.set_defaults(parser=command, takes_overrides=overrides is not None)
    return command


def add_recipe(command: Parser) -> None:
    """Add the argument for a recipe."""
    command.add_argument(
        "source", metavar="RECIPE", help="name of a shipped recipe, or a YAML file"
    )


def add_teacher_dir(command: Parser) -> None:
    """Add the option for the folder of the teachers' runs."""
    command.add_argument(
        "--teacher-dir",
        default="runs/teachers",
        metavar="DIR",
        help="folder of the runs of teachers that are trained by a recipe (default: runs/teachers)",
    )


def add_ray(command: Parser) -> None:
    """Add the option for a Ray cluster; without an address it is the empty string."""
    command.add_argument(
        "--ray",
        nargs="?",
        const="",
        metavar="ADDRESS",
        help="use a Ray cluster; without an address, this machine's",
    )
