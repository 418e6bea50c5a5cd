"""The files of a study: results.json, a table, and a picture of how the layers agree."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tutelage.analysis import layer_map, layers_of, split_inputs
from tutelage.analysis.formatting import NUM_SAMPLES
from tutelage.analysis.study import check_runs, collect, summarize
from tutelage.analysis.study_table import study_table_text
from tutelage.cli.networks import without_teachers
from tutelage.engine import provenance
from tutelage.engine.finished_run import setup_finished_run
from tutelage.engine.setup import Setup
from tutelage.errors import UserError
from tutelage.io import read_json, write_json, write_text
from tutelage.recipes import load_recipe, parse_recipe
from tutelage.report import draw_layer_maps
from tutelage.tasks import Classification, OpenSetClassification

MAP_ITEMS = 512
LAYER_ITEMS = 4  # items with which the layers of a network are found


def write_study(out: Path, methods: Sequence[str], seeds: int, monitor: str) -> str:
    """Write results.json, with the test metrics of teachers, and table.txt; return the table.

    Args:
        out: folder of the study.
        methods: names of the folders in it.
        seeds: seeds 0 … N-1.
        monitor: the metric in which methods are compared.

    Raises:
        UserError: If the metrics of a run are damaged or of another version; nothing is written.
    """
    runs = collect(out, methods, seeds)
    check_runs(runs, monitor, out)
    _warn_other_data(runs, out)
    summary = summarize(runs, monitor)
    content = {
        "provenance": provenance(),
        "monitor": monitor,
        "summary": summary,
        "runs": runs,
        "teachers": teachers_on_test_data(out, summary),
    }
    write_json(out / "results.json", content)
    text = study_table_text(summary, monitor)
    write_text(out / "table.txt", text + "\n")
    return text


def _warn_other_data(runs: Mapping[str, Mapping[int, Mapping[str, Any]]], out: Path) -> None:
    """Say if runs were tested on different numbers of samples, as after files were added."""
    tested = [run["test"].get(NUM_SAMPLES) for by_seed in runs.values() for run in by_seed.values()]
    counts = sorted({int(count) for count in tested if count is not None})
    if len(counts) > 1:
        print(
            f"warning: the runs in {out} were tested on different numbers of samples "
            f"({', '.join(map(str, counts))}), so the data changed between them; remove those that "
            "are of the old data and give the command again",
            file=sys.stderr,
        )


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

    Raises:
        UserError: If there is a results.json that is damaged or of something else.
    """
    earlier = _earlier_runs(out / "results.json", monitor)
    # A run counts by its folder, so that a number in a file never makes a loop over it.
    found = [
        int(seed) + 1
        for method, by_seed in earlier.items()
        for seed in by_seed
        if (out / method / f"seed{seed}").is_dir()
    ]
    return list(dict.fromkeys([*earlier, *methods])), max([seeds, *found])


def _earlier_runs(path: Path, monitor: str) -> dict[str, list[str]]:
    """Return the seeds of each method of an earlier study; nothing without a file.

    Raises:
        UserError: If the file is damaged, or not that of a study: it would be lost.
    """
    if not path.exists():
        return {}
    fix = "move it away and give the command again; runs that are done are kept"
    try:
        content: Any = read_json(path, fix)
        if content["monitor"] != monitor:
            return {}
        runs = {method: list(by_seed) for method, by_seed in content["runs"].items()}
        if any(Path(method).name != method for method in runs):
            raise ValueError("a method has the name of a path")
        if not all(seed.isdecimal() for seeds in runs.values() for seed in seeds):
            raise ValueError("a seed is no number")
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise UserError(f"{path} is not the file of a study ({error}); {fix}") from None
    return runs


def teachers_on_test_data(out: Path, methods: Iterable[str]) -> dict[str, Any]:
    """Return the test metrics of each method's teacher, where its run has the same test data.

    Args:
        out: folder of the study.
        methods: names of the folders in it.
    """
    teachers = {}
    for method in methods:
        recipe = next(iter(sorted((out / method).glob("seed*/recipe.yaml"))), None)
        metrics = None if recipe is None else _teacher_test_metrics(recipe)
        if metrics:
            teachers[method] = metrics
    return teachers


def _teacher_test_metrics(recipe: Path) -> dict[str, Any]:
    """Return the test metrics of a run's teacher, or of each by name; nothing if unknown."""
    try:
        parsed = parse_recipe(recipe)
        metrics: dict[str, Any] = {}
        for key, teacher in parsed.teachers().items():
            run = Path(teacher.weights or "")
            run = run.parent if run.is_file() else run
            if not (run / "metrics.json").is_file():
                continue
            # The same data section gives the same test part, however many labels are used.
            if parse_recipe(run / "recipe.yaml").config.data != parsed.config.data:
                continue
            test: Any = read_json(run / "metrics.json", "")["test"]
            name = key.partition(".")[2]
            metrics |= {f"{name}/{metric}" if name else metric: test[metric] for metric in test}
    except (UserError, KeyError, TypeError, OSError):  # a figure less; the table stands without it
        return {}
    return metrics


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
