"""What the training studies share: variants of recipes, with many seeds, run in one process."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tutelage.analysis.study import BASELINE, collect, summarize
from tutelage.analysis.study_table import study_table_text
from tutelage.cli.runs import train_run
from tutelage.cli.teachers import resolve_teachers
from tutelage.io import read_json
from tutelage.recipes import ParsedRecipe, parse_recipe
from tutelage.recipes.shipped import find_folder, methods_in

TEACHER_DIR = Path("runs/teachers")
STUDY_DIR = Path("runs/studies")
Variants = dict[str, tuple[str, list[str]]]  # by name: a recipe of the folder, and its overrides


def recipes_as_they_are(*names: str) -> Variants:
    """Return recipes without overrides."""
    return {name: (name, []) for name in names}


def all_recipes(folder: str, *, without: Sequence[str] = ()) -> Variants:
    """Return all recipes of a folder but teachers, without overrides, the baseline first.

    Args:
        folder: of shipped recipes, such as "classification/digits".
        without: names of recipes to leave out.
    """
    names = [name for name in methods_in(find_folder(folder)) if name not in without]
    names.sort(key=lambda name: name != BASELINE)
    return recipes_as_they_are(*names)


@dataclass(frozen=True)
class Study:
    """A data set, a number of labels, and what is compared on it.

    Attributes:
        folder: of shipped recipes, such as "classification/digits".
        variants: what is compared.
        overrides: of all variants.
        result: a result of the same study, whose runs are not repeated, since they may have been
            made on another machine; None if there is none.
    """

    folder: str
    variants: Variants
    overrides: list[str] = field(default_factory=list)
    result: Path | None = None

    def changed(self, names: Sequence[str] | None, overrides: Sequence[str] = ()) -> Study:
        """Return the study with fewer variants and further overrides.

        Args:
            names: of the variants, in any order; None is all.
            overrides: of all variants.
        """
        variants = {
            name: variant
            for name, variant in self.variants.items()
            if names is None or name in names
        }
        return replace(self, variants=variants, overrides=[*self.overrides, *overrides])

    def recipe(self, variant: str, seed: int) -> ParsedRecipe:
        """Return the recipe of one run; `{seed}` in an override is its seed."""
        name, overrides = self.variants[variant]
        overrides = [
            option.replace("{seed}", str(seed)) for option in [*self.overrides, *overrides]
        ]
        return parse_recipe(f"{self.folder}/{name}", [*overrides, f"--seed={seed}"])

    def stored_runs(self) -> dict[str, dict[int, dict[str, Any]]]:
        """Return the runs in the result, by variant and seed, that were made as they would be now.

        Runs of a variant with other recipes or overrides do not count.
        """
        content = self._stored()
        return {
            name: {int(seed): run for seed, run in content["runs"].get(name, {}).items()}
            for name, (recipe, own) in self.variants.items()
            if content and content["variants"].get(name) == [recipe, *own]
        }

    def stored_teachers(self) -> dict[str, Any]:
        """Return the metrics of the teachers in the result, by the folder of their run."""
        teachers: dict[str, Any] = self._stored().get("teachers", {})
        return teachers

    def _stored(self) -> dict[str, Any]:
        """Return the result, if it is of the same recipes and overrides; else nothing."""
        if self.result is None or not self.result.exists():
            return {}
        content: dict[str, Any] = json.loads(self.result.read_text())
        is_same = [content["recipes"], content["options"]] == [self.folder, self.overrides]
        return content if is_same else {}

    @property
    def monitor(self) -> str:
        """The metric by which the best epoch is chosen and variants are compared."""
        return self.recipe(next(iter(self.variants)), seed=0).monitor()


def run_share(studies: Mapping[Path, Study], seeds: range, share: str = "0/1") -> None:
    """Run a share of all runs, seed by seed.

    Args:
        studies: by the folder of their runs.
        seeds: of every variant.
        share: "k/n" takes every n-th run from the k-th on.

    Raises:
        KeyboardInterrupt: If a run was interrupted; it can be resumed.
    """
    first, step = map(int, share.split("/"))
    stored = {out: study.stored_runs() for out, study in studies.items()}
    runs = [
        (out, variant, seed)
        for seed in seeds
        for out, study in studies.items()
        for variant in study.variants
        if seed not in stored[out].get(variant, {})
    ]
    for out, variant, seed in runs[first::step]:
        study = studies[out]
        metrics = run_variant(study.recipe(variant, seed), out / variant / f"seed{seed}")
        validation, test = (metrics[part][study.monitor] for part in ("validation", "test"))
        print(
            f"{out.name} {variant} seed {seed} validation {validation:.4f} test {test:.4f} "
            f"{metrics['seconds']:.0f} s",
            flush=True,
        )


def run_variant(recipe: ParsedRecipe, out: Path) -> dict[str, Any]:
    """Run a recipe, and its teacher first if it is not trained yet; return the metrics.

    Raises:
        KeyboardInterrupt: If it was interrupted; it can be resumed.
    """
    recipe, teachers = resolve_teachers(recipe, TEACHER_DIR)
    for teacher in teachers:
        if not teacher.train():
            raise KeyboardInterrupt
    # The teacher's own metrics say how good it is.
    sections = recipe.teachers()
    recipe = recipe.replace({f"{section}.preflight": False for section in sections})
    metrics = train_run(recipe, out, resume=True, teachers=teachers)
    if metrics is None:
        raise KeyboardInterrupt
    return metrics


def study_result(study: Study, out: Path, seeds: range) -> dict[str, Any]:
    """Return the result of a study: recipes, overrides, summary, every run with its commit.

    Args:
        study: what was compared.
        out: folder of its runs.
        seeds: the last one is the last that is read.
    """
    runs = collect(out, list(study.variants), seeds.stop)
    for name, by_seed in runs.items():
        for seed, run in by_seed.items():
            run["commit"] = _commit(out / name / f"seed{seed}")
        stored = study.stored_runs().get(name, {})
        by_seed |= {seed: run for seed, run in stored.items() if seed not in by_seed}
    summary = summarize(runs, study.monitor)
    print(study_table_text(summary, study.monitor))
    return {
        "recipes": study.folder,
        "options": study.overrides,
        "monitor": study.monitor,
        "summary": summary,
        "variants": {name: [recipe, *own] for name, (recipe, own) in study.variants.items()},
        "teachers": teacher_metrics(
            (study.recipe(name, seed) for name in study.variants for seed in runs[name]),
            study.stored_teachers(),
        ),
        "runs": {
            name: {seed: run for seed, run in sorted(by_seed.items())}
            for name, by_seed in runs.items()
        },
    }


def teacher_metrics(
    recipes: Iterable[ParsedRecipe], stored: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return the metrics of the teachers of some recipes, by the folder of their run.

    Args:
        recipes: of the students.
        stored: metrics of teachers whose runs may have been made on another machine. The name of a
            folder tells the teacher's recipe, so that one name is one teacher.
    """
    runs = [run for recipe in recipes for run in resolve_teachers(recipe, TEACHER_DIR)[1]]
    metrics = {run.out.name: (stored or {}).get(run.out.name) for run in runs}
    for run in runs:
        if run.ready:
            metrics[run.out.name] = json.loads((run.out / "metrics.json").read_text())
    return {name: own for name, own in sorted(metrics.items()) if own is not None}


def _commit(run: Path) -> Any:
    """Return the commit that a run was made with."""
    return read_json(run / "environment.json", "remove the run and repeat it")["commit"]
