"""`tutelage plan`: a dry run in plain words."""

from __future__ import annotations

import argparse
from pathlib import Path

from tutelage.cli._parser import OVERRIDES, Commands, add_command, add_recipe, add_teacher_dir

EXAMPLES = """
tutelage plan classification/fashion-mnist/rcka
tutelage plan classification/digits/kd --train.batch_size 128
"""


def register(commands: Commands) -> None:
    """Add the command."""
    command = add_command(
        commands,
        "plan",
        "dry run: layers, shapes, loss scales, time; trains nothing",
        examples=EXAMPLES,
        overrides=OVERRIDES,
    )
    add_recipe(command)
    add_teacher_dir(command)
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace, overrides: list[str]) -> int:
    """Plan and print."""
    from tutelage.cli.plan_text import describe
    from tutelage.cli.teachers import resolve_teachers, without_weights
    from tutelage.engine import plan
    from tutelage.recipes import parse_recipe

    parsed = parse_recipe(arguments.source, overrides)
    parsed, teachers = resolve_teachers(parsed, Path(arguments.teacher_dir))
    parsed = without_weights(parsed, teachers)
    text = describe(plan(parsed.build()))
    if any(not teacher.ready for teacher in teachers):
        print("the teacher has no weights yet: values below are those of an untrained teacher\n")
    elif any(teacher.weights is None for teacher in parsed.teachers().values()):
        print("teacher.weights is not given: the teacher has the weights that its model loads\n")
    print(text)
    return 0
