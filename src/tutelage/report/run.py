"""The page of one run: metrics, curves, the strength of each term, cost, the recipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tutelage.analysis.formatting import (
    MISSING,
    NUM_SAMPLES,
    finite,
    format_short,
    metric_format,
)
from tutelage.analysis.study_table import Cell
from tutelage.report.blocks import (
    Block,
    Charts,
    Listing,
    Maps,
    Note,
    Page,
    Section,
    Table,
    Text,
)
from tutelage.report.charts import Chart, Series, line_chart
from tutelage.report.folder import errors_of, read_json, read_lines, read_text, subtitle
from tutelage.report.maps import LayerMaps, MapView
from tutelage.report.pictures import picture_sections
from tutelage.report.read_maps import read_epoch_maps
from tutelage.report.run_outcome import facts, metrics_table

SIDES = ("teacher", "student")


CAP = (
    "Gradients on the student’s parameters: how many times longer the method’s is than the "
    "labels’, the cosine of their angle, and the factor that keeps it from being longer."
)
CAP_TITLES = {
    "weight": "factor of the method’s terms",
    "ratio": "method’s gradient / labels’",
    "cosine": "cosine of the angle",
}


def run_page(folder: Path) -> Page:
    """Return the page of a finished run's folder; see `engine.run_folder` for its files."""
    metrics = read_json(folder / "metrics.json")
    scales = read_json(folder / "loss_scale.json")
    records = read_lines(folder / "log.jsonl")
    environment = read_json(folder / "environment.json")
    with errors_of(folder / "metrics.json"):
        outcome: list[Block] = [facts(metrics), metrics_table(metrics)]
        best_epoch = int(metrics["best"]["epoch"])
    with errors_of(folder / "log.jsonl"):
        curves = _curves(records, best_epoch)
    with errors_of(folder / "loss_scale.json"):
        terms = _terms(scales)
    with errors_of(folder / "environment.json"):
        machine = Listing.of(environment)
        page_subtitle = subtitle(folder, environment["time"])
    sections = [
        Section("Outcome", outcome),
        *picture_sections([("student", folder)]),
        *curves,
        Section("Before the first step", terms),
    ]
    if (folder / "layer_maps.jsonl").is_file():
        maps = _epoch_maps(read_epoch_maps(folder / "layer_maps.jsonl"))
        sections.append(Section("How the layers came to agree", maps))
    recipe = Text(
        "The recipe as run, every default filled in",
        read_text(folder / "recipe.yaml"),
        printed=True,
    )
    sections.append(Section("Recipe", [recipe]))
    sections.append(Section("Environment", [machine]))
    return Page(folder_title(folder), page_subtitle, sections)


def folder_title(folder: Path) -> str:
    """Return a folder's name, with its parent's for a seed of a study."""
    path = folder.resolve()
    return f"{path.parent.name}, {path.name}" if path.name.startswith("seed") else path.name


def metric_series(records: Sequence[tuple[int, Mapping[str, float]]]) -> dict[str, Series]:
    """Return a series for each name, over the epochs that have a finite value of it.

    Args:
        records: epoch, and values by name.
    """
    points: dict[str, list[tuple[float, float]]] = {}
    for epoch, values in records:
        for name, value in values.items():
            if finite(value) is not None:
                points.setdefault(name, []).append((epoch, float(value)))
    return {name: Series(name, values) for name, values in points.items()}


def _curves(records: Sequence[Mapping[str, Any]], best_epoch: int) -> list[Section]:
    terms = metric_series([(record["epoch"], record["terms"]) for record in records])
    metrics = metric_series([(record["epoch"], record["validation"]) for record in records])
    caps = [(record["epoch"], record.get("gradient_cap", {})) for record in records]
    rates = Series("learning rate", [(record["epoch"], record["lr"]) for record in records])
    term_charts = [line_chart(name, [series]) for name, series in terms.items()]
    if rates.points:
        term_charts.append(line_chart("learning rate", [rates]))
    sections = [Section("Terms of the loss, mean over each epoch", [Charts(term_charts)])]
    cap_charts = [
        line_chart(CAP_TITLES.get(name, name), [series])
        for name, series in metric_series(caps).items()
    ]
    if cap_charts:
        sections.append(Section("The method beside the labels", [Note(CAP), Charts(cap_charts)]))
    metric_charts = [
        _metric_chart(series, best_epoch) for name, series in metrics.items() if name != NUM_SAMPLES
    ]
    if metric_charts:
        sections.append(Section("Validation", [Charts(metric_charts)]))
    return sections


def _metric_chart(series: Series, best_epoch: int) -> Chart:
    style = metric_format(series.name)
    points = [(epoch, value * style.scale) for epoch, value in series.points]
    marker = (best_epoch, f"best epoch, {best_epoch}")
    return line_chart(style.label, [Series(series.name, points)], marker)


def _terms(scales: Sequence[Mapping[str, Any]]) -> list[Block]:
    text = (
        "Each term at its full weight on one batch: its value, the norm of its gradient on the "
        "student, and how many times harder than the labels it pulls."
    )
    rows = []
    for scale in scales:
        ratio = scale["ratio"]
        rows.append(
            [
                Cell(str(scale["term"])),
                Cell(format_short(scale["value"]), finite(scale["value"])),
                Cell(format_short(scale["gradient"]), finite(scale["gradient"])),
                Cell(MISSING if ratio is None else f"{ratio:.3g} ×", finite(ratio)),
            ]
        )
    columns = ["term", "value", "gradient norm", "to the labels"]
    return [Note(text), Table("Terms before the first step", columns, rows)]


def _epoch_maps(layers: LayerMaps) -> list[Block]:
    """Return a map with a slider, and what it shows."""
    view = MapView(layers, SIDES)
    text = (
        "Similarity of every teacher layer to every student layer on the same "
        f"{format_short(layers.samples)} samples, from {view.titles[0]} to {view.titles[-1]}. "
        "Move the slider to see how the student's features moved."
    )
    return [Note(text), Maps([view]), *difference_maps(layers, with_slider=True)]


def difference_maps(layers: LayerMaps, with_slider: bool = False) -> list[Block]:
    """Return what every map has more than the first one; nothing if there is no other.

    Args:
        layers: maps, the first of them before training.
        with_slider: whether one map has a slider, or each map stands by itself.
    """
    differences = layers.differences()
    if differences is None:
        return []
    first = next(iter(layers.maps))
    views = [MapView(differences, SIDES, "difference in CKA")]
    if not with_slider:
        views = [
            MapView(replace(differences, maps={title: values}), SIDES, "difference in CKA", title)
            for title, values in differences.maps.items()
        ]
    text = (
        f"What changed: every similarity minus that of “{first}”. Red is more alike than it was, "
        "blue less; the colors end at the largest change of all."
    )
    return [Note(text), Maps(views, scale=differences.scale)]
