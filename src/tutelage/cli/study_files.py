"""The files of a study: results.json, a table, and a picture of how the layers agree."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tutelage.analysis import layer_map, layers_of, split_inputs
from tutelage.analysis.study import collect, summarize
from tutelage.analysis.study_table import study_table_text
from tutelage.cli.networks import without_teachers
from tutelage.engine import provenance
from tutelage.engine.setup import Setup, setup_finished_run
from tutelage.errors import UserError
from tutelage.io import write_json, write_text
from tutelage.recipes import load_recipe, parse_recipe
from tutelage.report import draw_layer_maps
from tutelage.tasks import Classification, OpenSetClassification

MAP_ITEMS = 512
LAYER_ITEMS = 4  # items with which the layers of a network are found


def write_study(out: Path, methods: Sequence[str], seeds: int, monitor: str) -> str:
    """Write results.json and table.txt, and return the table.

    Args:
        out: folder of the study.
        methods: names of the folders in it.
        seeds: seeds 0 … N-1.
        monitor: the metric in which methods are compared.
    """
    runs = collect(out, methods, seeds)
    summary = summarize(runs, monitor)
    content = {"provenance": provenance(), "monitor": monitor, "summary": summary, "runs": runs}
    write_json(out / "results.json", content)
    text = study_table_text(summary, monitor)
    write_text(out / "table.txt", text + "\n")
    return text


def with_earlier_runs(
    out: Path, methods: Sequence[str], seeds: int, monitor: str
) -> tuple[list[str], int]:
    """Return methods and number of seeds, with those that earlier commands left in the folder.

    Args:
        out: folder of the study.
        methods: of this command.
        seeds: of this command.
        monitor: the metric in which methods are compared; an earlier study in another one does not
            count.
    """
    try:
        earlier = json.loads((out / "results.json").read_text())
        runs = earlier["runs"] if earlier["monitor"] == monitor else {}
    except (OSError, ValueError, KeyError):  # there is none, or it is not a study's
        runs = {}
    earlier_seeds = [int(seed) + 1 for by_seed in runs.values() for seed in by_seed]
    return list(dict.fromkeys([*runs, *methods])), max([seeds, *earlier_seeds])


def draw_study(out: Path, methods: Sequence[str]) -> list[Path]:
    """Write layer_maps.json and layer_maps.png of the first seed; return the picture, if any."""
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


def _layer_maps(folders: Mapping[str, Path]) -> dict[str, Any] | None:
    """Return teacher × student maps, before training and after each method.

    None without a teacher, and for tasks whose networks do not map one tensor of images to one of
    logits. A student whose layers have other names than the first one's does not fit the picture
    and is left out.
    """
    setup = _setup_with_teacher(folders.values())
    if setup is None or not isinstance(setup.recipe.task, Classification | OpenSetClassification):
        return None
    teacher = setup.teacher.models()["teacher"]
    student = setup.deployed()
    test = setup.parts["test"]
    batch = test.batch([(0, position) for position in range(min(MAP_ITEMS, len(test)))])
    inputs = setup.recipe.task.inputs(batch)
    few = split_inputs(inputs, LAYER_ITEMS)[0]
    rows = layers_of(teacher, few)
    columns = layers_of(student, few)
    maps = {"before training": layer_map([teacher, student], [rows, columns], inputs)}
    for method, folder in folders.items():
        recipe = without_teachers(parse_recipe(folder / "recipe.yaml")).build()
        _, student = setup_finished_run(recipe, folder)
        if layers_of(student, few) == columns:
            maps[method] = layer_map([teacher, student], [rows, columns], inputs)
    return {"rows": rows, "columns": columns, "samples": len(batch.ids), "maps": maps}


def _setup_with_teacher(folders: Iterable[Path]) -> Setup | None:
    """Return the setup of the first run that has one teacher."""
    for folder in folders:
        recipe = load_recipe(folder / "recipe.yaml")
        if recipe.teacher is not None and recipe.teacher.model is not None:
            return Setup.of(recipe)
    return None
