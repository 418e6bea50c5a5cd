"""RCKA, its parts and its ablations against the student alone, KD and mimicking: many seeds, paired.

The runs of one share are done one after the other in this process; start several shares to use several cores, then
`--collect` writes benchmarks/results/rcka_<name>.json. Weights were chosen on validation data with other seeds.

python -m benchmarks.rcka_study fashion-1000 --share 0/2 &  python -m benchmarks.rcka_study fashion-1000 --share 1/2
python -m benchmarks.rcka_study fashion-1000 --collect
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.timing import write_result
from tutelage.cli.recipes import Parsed, parse_recipe
from tutelage.cli.runs import train_run
from tutelage.cli.study import study_table
from tutelage.cli.teachers import resolve_teacher
from tutelage.engine.study import collect, summarise

RECIPES = Path(__file__).parents[1] / "recipes/classification"
MAIN: dict[str, tuple[str, list[str]]] = {
    "alone": ("alone", []),
    "kd": ("kd", []),
    "mimic": ("mimic", []),
    "rcka": ("rcka", []),
    "lcka": ("rcka", ["--method.feature=null"]),
    "fcka": ("rcka", ["--method.intra=null", "--method.inter=null"]),
    "rcka_kd": ("rcka_kd", []),
}
OFFICIAL = ["--method.center=false", "--method.feature=1"]
ABLATIONS: dict[str, tuple[str, list[str]]] = {
    "rcka, uncentred": ("rcka", ["--method.center=false"]),
    "rcka, rows not scaled": ("rcka", ["--method.scale=null"]),
    "rcka, no ramp": ("rcka", ["--method.ramp=null"]),
    "rcka, official weights": ("rcka", OFFICIAL),
    "rcka, official weights, no ramp": ("rcka", [*OFFICIAL, "--method.ramp=null"]),
    "lcka, uncentred": ("rcka", ["--method.feature=null", "--method.center=false"]),
    "fcka, uncentred": ("rcka", ["--method.intra=null", "--method.inter=null", "--method.center=false"]),
}


@dataclass(frozen=True)
class Study:
    """A data set, a label budget, and what is compared on it."""

    folder: str
    variants: dict[str, tuple[str, list[str]]]
    options: list[str] = field(default_factory=list)


STUDIES = {
    "fashion-1000": Study("fashion-mnist", {**MAIN, **ABLATIONS}),
    "fashion-10000": Study("fashion-mnist", MAIN, ["--labels=10000", "--train.epochs=12", "--train.evaluate_every=3"]),
    "digits-100": Study("digits", MAIN),
}


def parsed(study: Study, variant: str, seed: int) -> Parsed:
    """Return the recipe of one run; the teacher is trained once and was checked before."""
    recipe, own = study.variants[variant]
    options = [*own, *study.options, f"--seed={seed}", "--teacher.preflight=false"]
    return parse_recipe(RECIPES / study.folder / f"{recipe}.yaml", options)


def main() -> None:
    """Run a share, or collect."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study", choices=STUDIES)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--share", default="0/1", help="which runs: k/n takes every n-th from the k-th on")
    parser.add_argument("--collect", action="store_true")
    arguments = parser.parse_args()
    study, out = STUDIES[arguments.study], Path("runs/studies") / arguments.study
    if arguments.collect:
        runs = collect(out, list(study.variants), arguments.seeds)
        summary = summarise(runs)
        print(study_table(summary))
        content: dict[str, Any] = {"recipes": study.folder, "options": study.options, "summary": summary}
        content["variants"] = {name: [recipe, *own] for name, (recipe, own) in study.variants.items()}
        content["runs"] = {
            name: {seed: run | environment(out / name / f"seed{seed}") for seed, run in seeds.items()}
            for name, seeds in runs.items()
        }
        print(write_result(f"rcka_{arguments.study}", content))
        return
    share, shares = map(int, arguments.share.split("/"))
    jobs = [(name, seed) for seed in range(arguments.seeds) for name in study.variants]
    for name, seed in jobs[share::shares]:
        recipe = parsed(study, name, seed)
        teacher = resolve_teacher(recipe, "runs/teachers")
        if teacher is not None:
            teacher.train()
        metrics = train_run(recipe, out / name / f"seed{seed}", resume=True)
        assert metrics is not None
        print(name, seed, metrics["test"]["top1"], flush=True)


def environment(folder: Path) -> dict[str, Any]:
    """Return the commit that a run was made with."""
    return {"commit": json.loads((folder / "environment.json").read_text())["commit"]}


if __name__ == "__main__":
    main()
