"""`tutelage compare`: which layers of two networks agree on the same data, and how reliably."""

from __future__ import annotations

import argparse
from pathlib import Path

from tutelage.cli._parser import Commands, add_command
from tutelage.errors import UserError

EXAMPLES = """
tutelage compare runs/teachers/digits-teacher-… runs/digits-rcka
tutelage compare runs/a runs/b --data classification/digits/kd
tutelage compare runs/a runs/b --layers-left stage1,stage2 --out runs/ab
"""


def register(commands: Commands) -> None:
    """Add the command."""
    command = add_command(
        commands,
        "compare",
        "compare the layers of two networks by CKA, with verdicts",
        examples=EXAMPLES,
    )
    command.add_argument(
        "left",
        metavar="LEFT",
        help="folder of a finished run, or a recipe (its student as it starts)",
    )
    command.add_argument("right", metavar="RIGHT", help="the same for the columns")
    command.add_argument(
        "--data", metavar="RECIPE", help="recipe whose data both see (default: LEFT's)"
    )
    command.add_argument(
        "--split", choices=("test", "validation", "train"), default="test", help="default: test"
    )
    command.add_argument("--num-samples", type=int, default=512, metavar="N", help="default: 512")
    command.add_argument(
        "--layers-left", metavar="A,B", help="modules by name (default: found by themselves)"
    )
    command.add_argument("--layers-right", metavar="A,B", help="the same for RIGHT")
    command.add_argument(
        "--permutations", type=int, default=100, help="pairings for the p-values (default: 100)"
    )
    command.add_argument(
        "--out", default="runs/compare", help="folder to write (default: runs/compare)"
    )
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace, overrides: list[str]) -> int:
    """Compare, write the folder, print each left layer's closest partner."""
    from tutelage.cli.layer_comparison import compare_networks

    out = Path(arguments.out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} is there already; choose another --out")
    if arguments.num_samples < 4:
        raise UserError(f"--num-samples must be at least 4, got {arguments.num_samples}")
    if arguments.permutations < 0:
        raise UserError(f"--permutations must be at least 0, got {arguments.permutations}")
    if arguments.permutations < 0:
        raise UserError(f"--permutations must be at least 0, got {arguments.permutations}")
    print(compare_networks(arguments, out))
    print(f"\n{out}/report.html  {out}/compare.csv  {out}/compare.json")
    return 0
