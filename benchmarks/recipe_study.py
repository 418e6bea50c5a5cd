"""The recipes of any folder with many seeds, paired by seed, compared in the task's own figure.

The runs of one share are done one after the other in this process, and a run that is done is not done again; start
several shares to use several cores, then `--collect` writes benchmarks/results/<name>.json. A variant is a recipe
with options of its own: `--variant "pcka, intra 30=pcka,--method.intra=30"`. Weights are chosen with `--first 100`, by
the validation figure, and never by the test figure.

python -m benchmarks.recipe_study segmentation/mni152 --methods alone mimic pcka ssim --seeds 3
python -m benchmarks.recipe_study segmentation/mni152 --methods alone mimic pcka ssim --seeds 3 --collect
"""

from __future__ import annotations

import argparse
from pathlib import PurePosixPath

from benchmarks.studies import STUDIES, Study, Variants, gather, run_share
from benchmarks.timing import write_result


def main() -> None:
    """Run a share, or collect."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", help="of recipes, such as segmentation/mni152")
    parser.add_argument("--methods", nargs="+", default=[], help="recipes of the folder, without .yaml")
    parser.add_argument("--variant", action="append", default=[], help="NAME=RECIPE,OPTION,OPTION…")
    parser.add_argument("--option", action="append", default=[], help="an option of all recipes")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--share", default="0/1", help="which runs: k/n takes every n-th from the k-th on")
    parser.add_argument("--name", help="of the result and of the runs' folder; default: the recipes' folder")
    parser.add_argument("--collect", action="store_true")
    given = parser.parse_args()
    variants: Variants = {method: (method, []) for method in given.methods}
    for text in given.variant:
        name, _, rest = text.partition("=")
        recipe, *own = rest.split(",")
        variants[name] = (recipe, own)
    study = Study(given.folder, variants, given.option)
    name = given.name or PurePosixPath(given.folder).name
    out, seeds = STUDIES / name, range(given.first, given.first + given.seeds)
    if given.collect:
        print(write_result(name, gather(study, out, seeds)))
    else:
        run_share({out: study}, seeds, given.share)


if __name__ == "__main__":
    main()
