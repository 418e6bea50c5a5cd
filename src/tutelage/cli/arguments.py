"""The commands and their options; the rest of the line overrides the recipe, such as `--train.epochs 3`."""

from __future__ import annotations

import argparse
import re
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn, TypeAlias

from tutelage import __version__
from tutelage.errors import UserError, near_misses

OVERRIDES = (
    "Any key of the recipe can be set behind it, such as\n"
    "  --seed 1 --labels 1000 --train.epochs 3 --data.root DIR --method.temperature 2"
)


class Parser(argparse.ArgumentParser):
    """A parser whose errors are a user's mistakes: one sentence, no usage."""

    def error(self, message: str) -> NoReturn:
        """Raise a mistake as a sentence."""
        unknown = re.match(r"argument COMMAND: invalid choice: '(.*?)' \(choose from (.*)\)", message)
        if unknown:
            names = re.findall(r"\w+", unknown[2])
            raise UserError(f"there is no command '{unknown[1]}'{near_misses(unknown[1], names)}")
        raise UserError(f"{message.removeprefix('argument ')}; see {self.prog} --help")


def parse(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Return the command's options and the overrides of the recipe.

    Raises:
        UserError: the command line is wrong.
    """
    parser = _parser()
    arguments, overrides = parser.parse_known_args(list(argv))
    command = arguments.command or ""
    if overrides and not arguments.takes_overrides:
        raise UserError(f"{f'tutelage {command}'.strip()} does not know {' '.join(overrides)}; see its --help")
    first = next((str(vars(arguments)[name]) for name in ("recipe", "run_folder", "recipes") if name in arguments), "")
    behind = [word for word in overrides if not word.startswith("-") and Path(word).exists()]
    if behind and first and not Path(first).exists():
        raise UserError(f"{behind[0]} comes before all keys: tutelage {command} {behind[0]} --key value")
    return arguments, overrides


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="tutelage",
        allow_abbrev=False,
        description="Knowledge distillation in PyTorch: train a small network from a large one.",
        epilog="examples:\n"
        "  tutelage train recipes/classification/digits/rcka.yaml --out runs/rcka\n"
        "  tutelage train --help",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"tutelage {__version__}")
    parser.set_defaults(run=lambda arguments, overrides: _help(parser), takes_overrides=False)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    _train(commands)
    _evaluate(commands)
    _plan(commands)
    _methods(commands)
    _bench(commands)
    _compare(commands)
    _report(commands)
    _prepare(commands)
    return parser


def _help(parser: argparse.ArgumentParser) -> int:
    parser.print_help(sys.stderr)
    return 2


Commands: TypeAlias = "argparse._SubParsersAction[Parser]"


def _add(commands: Commands, name: str, tell: str, examples: str, overrides: bool = False) -> Parser:
    command = commands.add_parser(
        name,
        help=tell,
        description=textwrap.fill(tell[0].upper() + tell[1:] + ".", 78) + (f"\n{OVERRIDES}" if overrides else ""),
        epilog=f"examples:\n{examples}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    command.set_defaults(takes_overrides=overrides)
    return command


def _train(commands: Commands) -> None:
    command = _add(
        commands,
        "train",
        "train the student of a recipe (and its teacher first, if the recipe says how)",
        "  tutelage train recipes/classification/digits/rcka.yaml --out runs/digits-rcka\n"
        "  tutelage train recipes/classification/digits/rcka.yaml --seed 1 --resume\n"
        "  tutelage train recipes/classification/fashion-mnist/kd.yaml --data.root DIR\n"
        "  accelerate launch --num_processes 2 -m tutelage train RECIPE --out runs/two",
        overrides=True,
    )
    command.add_argument("recipe", help="YAML file")
    command.add_argument("--out", help="run folder (default: runs/<task>-<dataset>-<method>-seed<seed>)")
    command.add_argument("--resume", action="store_true", help="go on from the last checkpoint in --out")
    command.add_argument("--teachers", default="runs/teachers", help="where teachers made from a recipe are kept")
    command.set_defaults(run=_run_train)


def _evaluate(commands: Commands) -> None:
    command = _add(
        commands,
        "evaluate",
        "evaluate the student of a finished run",
        "  tutelage evaluate runs/digits-rcka\n"
        "  tutelage evaluate runs/digits-rcka --part validation --json\n"
        "  tutelage evaluate runs/fashion --data.root DIR",
        overrides=True,
    )
    command.add_argument("run_folder", metavar="RUN", help="folder of a finished run")
    command.add_argument("--part", choices=("test", "validation"), default="test", help="which part of the data")
    command.add_argument("--json", action="store_true", help="print JSON")
    command.set_defaults(run=_run_evaluate)


def _plan(commands: Commands) -> None:
    command = _add(
        commands,
        "plan",
        "dry run: taps with shapes, connectors, extra parameters, predicted step time; trains nothing",
        "  tutelage plan recipes/classification/fashion-mnist/rcka.yaml\n"
        "  tutelage plan recipes/classification/digits/kd.yaml --train.batch_size 128",
        overrides=True,
    )
    command.add_argument("recipe", help="YAML file")
    command.add_argument("--teachers", default="runs/teachers", help="where teachers made from a recipe are kept")
    command.set_defaults(run=_run_plan)


def _methods(commands: Commands) -> None:
    command = _add(commands, "methods", "list the methods: paper, task, what they need", "  tutelage methods")
    command.set_defaults(run=_run_methods)


def _bench(commands: Commands) -> None:
    command = _add(
        commands,
        "bench",
        "compare methods: the recipes of one folder, several seeds, each run in a fresh process",
        "  tutelage bench recipes/classification/digits --methods alone,kd --out runs/a\n"
        "  tutelage bench recipes/classification/digits --seeds 5 --jobs 2 --out runs/b\n"
        "  tutelage bench recipes/classification/fashion-mnist --labels 4000 --out runs/c",
        overrides=True,
    )
    command.add_argument("recipes", help="folder that holds <method>.yaml and teacher.yaml")
    command.add_argument("--methods", help="names of recipes, with commas; `alone` is the baseline (default: all)")
    command.add_argument("--seeds", type=int, default=3, help="seeds 0 … N-1 (default 3)")
    command.add_argument("--out", required=True, help="folder of the study; finished runs in it are kept")
    command.add_argument("--jobs", type=int, default=1, help="runs at the same time (default 1)")
    command.add_argument("--teachers", default="runs/teachers", help="where teachers made from a recipe are kept")
    command.set_defaults(run=_run_bench)


def _compare(commands: Commands) -> None:
    command = _add(
        commands,
        "compare",
        "layer × layer CKA of two networks on the same images, with intervals and verdicts",
        "  tutelage compare runs/teachers/digits-teacher-… runs/digits-rcka\n"
        "  tutelage compare runs/a runs/b --data recipes/classification/digits/kd.yaml\n"
        "  tutelage compare runs/a runs/b --layers-left stage1,stage2 --out runs/ab",
    )
    command.add_argument(
        "left", metavar="LEFT", help="folder of a finished run, or a recipe (its student as it starts)"
    )
    command.add_argument("right", metavar="RIGHT", help="the same for the columns")
    command.add_argument("--data", metavar="RECIPE", help="recipe whose data gives the images (default: LEFT's)")
    command.add_argument("--part", choices=("test", "validation", "train"), default="test", help="default: test")
    command.add_argument("--samples", type=int, default=512, help="number of images (default 512)")
    command.add_argument("--layers-left", metavar="A,B", help="modules by name (default: found by themselves)")
    command.add_argument("--layers-right", metavar="A,B", help="the same for RIGHT")
    command.add_argument("--permutations", type=int, default=100, help="pairings for the p-values (default 100)")
    command.add_argument("--out", default="runs/compare", help="folder to write (default: runs/compare)")
    command.set_defaults(run=_run_compare)


def _report(commands: Commands) -> None:
    command = _add(
        commands,
        "report",
        "write one HTML page from the folder of a run, a study or a comparison",
        "  tutelage report runs/demo\n"
        "  tutelage report runs/digits-rcka --out rcka.html\n"
        "  tutelage report runs/compare --out map.svg",
    )
    command.add_argument("folder", metavar="FOLDER", help="what `train`, `bench` or `compare` wrote to its --out")
    command.add_argument(
        "--out", help="file: .html for the page, .png or .svg for its heat maps (default: FOLDER/report.html)"
    )
    command.set_defaults(run=_run_report)


def _prepare(commands: Commands) -> None:
    command = _add(
        commands,
        "prepare",
        "make a data set of what a package or an archive holds, in a standard format; whole or not at all",
        "  tutelage prepare deepforest --out data/deepforest --size 256 --stride 128\n"
        "  tutelage prepare voc --source VOCdevkit/VOC2012 --out data/voc\n"
        "  tutelage prepare mni152 --out data/mni152 --seed 1",
    )
    command.add_argument("what", metavar="WHAT", help="deepforest, voc (boxes in XML), mni152 or tuxpaint")
    command.add_argument("--out", required=True, help="folder to make")
    command.add_argument("--source", help="folder to read, for voc")
    command.add_argument("--size", type=int, help="side of the images in pixels (deepforest, tuxpaint)")
    command.add_argument("--stride", type=int, help="between the training tiles' corners (deepforest)")
    command.add_argument("--seed", type=int, help="of what is drawn at random (mni152, tuxpaint)")
    command.set_defaults(run=_run_prepare)


def _run_prepare(arguments: argparse.Namespace, overrides: list[str]) -> int:
    from tutelage.cli.prepare import run

    return run(arguments)


def _run_train(arguments: argparse.Namespace, overrides: list[str]) -> int:
    from tutelage.cli.train import run

    return run(arguments, overrides)


def _run_evaluate(arguments: argparse.Namespace, overrides: list[str]) -> int:
    from tutelage.cli.evaluate import run

    return run(arguments, overrides)


def _run_plan(arguments: argparse.Namespace, overrides: list[str]) -> int:
    from tutelage.cli.plan import run

    return run(arguments, overrides)


def _run_methods(arguments: argparse.Namespace, overrides: list[str]) -> int:
    from tutelage.cli.methods import run

    return run()


def _run_bench(arguments: argparse.Namespace, overrides: list[str]) -> int:
    from tutelage.cli.bench import run

    return run(arguments, overrides)


def _run_compare(arguments: argparse.Namespace, overrides: list[str]) -> int:
    from tutelage.cli.compare import run

    return run(arguments)


def _run_report(arguments: argparse.Namespace, overrides: list[str]) -> int:
    from tutelage.cli.report import run

    return run(arguments)
