"""What the training studies share: variants of recipes, many seeds, done one after the other in one process."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tutelage.cli.recipes import Parsed, parse_recipe
from tutelage.cli.runs import train_run
from tutelage.cli.study import study_table
from tutelage.cli.teachers import resolve_teacher
from tutelage.engine.study import collect, summarise

RECIPES = Path(__file__).parents[1] / "recipes"
TEACHERS = Path("runs/teachers")
STUDIES = Path("runs/studies")
Variants = dict[str, tuple[str, list[str]]]  # name: a recipe of the folder, and options of its own


@dataclass(frozen=True)
class Study:
    """A data set, a label budget, and what is compared on it.

    Args:
        folder: of recipes, such as "classification/digits".
        variants: name: the recipe, and what is changed in it.
        options: what is changed in all of them.
    """

    folder: str
    variants: Variants
    options: list[str] = field(default_factory=list)

    def changed(self, names: Sequence[str] | None, options: Sequence[str] = ()) -> Study:
        """Return the study of these variants alone (None: all), in its own order, with further options for all."""
        variants = {n: v for n, v in self.variants.items() if names is None or n in names}
        return replace(self, variants=variants, options=[*self.options, *options])

    def parsed(self, variant: str, seed: int) -> Parsed:
        """Return the recipe of one run."""
        recipe, own = self.variants[variant]
        return parse_recipe(RECIPES / self.folder / f"{recipe}.yaml", [*self.options, *own, f"--seed={seed}"])

    @property
    def select(self) -> str:
        """The task's own figure, by which epochs are chosen and variants compared."""
        return self.parsed(next(iter(self.variants)), 0).select()


def run_share(studies: Mapping[Path, Study], seeds: range, share: str = "0/1") -> None:
    """Run every n-th run from the k-th on, of share k/n, in the order of seeds; studies are given by their folders."""
    first, shares = map(int, share.split("/"))
    jobs = [(out, variant, seed) for seed in seeds for out in studies for variant in studies[out].variants]
    for out, variant, seed in jobs[first::shares]:
        study = studies[out]
        recipe = study.parsed(variant, seed)
        teacher = resolve_teacher(recipe, TEACHERS)
        if teacher is not None:
            if not teacher.train():
                raise KeyboardInterrupt
            recipe.config.teacher.preflight = False  # its own figures tell how good it is
        metrics = train_run(recipe, out / variant / f"seed{seed}", resume=True)
        if metrics is None:
            raise KeyboardInterrupt
        chosen, tested = (f"{metrics[part][study.select]:.4f}" for part in ("validation", "test"))
        seconds = f"{metrics['seconds']:.0f} s"
        print(out.name, variant, f"seed {seed} validation {chosen} test {tested}", seconds, flush=True)


def gather(study: Study, out: Path, seeds: range) -> dict[str, Any]:
    """Return what a result holds of a study whose runs lie in `out`: options, summary, every run with its commit."""
    runs = collect(out, list(study.variants), seeds.stop)
    for name, found in runs.items():
        found.update({seed: run | _environment(out / name / f"seed{seed}") for seed, run in found.items()})
    select = study.select
    summary = summarise(runs, select)
    print(study_table(summary, select))
    content: dict[str, Any] = {"recipes": study.folder, "options": study.options, "select": select, "summary": summary}
    content["variants"] = {name: [recipe, *own] for name, (recipe, own) in study.variants.items()}
    content["teachers"] = teacher_figures(study.parsed(name, 0) for name in study.variants)
    content["runs"] = {name: dict(sorted(found.items())) for name, found in runs.items()}
    return content


def teacher_figures(recipes: Iterable[Parsed]) -> dict[str, Any]:
    """Return the figures of the teachers that recipes learn from, by the folder of their run."""
    teachers = (resolve_teacher(recipe, TEACHERS) for recipe in recipes)
    there = {run.out for run in teachers if run is not None and run.ready}
    return {out.name: json.loads((out / "metrics.json").read_text()) for out in sorted(there)}


def _environment(folder: Path) -> dict[str, Any]:
    """Return the commit that a run was made with."""
    return {"commit": json.loads((folder / "environment.json").read_text())["commit"]}
