"""Every classification method against the baseline, on like and unlike pairs of networks.

Recipes as they are, several seeds, compared in pairs. RCKA's weights and DKD's beta had been chosen
on validation images of the first study with other seeds; all other weights are their papers' or
their recipe's. Several studies in one call take turns seed by seed, so that what is interrupted
stays paired. A method joins with its recipe in the folder of a study.

python -m benchmarks.method_study fashion-1000 fashion-4000 [--share 0/2] [--seeds 5]
python -m benchmarks.method_study fashion-1000 --collect

The second command writes benchmarks/results/methods_fashion-1000.json. For a GPU (Accelerate takes
the device that is there): all training images, ResNet-32×4 → ResNet-8×4, 240 epochs:

python -m benchmarks.method_study --profile full [--set train.epochs=120]
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace

from benchmarks.studies import (
    STUDY_DIR,
    Study,
    Variants,
    all_recipes,
    recipes_as_they_are,
    run_share,
    study_result,
)
from benchmarks.timing import result_path, write_result
from tutelage.analysis.study import BASELINE

FASHION = "classification/fashion-mnist"
TO_VIT = "classification/fashion-mnist-vit"
FROM_VIT = "classification/fashion-mnist-from-vit"
TO_MIXER = "classification/fashion-mnist-mixer"
OPEN_SET = "classification/fashion-mnist-open"
RESNET = "classification/cifar10/resnet8x4"

# AFD is compared with KD, as in its paper.
METHODS = all_recipes(FASHION, without=["afd"])
# The value for CIFAR-100, which the recipes had before one was chosen on this data.
DKD_8: Variants = {"dkd_8": ("dkd", ["--method.beta=8"])}
# Unlabeled images of the classes that have labels.
SRD_SAME: Variants = {"srd_same": ("srd", ["--method.unlabeled={same: 1.0}"])}

LABEL_WEIGHTS = {"kd": 0.1, "rcka_kd": 0.1}  # of the recipes where it is not 1

# What RCKA's recipes aligned when the studies without the cap were made: logits as they are.
LOGITS = ["--method.soften=null"]
# To a ViT, they had layers, too.
LOGITS_AND_LAYERS = [
    *LOGITS,
    '--method.layer_pairs={"blocks.1": "stage2", "blocks.3": "stage3"}',
    "--method.feature_weight=5",
]
NO_CAP = ["--train.gradient_cap=null"]
NO_LOGITS = ["--method.intra_weight=null", "--method.inter_weight=null"]
NO_FEATURES = ["--method.feature_weight=null"]
UNCENTERED = ["--method.center=false"]
NO_RAMP = ["--method.ramp=null"]
OFFICIAL = [*UNCENTERED, "--method.feature_weight=1"]
RCKA: Variants = {
    **recipes_as_they_are(BASELINE, "kd", "fitnet"),
    "rcka": ("rcka", LOGITS),
    "lcka": ("rcka", [*LOGITS, *NO_FEATURES]),
    "fcka": ("rcka", NO_LOGITS),
    **recipes_as_they_are("rcka_kd"),
}
RCKA_PARTS: Variants = {
    **RCKA,
    **{
        name: ("rcka", [*LOGITS, *overrides])
        for name, overrides in {
            "rcka, uncentered": UNCENTERED,
            "rcka, rows not scaled": ["--method.scale=null"],
            "rcka, no ramp": NO_RAMP,
            "rcka, official weights": OFFICIAL,
            "rcka, official weights, no ramp": [*OFFICIAL, *NO_RAMP],
            "lcka, uncentered": [*NO_FEATURES, *UNCENTERED],
        }.items()
    },
    "fcka, uncentered": ("rcka", [*NO_LOGITS, *UNCENTERED]),
}


def balances(factors: Sequence[int] = (1, 3, 10)) -> Variants:
    """Return every method with its supervised loss weighed up by some factors.

    With Adam this is the method's loss weighed down.
    """
    variants = recipes_as_they_are(BASELINE)
    for name in METHODS:
        if name == BASELINE:
            continue
        for factor in factors:
            override = f"--method.task_weight={factor * LABEL_WEIGHTS.get(name, 1.0):g}"
            of_logits = LOGITS if name == "rcka" else []
            variants[f"{name}, labels × {factor}"] = (name, [override, *of_logits])
    return variants


# As many steps as with 1000 labels.
LABELS_4000 = ["--num_labels=4000", "--train.epochs=10", "--train.eval_every=2"]
LABELS_10000 = ["--num_labels=10000", "--train.epochs=12", "--train.eval_every=3"]
SETTINGS = {
    "fashion-1000": Study(FASHION, METHODS | DKD_8),
    "fashion-4000": Study(FASHION, METHODS | DKD_8, LABELS_4000),
    "vit-student-1000": Study(TO_VIT, all_recipes(TO_VIT) | DKD_8),
    "vit-student-4000": Study(TO_VIT, all_recipes(TO_VIT) | DKD_8, LABELS_4000),
    "vit-teacher-1000": Study(FROM_VIT, all_recipes(FROM_VIT) | DKD_8),
    "vit-teacher-4000": Study(FROM_VIT, all_recipes(FROM_VIT) | DKD_8, LABELS_4000),
}
AS_WEIGHTED = {
    **{
        name: replace(study, variants=study.variants | {"rcka": ("rcka", former)})
        for name, study in SETTINGS.items()
        for former in [LOGITS_AND_LAYERS if study.folder == TO_VIT else LOGITS]
    },
    "fashion-1000-dkd": Study(FASHION, recipes_as_they_are(BASELINE, "dkd")),
    # With --first 100 --seeds 2, then --only the best of those in the study below.
    "balances-4000": Study(FASHION, balances(), LABELS_4000),
    "balanced-4000": Study(FASHION, balances(), LABELS_4000),
    "mixer-student-1000": Study(TO_MIXER, all_recipes(TO_MIXER) | DKD_8),
    "open-1200": Study(OPEN_SET, all_recipes(OPEN_SET) | SRD_SAME),
    "rcka-fashion-1000": Study(FASHION, RCKA_PARTS),
    "rcka-fashion-10000": Study(FASHION, RCKA, LABELS_10000),
    "rcka-digits-100": Study("classification/digits", RCKA),
}
STUDIES = {
    # The weights of the recipes as they are, and kept within the cap that is the default.
    **{name: study.changed(None, NO_CAP) for name, study in AS_WEIGHTED.items()},
    **{f"{name}-capped": study for name, study in SETTINGS.items()},
}
FULL_STUDIES = {"resnet": Study(RESNET, all_recipes(RESNET))}
PROFILES = {"quick": (STUDIES, 5), "full": (FULL_STUDIES, 3)}  # studies, number of seeds


def argument_parser() -> argparse.ArgumentParser:
    """Return the parser of this script."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "studies",
        nargs="*",
        help=f"of {[*STUDIES]} or {[*FULL_STUDIES]}; default: all of the profile",
    )
    parser.add_argument(
        "--profile", choices=PROFILES, default="quick", help="quick: two CPU cores; full: a GPU"
    )
    parser.add_argument("--seeds", type=int, help="default: 5, and 3 of the full profile")
    parser.add_argument(
        "--first", type=int, default=0, help="the first seed; 100 to choose hyper-parameters"
    )
    parser.add_argument(
        "--share", default="0/1", help="which runs: k/n takes every n-th from the k-th on"
    )
    parser.add_argument("--only", nargs="+", metavar="VARIANT", help="these variants alone")
    parser.add_argument(
        "--set", nargs="+", default=[], metavar="KEY=VALUE", help="keys of all recipes"
    )
    parser.add_argument("--collect", action="store_true", help="write the results, run nothing")
    parser.add_argument(
        "--out", help="file of the result, for one study; default: in benchmarks/results"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Run a share of the studies, or collect them."""
    parser = argument_parser()
    arguments = parser.parse_args(argv)
    available, num_seeds = PROFILES[arguments.profile]
    names = arguments.studies or list(available)
    unknown = [name for name in names if name not in available]
    if unknown:
        parser.error(
            f"no study {unknown} of the profile {arguments.profile}; there are {list(available)}"
        )
    seeds = range(arguments.first, arguments.first + (arguments.seeds or num_seeds))
    overrides = [f"--{pair}" for pair in arguments.set]
    studies = {
        STUDY_DIR / f"methods-{name}": replace(
            available[name].changed(arguments.only, overrides),
            result=result_path(f"methods_{name}", arguments.out),
        )
        for name in names
    }
    if not arguments.collect:
        run_share(studies, seeds, arguments.share)
        return
    for name, (out, study) in zip(names, studies.items(), strict=True):
        print(write_result(f"methods_{name}", study_result(study, out, seeds), arguments.out))


if __name__ == "__main__":
    main()
