"""What a study leaves: results.json, a table, and a picture of how the layers agree before and after."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tutelage.cli.networks import run_student
from tutelage.cli.recipes import parse_recipe
from tutelage.cli.tables import table
from tutelage.core import Absent
from tutelage.engine import provenance
from tutelage.engine.compare import layer_map
from tutelage.engine.files import write_json, write_text
from tutelage.engine.layers import layers_of
from tutelage.engine.networks import ready_network
from tutelage.engine.study import BASELINE, collect, summarise
from tutelage.errors import UserError
from tutelage.report import draw_layer_maps
from tutelage.report.numbers import NOTHING, figure, short, spread, unit
from tutelage.tasks import Classification, OpenSetClassification

MAP_IMAGES = 512
OTHERS = ("agreement", "kl", "ece", "auroc_near", "fpr95_near")  # figures that the table shows where a task has them


def write_study(out: Path, methods: Sequence[str], seeds: int, select: str) -> str:
    """Write results.json and table.txt; return the table. Methods are compared in the figure `select`."""
    runs = collect(out, methods, seeds)
    summary = summarise(runs, select)
    content = {"provenance": provenance(), "select": select, "summary": summary, "runs": runs}
    write_json(out / "results.json", content)
    text = study_table(summary, select)
    write_text(out / "table.txt", text + "\n")
    return text


def with_earlier(out: Path, methods: Sequence[str], seeds: int, select: str) -> tuple[list[str], int]:
    """Return the methods and the number of seeds of a study, with those that earlier commands left in its folder."""
    try:
        earlier = json.loads((out / "results.json").read_text())
        runs = earlier["runs"] if earlier["select"] == select else {}
    except (OSError, ValueError, KeyError):  # there is none, or it is none of ours; it is made anew
        runs = {}
    there = [int(seed) + 1 for by_seed in runs.values() for seed in by_seed]
    return list(dict.fromkeys([*runs, *methods])), max([seeds, *there])


def draw_study(out: Path, methods: Sequence[str]) -> list[Path]:
    """Write layer_maps.json and layer_maps.png of the first seed; return the picture, if one could be made."""
    try:
        maps = _layer_maps({method: out / method / "seed0" for method in methods})
        if maps is None:
            return []
        write_json(out / "layer_maps.json", maps)
        draw_layer_maps(out / "layer_maps.json", out / "layer_maps.png")
    except UserError as error:  # the table stands without it
        print(f"without a picture: {error}", file=sys.stderr)
        return []
    return [out / "layer_maps.png"]


def study_table(summary: dict[str, Any], select: str = "top1") -> str:
    """Return one row a method: the figure compared, closeness to the teacher, calibration, cost.

    The test figure is that of the epoch which the recipe keeps; beside it stand those of the best epoch on validation
    data and of the last one, and the best epoch's on validation data, to choose weights by. A step's time is a ratio to
    the baseline's, and memory what is more than the baseline's.
    """
    label = unit(select).label
    others = [name for name in OTHERS if any(name in row["test"] for row in summary.values())]
    header = ["method", f"test {label}", f"− {BASELINE} [95 %]", "best epoch", "last epoch", "validation"]
    header += [*(unit(name).label for name in others), "parameters", "method's", f"step / {BASELINE}", "memory, MiB"]
    rows = []
    for method, row in summary.items():
        cost, parameters = row["cost"], row["parameters"]
        cells = [spread(select, row["test"][select]), _difference(row.get("difference"), select)]
        cells += [spread(select, row[part][select]) for part in ("best", "last", "validation")]
        cells += [spread(name, row["test"].get(name)) for name in others]
        cells += [short(parameters["student"]), short(parameters["method"])]
        memory = cost["extra_peak_gpu_mib"] or cost["extra_peak_mib"]
        cells += [_mean(cost["step_ratio"], "{:.2f}"), _mean(memory, "{:+.0f}")]
        rows.append([method, *(cell.replace("−", "-") for cell in cells)])
    return table(header, rows)


def _mean(found: dict[str, float] | None, form: str) -> str:
    return NOTHING if found is None else form.format(found["mean"])


def _difference(found: dict[str, Any] | None, select: str) -> str:
    if found is None:
        return NOTHING
    low, high = (figure(select, bound, sign=True) for bound in found["interval95"])
    return figure(select, found["mean"], sign=True) + (f" [{low}, {high}]" if low != NOTHING else "")


def _layer_maps(folders: dict[str, Path]) -> dict[str, Any] | None:
    """Return teacher × student maps, before training and after each method; None without a teacher at hand.

    None also for tasks whose networks do not map one tensor of images to one of logits.
    A student whose layers have other names than the first one's does not fit the picture and is left out.
    """
    recipes = {method: parse_recipe(folder / "recipe.yaml").build() for method, folder in folders.items()}
    recipe = next((recipe for recipe in recipes.values() if recipe.teacher is not None), None)
    if recipe is None or recipe.teacher is None or recipe.teacher.network is None:
        return None
    if not isinstance(recipe.task, Classification | OpenSetClassification):
        return None
    splits = recipe.data.splits(recipe.labels, recipe.seed)
    images = splits.test.__getitems__(range(min(MAP_IMAGES, len(splits.test))))[0]
    teacher = ready_network(recipe.teacher, recipe.data)
    student = recipe.method.ship(recipe.method.grow(ready_network(recipe.student, recipe.data), Absent()))
    names = [layers_of(network, (images[:4],)) for network in (teacher, student)]
    maps = {"before training": layer_map([teacher, student], names, images)}
    for method, folder in folders.items():
        student = run_student(folder, recipes[method], None)
        if layers_of(student, (images[:4],)) == names[1]:
            maps[method] = layer_map([teacher, student], names, images)
    return {"rows": names[0], "columns": names[1], "samples": len(images), "maps": maps}
