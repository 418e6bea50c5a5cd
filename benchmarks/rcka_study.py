"""RCKA, its parts and its ablations against the student alone, KD and mimicking: many seeds, paired.

The runs of one share are done one after the other in this process; start several shares to use several cores, then
`--collect` writes benchmarks/results/rcka_<name>.json. Weights were chosen on validation data with other seeds.

python -m benchmarks.rcka_study fashion-1000 --share 0/2 &  python -m benchmarks.rcka_study fashion-1000 --share 1/2
python -m benchmarks.rcka_study fashion-1000 --collect
"""

from __future__ import annotations

import argparse

from benchmarks.studies import STUDIES as FOLDER
from benchmarks.studies import Study, Variants, gather, run_share
from benchmarks.timing import write_result

MAIN: Variants = {
    "alone": ("alone", []),
    "kd": ("kd", []),
    "mimic": ("mimic", []),
    "rcka": ("rcka", []),
    "lcka": ("rcka", ["--method.feature=null"]),
    "fcka": ("rcka", ["--method.intra=null", "--method.inter=null"]),
    "rcka_kd": ("rcka_kd", []),
}
OFFICIAL = ["--method.center=false", "--method.feature=1"]
ABLATIONS: Variants = {
    "rcka, uncentred": ("rcka", ["--method.center=false"]),
    "rcka, rows not scaled": ("rcka", ["--method.scale=null"]),
    "rcka, no ramp": ("rcka", ["--method.ramp=null"]),
    "rcka, official weights": ("rcka", OFFICIAL),
    "rcka, official weights, no ramp": ("rcka", [*OFFICIAL, "--method.ramp=null"]),
    "lcka, uncentred": ("rcka", ["--method.feature=null", "--method.center=false"]),
    "fcka, uncentred": ("rcka", ["--method.intra=null", "--method.inter=null", "--method.center=false"]),
}


STUDIES = {
    "fashion-1000": Study("classification/fashion-mnist", {**MAIN, **ABLATIONS}),
    "fashion-10000": Study(
        "classification/fashion-mnist", MAIN, ["--labels=10000", "--train.epochs=12", "--train.evaluate_every=3"]
    ),
    "digits-100": Study("classification/digits", MAIN),
}


def main() -> None:
    """Run a share, or collect."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study", choices=STUDIES)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--share", default="0/1", help="which runs: k/n takes every n-th from the k-th on")
    parser.add_argument("--collect", action="store_true")
    arguments = parser.parse_args()
    study, out, seeds = STUDIES[arguments.study], FOLDER / arguments.study, range(arguments.seeds)
    if arguments.collect:
        print(write_result(f"rcka_{arguments.study}", gather(study, out, seeds)))
    else:
        run_share({out: study}, seeds, arguments.share)


if __name__ == "__main__":
    main()
