"""The page of a study: methods × seeds in one table, differences to the baseline, curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tutelage.analysis.formatting import (
    NUM_SAMPLES,
    finite,
    format_fixed,
    format_short,
    is_class_metric,
    metric_format,
)
from tutelage.analysis.study import BASELINE, MeanStd
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
from tutelage.report.charts import Chart, Series, line_chart, strip_chart
from tutelage.report.folder import errors_of, read_text, subtitle
from tutelage.report.maps import LayerMaps, MapView
from tutelage.report.pictures import picture_sections
from tutelage.report.read_maps import read_study_maps
from tutelage.report.run import SIDES, difference_maps, folder_title
from tutelage.report.run_outcome import metric_cell
from tutelage.report.study_folder import Study, read_study
from tutelage.report.study_outcome import outcome


def study_page(folder: Path) -> Page:
    """Return the page of a study's folder: results.json, and the runs where they lie beside it."""
    study = read_study(folder)
    with errors_of(folder / "results.json"):
        first = outcome(study)
        seeds: list[Block] = [*_seed_charts(study), _runs_table(study)]
        environment = Listing.of(study.provenance)
        page_subtitle = subtitle(folder, study.provenance["time"])
        strokes = study.strokes()
    sections = [Section("Outcome", first), Section("Seed by seed", seeds)]
    sections += picture_sections([(method, study.first_run(method)) for method in strokes])
    curves = _curves(study)
    if curves:
        sections.append(Section("Validation", curves))
    if (folder / "layer_maps.json").is_file():
        maps = _maps(read_study_maps(folder / "layer_maps.json"))
        sections.append(Section("How the layers agree", maps))
    recipes = {method: study.first_run(method) / "recipe.yaml" for method in study.summary}
    texts = [Text(method, read_text(path)) for method, path in recipes.items() if path.is_file()]
    if texts:
        sections.append(Section("Recipes as run", texts))
    sections.append(Section("Environment", [environment]))
    return Page(folder_title(folder), page_subtitle, sections)


def _seed_charts(study: Study) -> list[Block]:
    text = "A circle is a seed, the upright mark the mean over seeds"
    differences = _difference_chart(study)
    if differences is not None:
        text += (
            "; a bar is the 95 % confidence interval of the mean difference to "
            f"{BASELINE}, paired by seed"
        )
    charts = [chart for chart in (_seed_chart(study), differences) if chart is not None]
    return [Note(f"{text}."), Charts(charts)] if charts else []


def _seed_chart(study: Study) -> Chart | None:
    style = metric_format(study.monitor)
    rows = []
    for method in study.summary:
        runs = study.runs[method]
        values = {seed: runs[seed]["test"][study.monitor] for seed in study.seeds(method)}
        points = _finite_points(values, style.scale)
        if points:
            rows.append((Series(method, points), None))
    if not rows:
        return None
    strokes = study.strokes()
    return strip_chart(f"test {style.label}", rows, [strokes[line.name] for line, _ in rows])


def _difference_chart(study: Study) -> Chart | None:
    style = metric_format(study.monitor)
    all_strokes = study.strokes()
    rows = []
    strokes = []
    for method, row in study.summary.items():
        difference = row.get("difference")
        if difference is None:
            continue
        seeds = [seed for seed in study.seeds(method) if seed in study.runs[BASELINE]]
        pairs = dict(zip(seeds, difference["pairs"], strict=True))
        points = _finite_points(pairs, style.scale)
        if not points:
            continue
        low, high = (finite(bound) for bound in difference["interval95"])
        interval = None
        if low is not None and high is not None:
            interval = (style.scale * low, style.scale * high)
        rows.append((Series(method, points), interval))
        strokes.append(all_strokes[method])
    title = f"difference to {BASELINE}, {style.label}"
    if not rows:
        return None
    return strip_chart(title, rows, strokes, zero=True)


def _finite_points(values: Mapping[str, Any], scale: float) -> list[tuple[float, float]]:
    """Return (seed, value) of the seeds that have a finite value."""
    return [
        (float(seed), scale * value) for seed, value in values.items() if finite(value) is not None
    ]


def _runs_table(study: Study) -> Table:
    metrics = [name for name in study.metric_names() if not is_class_metric(name)]
    labels = [metric_format(name).label for name in metrics]
    rows = []
    for method in study.summary:
        for seed in study.seeds(method):
            run = study.runs[method][seed]
            epoch = int(run["best"]["epoch"])
            rows.append(
                [
                    Cell(method),
                    Cell(seed, int(seed)),
                    *(metric_cell(name, run["test"].get(name)) for name in metrics),
                    Cell(str(epoch), epoch),
                    Cell(format_fixed(run["seconds"], 1), run["seconds"]),
                ]
            )
    columns = ["method", "seed", *labels, "best epoch", "seconds"]
    return Table("Every run", columns, rows, summary="Every run")


def _curves(study: Study) -> list[Block]:
    """Return a chart for each validation metric, over the runs whose logs are there."""
    strokes = study.strokes()
    lines: dict[str, dict[str, Series]] = {}  # by metric and method
    for method in strokes:
        by_run = study.validation_series(method)
        for name in dict.fromkeys(name for series in by_run for name in series):
            line = _mean_series(method, name, [series[name] for series in by_run if name in series])
            if name != NUM_SAMPLES and not is_class_metric(name) and line.points:
                lines.setdefault(name, {})[method] = line
    if not lines:
        return []
    charts = []
    for name, by_method in lines.items():
        method_strokes = [strokes[method] for method in by_method]
        title = metric_format(name).label
        charts.append(line_chart(title, list(by_method.values()), strokes=method_strokes))
    text = "Mean over seeds; the band is one standard deviation to either side."
    return [Note(text), Charts(charts, list(strokes.items()))]


def _mean_series(method: str, name: str, lines: Sequence[Series]) -> Series:
    """Return the mean of a metric over seeds, at the epochs that all runs have."""
    scale = metric_format(name).scale
    tables = [dict(line.points) for line in lines]
    points = []
    bounds = []
    for epoch in sorted(set.intersection(*(set(table) for table in tables))):
        stats = MeanStd.of([scale * table[epoch] for table in tables])
        points.append((epoch, stats.mean))
        bounds.append((stats.mean - stats.std, stats.mean + stats.std))
    return Series(method, points, bounds if len(lines) > 1 else ())


def _maps(layers: LayerMaps) -> list[Block]:
    first = next(iter(layers.maps))
    views = []
    for title, values in layers.maps.items():
        single = LayerMaps(layers.rows, layers.columns, layers.samples, {title: values})
        reference = None if title == first else (first, layers.maps[first])
        views.append(MapView(single, SIDES, heading=title, reference=reference))
    text = (
        "Similarity (linear CKA, centered, debiased) of every teacher layer to every student layer "
        f"on the same {format_short(layers.samples)} test images, of the first seed: {first}, and "
        "after each method."
    )
    return [Note(text), Maps(views), *difference_maps(layers)]
