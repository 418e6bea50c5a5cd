"""Detection or segmentation: the recipes of one folder with many seeds, paired by seed, by the task's own figure.

The runs of one share are done one after the other in this process, and a run that is done is not done again; start
several shares to use several cores, then `--collect` writes benchmarks/results/<folder>.json. A variant is a recipe
with options of its own: `--variant "pcka, intra 30=pcka,--method.intra=30"`. Weights are chosen with `--first 100`, by
the validation figure, and never by the test figure.

python -m benchmarks.dense_study recipes/segmentation/mni152 --methods alone mimic pcka ssim --seeds 3
python -m benchmarks.dense_study recipes/segmentation/mni152 --methods alone mimic pcka ssim --seeds 3 --collect
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.studies import STUDIES, TEACHERS
from benchmarks.timing import write_result
from tutelage.cli.recipes import Parsed, parse_recipe
from tutelage.cli.runs import train_run
from tutelage.cli.tables import table
from tutelage.cli.teachers import resolve_teacher
from tutelage.engine.study import summarise

Runs = dict[str, dict[int, dict[str, Any]]]


@dataclass(frozen=True)
class Dense:
    """What is compared, and where its runs lie.

    Args:
        recipes: the folder.
        variants: name: recipe of the folder, and options of its own.
        options: of all of them.
        seeds: of the runs.
        out: folder of the runs.
    """

    recipes: Path
    variants: dict[str, tuple[str, list[str]]]
    options: list[str]
    seeds: range
    out: Path

    def parsed(self, variant: str, seed: int) -> Parsed:
        """Return the recipe of one run."""
        recipe, own = self.variants[variant]
        return parse_recipe(self.recipes / f"{recipe}.yaml", [*self.options, *own, f"--seed={seed}"])

    def folder(self, variant: str, seed: int) -> Path:
        """Return where a run lies."""
        return self.out / variant / f"seed{seed}"

    def run(self, share: str) -> None:
        """Do every n-th run from the k-th on, of share k/n, in the order of seeds."""
        first, shares = map(int, share.split("/"))
        for variant, seed in [(variant, seed) for seed in self.seeds for variant in self.variants][first::shares]:
            recipe = self.parsed(variant, seed)
            teacher = resolve_teacher(recipe, TEACHERS)
            if teacher is not None:
                if not teacher.train():
                    raise KeyboardInterrupt
                recipe.config.teacher.preflight = False  # one run has checked it
            metrics = train_run(recipe, self.folder(variant, seed), resume=True)
            if metrics is None:
                raise KeyboardInterrupt
            chosen, tested = (metrics[part][self.select] for part in ("validation", "test"))
            seconds = metrics["seconds"]
            print(f"{variant:30} {seed:4} validation {chosen:.4f} test {tested:.4f} {seconds:.0f} s", flush=True)

    @property
    def select(self) -> str:
        """The task's own figure."""
        recipe = self.parsed(next(iter(self.variants)), 0)
        recipe.config.teacher = None
        return str(recipe.build().task.select)

    def collected(self) -> Runs:
        """Return the figures of the runs that are done, with the commit of each."""
        found: Runs = {variant: {} for variant in self.variants}
        for variant, runs in found.items():
            for seed in self.seeds:
                folder = self.folder(variant, seed)
                if (folder / "metrics.json").exists():
                    commit = json.loads((folder / "environment.json").read_text())["commit"]
                    runs[seed] = json.loads((folder / "metrics.json").read_text()) | {"commit": commit}
        return found

    def teachers(self) -> dict[str, Any]:
        """Return the figures of the teachers that the variants learn from, by the folder of their run."""
        found = {}
        for variant in self.variants:
            teacher = resolve_teacher(self.parsed(variant, self.seeds[0]), TEACHERS)
            if teacher is not None and teacher.ready:
                found[teacher.out.name] = json.loads((teacher.out / "metrics.json").read_text())
        return found


def printed(study: Dense, runs: Runs, summary: dict[str, Any], teachers: dict[str, Any]) -> str:
    """Return one row a variant, in hundredths, and one for each teacher."""
    select = study.select
    rows = []
    for name, run in teachers.items():
        parameters, seconds = run["parameters"]["student"], run["seconds"]
        rows.append([name, f"{100 * run['test'][select]:.2f}", "", "", f"{parameters:,}", f"{seconds:.0f}"])
    for name, row in summary.items():
        test, difference = row["test"][select], row.get("difference")
        paired = ""
        if difference is not None:
            low, high = (100 * bound for bound in difference["interval95"])
            paired = f"{100 * difference['mean']:+.2f} [{low:+.2f}, {high:+.2f}]"
        held = [run["validation"][select] for run in runs[name].values()]
        cells = [f"{100 * test['mean']:.2f} ± {100 * test['sd']:.2f}", paired, f"{100 * sum(held) / len(held):.2f}"]
        rows.append([name, *cells, f"{row['parameters']['student']:,}", f"{row['seconds']['mean']:.0f}"])
    return table(["", f"test {select}", "− alone [95 %]", f"validation {select}", "parameters", "seconds"], rows)


def main() -> None:
    """Run a share, or collect."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", type=Path, help="a folder of recipes")
    parser.add_argument("--methods", nargs="+", default=[], help="recipes of the folder, without .yaml")
    parser.add_argument("--variant", action="append", default=[], help="NAME=RECIPE,OPTION,OPTION…")
    parser.add_argument("--option", action="append", default=[], help="an option of all recipes")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--share", default="0/1", help="which runs: k/n takes every n-th from the k-th on")
    parser.add_argument("--name", help="of the result and of the runs' folder; default: the recipes' folder")
    parser.add_argument("--collect", action="store_true")
    given = parser.parse_args()
    variants: dict[str, tuple[str, list[str]]] = {method: (method, []) for method in given.methods}
    for text in given.variant:
        name, _, rest = text.partition("=")
        recipe, *own = rest.split(",")
        variants[name] = (recipe, own)
    name = given.name or given.recipes.name
    seeds = range(given.first, given.first + given.seeds)
    study = Dense(given.recipes, variants, given.option, seeds, STUDIES / name)
    if not given.collect:
        study.run(given.share)
        return
    runs, teachers = study.collected(), study.teachers()
    summary = summarise(runs, study.select)
    print(printed(study, runs, summary, teachers))
    content = {"recipes": str(given.recipes), "options": given.option, "select": study.select}
    described = {name: [recipe, *own] for name, (recipe, own) in variants.items()}
    write_result(name, {**content, "variants": described, "teachers": teachers, "summary": summary, "runs": runs})


if __name__ == "__main__":
    main()
