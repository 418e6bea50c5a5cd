"""What a study leaves: results.json, a table, and a picture of how the layers agree before and after."""

from __future__ import annotations

import math
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

MAP_IMAGES = 512


def write_study(out: Path, methods: Sequence[str], seeds: int) -> str:
    """Write results.json and table.txt; return the table."""
    runs = collect(out, methods, seeds)
    summary = summarise(runs)
    write_json(out / "results.json", {"provenance": provenance(), "summary": summary, "runs": runs})
    text = study_table(summary)
    write_text(out / "table.txt", text + "\n")
    return text


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


def study_table(summary: dict[str, Any]) -> str:
    """Return one row a method: test accuracy, closeness to the teacher, calibration, cost."""
    header = ["method", "test top-1", f"− {BASELINE} [95 %]", "agreement", "KL", "ECE", "parameters", "seconds"]
    rows = []
    for method, row in summary.items():
        figures = row["test"]
        cells = [_spread(figures["top1"], 100, "{:.2f} ± {:.2f}"), _difference(row.get("difference"))]
        cells += [
            _spread(figures.get(name), scale, "{:.3f}") for name, scale in (("agreement", 1), ("kl", 1), ("ece", 1))
        ]
        cells += [f"{row['parameters']['student']:,}", f"{row['seconds']['mean']:.1f}"]
        rows.append([method, *cells])
    return table(header, rows)


def _spread(figure: dict[str, float] | None, scale: float, form: str) -> str:
    """Return mean and deviation; the mean alone for one seed."""
    if figure is None:
        return "–"
    whole = form if math.isfinite(figure["sd"]) else form.partition(" ± ")[0]
    return whole.format(figure["mean"] * scale, figure["sd"] * scale)


def _difference(found: dict[str, Any] | None) -> str:
    if found is None:
        return "–"
    low, high = (bound * 100 for bound in found["interval95"])
    return f"{found['mean'] * 100:+.2f}" + (f" [{low:+.2f}, {high:+.2f}]" if math.isfinite(low) else "")


def _layer_maps(folders: dict[str, Path]) -> dict[str, Any] | None:
    """Return teacher × student maps, before training and after each method; None without a teacher at hand.

    A student whose layers have other names than the first one's does not fit the picture and is left out.
    """
    recipes = {method: parse_recipe(folder / "recipe.yaml").build() for method, folder in folders.items()}
    recipe = next((recipe for recipe in recipes.values() if recipe.teacher is not None), None)
    if recipe is None or recipe.teacher is None or recipe.teacher.network is None:
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
