"""The recipes of any folder with many seeds, paired by seed, compared in the task's own metric.

The runs of one share are done one after the other in this process, and a finished run is not
repeated; start several shares to use several cores, then `--collect` writes
benchmarks/results/<name>.json. A variant is a recipe with overrides of its own, such as
`--variant "pcka, intra 30=pcka,--method.intra_weight=30"`. Hyper-parameters are chosen with
`--first 100`, by the metric on validation data, never by that on test data.

python -m benchmarks.recipe_study segmentation/mni152 --methods baseline pcka ssim --seeds 3
python -m benchmarks.recipe_study segmentation/mni152 --methods baseline pcka ssim --collect
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import PurePosixPath

from benchmarks.studies import (
    STUDY_DIR,
    Study,
    Variants,
    recipes_as_they_are,
    run_share,
    study_result,
)
from benchmarks.timing import result_path, write_result


def argument_parser() -> argparse.ArgumentParser:
    """Return the parser of this script."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", help="of shipped recipes, such as segmentation/mni152")
    parser.add_argument(
        "--methods", nargs="+", default=[], help="recipes of the folder, without .yaml"
    )
    parser.add_argument(
        "--variant", action="append", default=[], help="NAME=RECIPE,OVERRIDE,OVERRIDE…"
    )
    parser.add_argument("--option", action="append", default=[], help="an override of all recipes")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument(
        "--share", default="0/1", help="which runs: k/n takes every n-th from the k-th on"
    )
    parser.add_argument(
        "--name", help="of the result and of the runs' folder; default: the recipes' folder"
    )
    parser.add_argument("--collect", action="store_true", help="write the result, run nothing")
    parser.add_argument("--out", help="file of the result; default: in benchmarks/results")
    return parser


def parse_variant(text: str) -> Variants:
    """Return the variant of NAME=RECIPE,OVERRIDE,OVERRIDE….

    >>> parse_variant("pcka, intra 30=pcka,--method.intra_weight=30")
    {'pcka, intra 30': ('pcka', ['--method.intra_weight=30'])}
    """
    name, _, rest = text.partition("=")
    recipe, *overrides = rest.split(",")
    return {name: (recipe, overrides)}


def main(argv: Sequence[str] | None = None) -> None:
    """Run a share, or collect."""
    arguments = argument_parser().parse_args(argv)
    variants = recipes_as_they_are(*arguments.methods)
    for text in arguments.variant:
        variants |= parse_variant(text)
    name = arguments.name or PurePosixPath(arguments.folder).name
    result = result_path(name, arguments.out)
    study = Study(arguments.folder, variants, arguments.option, result)
    out = STUDY_DIR / name
    seeds = range(arguments.first, arguments.first + arguments.seeds)
    if arguments.collect:
        print(write_result(name, study_result(study, out, seeds), arguments.out))
    else:
        run_share({out: study}, seeds, arguments.share)


if __name__ == "__main__":
    main()
