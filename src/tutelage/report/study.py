"""The page of a study: methods × seeds in one table, differences to the baseline, curves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from tutelage.analysis.formatting import (
    MISSING,
    NUM_SAMPLES,
    finite,
    format_fixed,
    format_metric,
    format_short,
    metric_format,
)
from tutelage.analysis.study import BASELINE, MeanStd
from tutelage.analysis.study_table import (
    Cell,
    Column,
    Row,
    StudyTable,
    difference_column,
    mean_column,
    memory_column,
    method_column,
    metric_column,
    parameters_column,
    step_ratio_column,
)
from tutelage.report.blocks import (
    Block,
    Charts,
    Facts,
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
from tutelage.report.maps import LayerMaps, MapView, read_study_maps
from tutelage.report.pictures import picture_sections
from tutelage.report.run import SIDES, extra_costs, folder_title, metric_cell
from tutelage.report.study_folder import Study, read_study


def study_page(folder: Path) -> Page:
    """Return the page of a study's folder: results.json, and the runs where they lie beside it."""
    study = read_study(folder)
    with errors_of(folder / "results.json"):
        outcome: list[Block] = [_facts(study), _table(study), Note(_explanation(study))]
        seeds: list[Block] = [*_seed_charts(study), _runs_table(study)]
        environment = Listing.of(study.provenance)
        page_subtitle = subtitle(folder, study.provenance["time"])
    sections = [Section("Outcome", outcome), Section("Seed by seed", seeds)]
    sections += picture_sections([(method, study.first_run(method)) for method in study.strokes()])
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


def _facts(study: Study) -> Facts:
    runs = study.all_runs()
    seeds = {seed for by_seed in study.runs.values() for seed in by_seed}
    samples = format_short(runs[0]["test"].get(NUM_SAMPLES))
    facts = [
        ("methods", str(len(study.summary)), ", ".join(study.summary)),
        ("seeds", str(len(seeds)), "each method with the same ones"),
        ("test samples", samples, "used once, at the end of each run"),
    ]
    with_teacher = [run for run in runs if run["teacher"]]
    if with_teacher:
        run = with_teacher[0]
        value = format_metric(study.monitor, run["teacher"]["validation"].get(study.monitor))
        size = format_short(run["parameters"]["teacher"])
        label = f"teacher’s {metric_format(study.monitor).label}"
        facts.append((label, value, f"on validation data; {size} parameters"))
    return Facts(facts)


def _table(study: Study) -> Table:
    label = metric_format(study.monitor).label
    metrics = _metric_names(study)
    costs = dict.fromkeys(name for run in study.all_runs() for name in extra_costs(run))
    columns = [
        method_column(),
        metric_column(study.monitor),
        difference_column(study.monitor),
        metric_column(study.monitor, "last", header=f"last epoch, {label}"),
        mean_column("best epoch", lambda row: row["best_epoch"], digits=0),
        metric_column(study.monitor, "validation", header=f"validation, {label}"),
        parameters_column("student", header="parameters"),
        parameters_column("method", header="method’s parameters"),
        mean_column("seconds", lambda row: row["seconds"], digits=1),
        mean_column("ms per step", lambda row: row["cost"]["step_ms"], digits=2),
        step_ratio_column(),
        memory_column(header="more memory, MiB"),
        *(_cost_column(study, name) for name in costs),
        *(metric_column(name) for name in metrics if name != study.monitor),
    ]
    table = StudyTable.of(study.summary, columns)
    return Table("Methods", table.header, table.rows)


def _metric_names(study: Study) -> list[str]:
    names = dict.fromkeys(name for row in study.summary.values() for name in row["test"])
    return [name for name in names if name != NUM_SAMPLES]


def _cost_column(study: Study, name: str) -> Column:
    """Return the column of a cost that the runs have and the summary does not."""

    def cell(method: str, row: Row) -> Cell:
        costs = [extra_costs(run) for run in study.runs[method].values()]
        values = [cost[name] for cost in costs if name in cost]
        return Cell(format_fixed(fmean(values), 2), fmean(values)) if values else Cell(MISSING)

    return Column(name, cell)


def _explanation(study: Study) -> str:
    checkpoints = sorted({run["checkpoint"] for run in study.all_runs()})
    label = metric_format(study.monitor).label
    text = (
        f"Mean ± standard deviation over seeds, on test data, at the {' or '.join(checkpoints)} "
        f"epoch. “− {BASELINE}” is the difference in {label} to {BASELINE}, paired by seed, with "
        "its 95 % interval; it stands out where the interval excludes zero."
    )
    missing = [method for method in study.runs if method not in study.summary]
    return text + (f" Without a finished run: {', '.join(missing)}." if missing else "")


def _seed_charts(study: Study) -> list[Block]:
    charts = [_seed_chart(study)]
    text = "A circle is a seed, the upright mark the mean over seeds"
    if any("difference" in row for row in study.summary.values()):
        charts.append(_difference_chart(study))
        text += f"; a bar is the 95 % interval of the paired difference to {BASELINE}"
    return [Note(f"{text}."), Charts(charts)]


def _seed_chart(study: Study) -> Chart:
    style = metric_format(study.monitor)
    rows = []
    for method in study.summary:
        runs = study.runs[method]
        points = [
            (float(seed), style.scale * runs[seed]["test"][study.monitor])
            for seed in study.seeds(method)
        ]
        rows.append((Series(method, points), None))
    strokes = study.strokes()
    return strip_chart(f"test {style.label}", rows, [strokes[method] for method in study.summary])


def _difference_chart(study: Study) -> Chart:
    style = metric_format(study.monitor)
    all_strokes = study.strokes()
    rows = []
    strokes = []
    for method, row in study.summary.items():
        difference = row.get("difference")
        if difference is None:
            continue
        seeds = [seed for seed in study.seeds(method) if seed in study.runs[BASELINE]]
        points = [
            (float(seed), style.scale * value)
            for seed, value in zip(seeds, difference["pairs"], strict=True)
        ]
        low, high = (finite(bound) for bound in difference["interval95"])
        interval = None
        if low is not None and high is not None:
            interval = (style.scale * low, style.scale * high)
        rows.append((Series(method, points), interval))
        strokes.append(all_strokes[method])
    title = f"difference to {BASELINE}, {style.label}"
    return strip_chart(title, rows, strokes, zero=True)


def _runs_table(study: Study) -> Table:
    metrics = _metric_names(study)
    labels = [metric_format(name).label for name in metrics]
    rows = []
    for method in study.summary:
        for seed in study.seeds(method):
            run = study.runs[method][seed]
            epoch = run["best"]["epoch"]
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
            if name != NUM_SAMPLES and line.points:
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
    return [Note(text), Maps(views)]
