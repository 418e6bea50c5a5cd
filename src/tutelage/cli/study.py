"""What a study leaves: results.json, a table, and a picture of how the layers agree before and after."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from tutelage.cli.recipes import parse_recipe
from tutelage.cli.tables import table
from tutelage.core.normalization import normalize_inputs
from tutelage.engine import Recipe, provenance
from tutelage.engine.files import write_json, write_text
from tutelage.engine.layers import layer_map, top_layers
from tutelage.engine.study import BASELINE, collect, summarise
from tutelage.engine.weights import load_weights
from tutelage.report import draw_layer_maps

MAP_IMAGES = 512


def write_study(out: Path, methods: Sequence[str], seeds: int) -> str:
    """Write results.json, table.txt, layer_maps.json and layer_maps.png; return the table."""
    runs = collect(out, methods, seeds)
    summary = summarise(runs)
    write_json(out / "results.json", {"provenance": provenance(), "summary": summary, "runs": runs})
    text = study_table(summary)
    write_text(out / "table.txt", text + "\n")
    folders = {method: out / method / "seed0" for method in methods}
    maps = _layer_maps(folders)
    if maps is not None:
        write_json(out / "layer_maps.json", maps)
        draw_layer_maps(out / "layer_maps.json", out / "layer_maps.png")
        text += f"\n\n{out}/results.json  {out}/layer_maps.png"
    return text


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
    return "–" if figure is None else form.format(figure["mean"] * scale, figure["sd"] * scale)


def _difference(found: dict[str, Any] | None) -> str:
    if found is None:
        return "–"
    low, high = found["interval95"]
    return f"{found['mean'] * 100:+.2f} [{low * 100:+.2f}, {high * 100:+.2f}]"


def _layer_maps(folders: dict[str, Path]) -> dict[str, Any] | None:
    """Return teacher × student maps, before training and after each method; None without a teacher."""
    taught = [folder for folder in folders.values() if _recipe(folder).teacher is not None]
    if not taught:
        return None
    recipe = _recipe(taught[0])
    assert recipe.teacher is not None
    assert recipe.teacher.network is not None
    splits = recipe.data.splits(recipe.labels, recipe.seed)
    images = torch.stack([splits.test[i][0] for i in range(min(MAP_IMAGES, len(splits.test)))])
    normalize_inputs(
        recipe.teacher.network, recipe.teacher.mean or recipe.data.mean, recipe.teacher.std or recipe.data.std
    )
    if recipe.teacher.weights is not None:
        load_weights(recipe.teacher.network, recipe.teacher.weights)
    teacher = recipe.teacher.network.eval()
    student = normalize_inputs(recipe.student.network, recipe.data.mean, recipe.data.std).eval()
    names = [top_layers(teacher, images[:4]), top_layers(student, images[:4])]
    maps = {"before training": layer_map(teacher, student, images, names).tolist()}
    for method, folder in folders.items():
        load_weights(student, folder)
        maps[method] = layer_map(teacher, student, images, names).tolist()
    return {"rows": names[0], "columns": names[1], "samples": len(images), "maps": maps}


def _recipe(folder: Path) -> Recipe:
    return parse_recipe(folder / "recipe.yaml").build()
