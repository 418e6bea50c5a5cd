"""Every classification method against the student alone, on like and unlike pairs of networks: seeds, paired.

Recipes as they are. RCKA's weights and DKD's beta had been chosen on validation images of the first study with other
seeds; all other weights are their papers' or their recipe's. Several studies in one call take turns seed by seed, so
that what is cut short stays paired.

python -m benchmarks.method_study fashion-1000 fashion-4000 [--share 0/2] [--seeds 5]
python -m benchmarks.method_study fashion-1000 --collect     # benchmarks/results/methods_fashion-1000.json

For a GPU (Accelerate takes the device that is there): all training images, ResNet-32×4 → ResNet-8×4, 240 epochs:

python -m benchmarks.method_study --profile full [--set train.epochs=120]
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from benchmarks.studies import STUDIES as FOLDER
from benchmarks.studies import Study, Variants, gather, run_share
from benchmarks.timing import write_result


def plain(*names: str) -> Variants:
    """Return recipes as they are."""
    return {name: (name, []) for name in names}


TOKENS = plain("alone", "kd", "dkd", "dist", "ckd", "rcka", "mimic", "ofa", "srd")
ALL: Variants = {**TOKENS, **plain("afd_kd", "rtk", "residual")}  # these three need maps in both networks
DKD_8: Variants = {"dkd_8": ("dkd", ["--method.beta=8"])}  # the CIFAR-100 value, before one was chosen on this data
LIKE: Variants = {**ALL, **DKD_8}
UNLIKE: Variants = {**TOKENS, **DKD_8}
OPEN: Variants = {
    **plain("alone", "kd", "kd_open", "srd_closed", "srd", "srd_logits"),
    "srd_same": ("srd", ["--method.unlabelled={same: 1.0}"]),  # unlabelled images of the classes that have labels
}
RCKA: Variants = {
    **plain("alone", "kd", "mimic", "rcka"),
    "lcka": ("rcka", ["--method.feature=null"]),
    "fcka": ("rcka", ["--method.intra=null", "--method.inter=null"]),
    **plain("rcka_kd"),
}
OFFICIAL = ["--method.center=false", "--method.feature=1"]
RCKA_PARTS: Variants = {
    **RCKA,
    "rcka, uncentred": ("rcka", ["--method.center=false"]),
    "rcka, rows not scaled": ("rcka", ["--method.scale=null"]),
    "rcka, no ramp": ("rcka", ["--method.ramp=null"]),
    "rcka, official weights": ("rcka", OFFICIAL),
    "rcka, official weights, no ramp": ("rcka", [*OFFICIAL, "--method.ramp=null"]),
    "lcka, uncentred": ("rcka", ["--method.feature=null", "--method.center=false"]),
    "fcka, uncentred": ("rcka", ["--method.intra=null", "--method.inter=null", "--method.center=false"]),
}


def balance_name(method: str, factor: float) -> str:
    """Return what a method is called whose labels weigh this many times as much."""
    return f"{method}, labels × {factor}"


def balanced(name: str, factor: float) -> tuple[str, list[str]]:
    """Return a recipe whose supervised loss weighs this many times as much: with Adam, its method that much less."""
    own = 0.1 if name == "kd" else 1.0  # all others of ALL weigh it by 1
    return name, [f"--method.task_weight={factor * own:g}"]


METHODS = [name for name in ALL if name != "alone"]
FACTORS = (1, 3, 10)
BALANCES: Variants = {
    **plain("alone"),
    **{balance_name(name, factor): balanced(name, factor) for name in METHODS for factor in FACTORS},
}
FEWER_EPOCHS = ["--labels=4000", "--train.epochs=10", "--train.evaluate_every=2"]  # as many steps as with 1000
EPOCHS_12 = ["--train.epochs=12", "--train.evaluate_every=3"]
STUDIES = {
    "fashion-1000": Study("classification/fashion-mnist", LIKE),
    "fashion-1000-dkd": Study("classification/fashion-mnist", plain("alone", "dkd")),
    "fashion-4000": Study("classification/fashion-mnist", LIKE, FEWER_EPOCHS),
    "balances-4000": Study("classification/fashion-mnist", BALANCES, FEWER_EPOCHS),  # with --first 100 --seeds 2
    "balanced-4000": Study("classification/fashion-mnist", BALANCES, FEWER_EPOCHS),  # --only the best of those
    "vit-student-1000": Study("classification/fashion-mnist-vit", UNLIKE),
    "vit-student-4000": Study("classification/fashion-mnist-vit", UNLIKE, FEWER_EPOCHS),
    "vit-teacher-1000": Study("classification/fashion-mnist-from-vit", UNLIKE),
    "vit-teacher-4000": Study("classification/fashion-mnist-from-vit", UNLIKE, FEWER_EPOCHS),
    "mixer-student-1000": Study("classification/fashion-mnist-mixer", UNLIKE),
    "open-1200": Study("classification/fashion-mnist-open", OPEN),
    "rcka-fashion-1000": Study("classification/fashion-mnist", RCKA_PARTS),
    "rcka-fashion-10000": Study("classification/fashion-mnist", RCKA, ["--labels=10000", *EPOCHS_12]),
    "rcka-digits-100": Study("classification/digits", RCKA),
}
FULL = {"resnet": Study("classification/fashion-mnist-resnet", ALL)}
PROFILES = {"quick": (STUDIES, 5), "full": (FULL, 3)}  # studies and seeds


def main(argv: Sequence[str] | None = None) -> None:
    """Run a share of the studies, or collect them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("studies", nargs="*", help=f"of {[*STUDIES]} or {[*FULL]}; default: all of the profile")
    parser.add_argument("--profile", choices=PROFILES, default="quick", help="quick: two CPU cores; full: a GPU")
    parser.add_argument("--seeds", type=int, help="default: 5, and 3 of the full profile")
    parser.add_argument("--first", type=int, default=0, help="the first seed; 100 to choose weights")
    parser.add_argument("--share", default="0/1", help="which runs: k/n takes every n-th from the k-th on")
    parser.add_argument("--only", nargs="+", metavar="VARIANT", help="these variants alone")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="keys of all recipes")
    parser.add_argument("--collect", action="store_true")
    parser.add_argument("--out", help="file of the result, for one study; default: in benchmarks/results")
    arguments = parser.parse_args(argv)
    there, seeds = PROFILES[arguments.profile]
    names = arguments.studies or list(there)
    seeds = range(arguments.first, arguments.first + (arguments.seeds or seeds))
    if unknown := [name for name in names if name not in there]:
        parser.error(f"no study {unknown} of the profile {arguments.profile}; there are {list(there)}")
    options = [f"--{pair}" for pair in arguments.set]
    studies = {FOLDER / f"methods-{name}": there[name].changed(arguments.only, options) for name in names}
    if not arguments.collect:
        run_share(studies, seeds, arguments.share)
        return
    for name, (out, study) in zip(names, studies.items(), strict=True):
        print(write_result(f"methods_{name}", gather(study, out, seeds), arguments.out))


if __name__ == "__main__":
    main()
