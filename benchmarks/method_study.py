"""Every classification method against the student alone, on like and unlike pairs of networks: seeds, paired.

Recipes as they are: RCKA's weights had been chosen on validation data with other seeds, those of the other methods are
their papers' or their recipe's; nothing was tuned for this study. Several studies in one call take turns seed by seed,
so that what is cut short stays paired.

python -m benchmarks.method_study fashion-1000 fashion-4000 [--share 0/2] [--seeds 5]
python -m benchmarks.method_study fashion-1000 --collect     # benchmarks/results/methods_fashion-1000.json
"""

from __future__ import annotations

import argparse

from benchmarks.studies import STUDIES as FOLDER
from benchmarks.studies import Study, Variants, gather, run_share
from benchmarks.timing import write_result

NAMES = ("alone", "kd", "dkd", "dist", "ckd", "rcka", "mimic", "ofa", "afd_kd", "rtk", "residual", "srd")
ALL: Variants = {name: (name, []) for name in NAMES}
FEWER_EPOCHS = ["--labels=4000", "--train.epochs=10", "--train.evaluate_every=2"]  # as many steps as with 1000
KD_METHOD = "{class_path: tutelage.methods.KD, init_args: {temperature: 2.0, weight: 0.9, task_weight: 0.1}}"
DKD = "{class_path: tutelage.methods.DKD, init_args: {alpha: 1.0, beta: 8.0, temperature: 4.0}}"
DIST = "{class_path: tutelage.methods.DIST, init_args: {beta: 2.0, gamma: 2.0, temperature: 4.0}}"
CKD = "{class_path: tutelage.methods.CKD, init_args: {weight: 10.0, temperature: 1.0}}"
LOGITS = "{class_path: tutelage.methods.RCKA, init_args: {center: true}}"
VIT_STUDENT: Variants = {
    "alone": ("ofa_vit_alone", []),
    "kd": ("ofa_vit_kd", []),
    "ofa": ("ofa_vit", []),
    "dkd": ("ofa_vit", [f"--method={DKD}"]),
    "dist": ("ofa_vit", [f"--method={DIST}"]),
    "ckd": ("ofa_vit", [f"--method={CKD}"]),
    "rcka_logits": ("ofa_vit", [f"--method={LOGITS}"]),
}
VIT_TEACHER: Variants = {
    "alone": ("alone", ["--teacher.recipe=ofa_teacher_vit.yaml"]),
    "ofa": ("ofa_from_vit", []),
    "kd": ("ofa_from_vit", [f"--method={KD_METHOD}"]),
    "dkd": ("ofa_from_vit", [f"--method={DKD}"]),
    "dist": ("ofa_from_vit", [f"--method={DIST}"]),
    "ckd": ("ofa_from_vit", [f"--method={CKD}"]),
    "rcka_logits": ("ofa_from_vit", [f"--method={LOGITS}"]),
}
STUDIES = {
    "fashion-1000": Study("fashion-mnist", ALL),
    "fashion-4000": Study("fashion-mnist", ALL, FEWER_EPOCHS),
    "vit-student-1000": Study("fashion-mnist", VIT_STUDENT),
    "vit-teacher-1000": Study("fashion-mnist", VIT_TEACHER),
    "vit-student-4000": Study("fashion-mnist", VIT_STUDENT, FEWER_EPOCHS),
    "vit-teacher-4000": Study("fashion-mnist", VIT_TEACHER, FEWER_EPOCHS),
}


def main() -> None:
    """Run a share of the studies, or collect them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("studies", nargs="+", choices=STUDIES)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--share", default="0/1", help="which runs: k/n takes every n-th from the k-th on")
    parser.add_argument("--only", help="these variants alone, with commas between")
    parser.add_argument("--collect", action="store_true")
    arguments = parser.parse_args()
    only = None if arguments.only is None else arguments.only.split(",")
    studies = {FOLDER / f"methods-{name}": STUDIES[name].restricted(only) for name in arguments.studies}
    if not arguments.collect:
        run_share(studies, arguments.seeds, arguments.share)
        return
    for out, study in studies.items():
        print(write_result(out.name.replace("-", "_", 1), gather(study, out, arguments.seeds)))


if __name__ == "__main__":
    main()
