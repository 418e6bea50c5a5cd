"""The page of a study: methods × seeds in one table, differences to the baseline, curves with their spread."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from tutelage.report.blocks import Block, Cell, Charts, Facts, Listing, Maps, Note, Page, Section, Table, Text
from tutelage.report.charts import Series, Stroke, line_chart, strip_chart
from tutelage.report.folder import read_json, read_lines, read_text, understood
from tutelage.report.maps import LayerMaps, View, read_study_maps
from tutelage.report.numbers import COUNT, NOTHING, described, figure, fixed, known, moment, short, spread, unit
from tutelage.report.pictures import picture_sections
from tutelage.report.run import SIDES, extra_costs, named_series, step_time, title_of

BASELINE = "alone"
Runs = Mapping[str, Mapping[str, Any]]  # metrics.json by method and seed


def study_page(folder: Path) -> Page:
    """Return the page of a study's folder: results.json, and the runs' logs and recipes where they lie beside it."""
    results = read_json(folder / "results.json")
    with understood(folder / "results.json"):
        summary, runs, provenance = results["summary"], results["runs"], results["provenance"]
        if not summary:
            raise ValueError("it holds no finished run")
        main = str(results.get("select") or _main(summary))
        strokes = {method: Stroke.of(i) for i, method in enumerate(sorted(summary, key=lambda m: m != BASELINE))}
        outcome: list[Block] = [
            _facts(summary, runs, main),
            _table(summary, runs, main),
            Note(_reading(summary, runs, main)),
        ]
        seeds = _points(summary, runs, main, strokes)
        listing, told = Listing(described(provenance)), f"{folder} · {moment(provenance['time'])}"
    sections = [Section("Outcome", outcome), Section("Seed by seed", seeds)]
    firsts = [(method, folder / method / f"seed{min(runs[method], key=int)}") for method in strokes]
    sections += picture_sections([("student alone" if method == BASELINE else method, run) for method, run in firsts])
    curves = _curves(folder, runs, strokes)
    sections += [Section("Validation", curves)] if curves else []
    if (folder / "layer_maps.json").is_file():
        sections.append(Section("How the layers agree", _maps(read_study_maps(folder / "layer_maps.json"))))
    recipes = [(method, folder / method / f"seed{min(runs[method], key=int)}" / "recipe.yaml") for method in summary]
    texts = [Text(method, read_text(path)) for method, path in recipes if path.is_file()]
    sections += [Section("Recipes as run", texts)] if texts else []
    return Page(title_of(folder), told, [*sections, Section("Environment", [listing])])


def _main(summary: Mapping[str, Any]) -> str:
    """Return the figure that methods are compared in."""
    compared = [row["difference"]["figure"] for row in summary.values() if "figure" in row.get("difference", {})]
    return compared[0] if compared else str(next(iter(next(iter(summary.values()))["test"])))


def _facts(summary: Mapping[str, Any], runs: Runs, main: str) -> Facts:
    count = len({seed for by_seed in runs.values() for seed in by_seed})
    first = next(iter(runs[next(iter(summary))].values()))
    facts = [
        ("methods", str(len(summary)), ", ".join(summary)),
        ("seeds", str(count), "each method with the same ones"),
    ]
    facts.append(("test items", short(first["test"].get(COUNT)), "used once, at the end of each run"))
    taught = [m["teacher"]["validation"] for by_seed in runs.values() for m in by_seed.values() if m["teacher"]]
    if taught:
        sizes = [m["parameters"]["teacher"] for by_seed in runs.values() for m in by_seed.values() if m["teacher"]]
        note = f"on validation data; {short(sizes[0])} parameters"
        facts.append((f"teacher’s {unit(main).label}", figure(main, taught[0].get(main)), note))
    return Facts(facts)


def _table(summary: Mapping[str, Any], runs: Runs, main: str) -> Table:
    names = list(dict.fromkeys(name for row in summary.values() for name in row["test"]))
    others = [name for name in names if name not in (main, COUNT)]
    costs = list(dict.fromkeys(name for by_seed in runs.values() for m in by_seed.values() for name in extra_costs(m)))
    columns = ["method", unit(main).label, f"− {BASELINE} [95 %]", f"last epoch, {unit(main).label}", "best epoch"]
    columns += [f"validation, {unit(main).label}"]
    columns += ["parameters", "method’s parameters", "seconds", "ms per step", f"step / {BASELINE}", "more memory, MiB"]
    columns += [*costs, *(unit(name).label for name in others)]
    rows = []
    for method, row in summary.items():
        metrics = list(runs[method].values())
        cells = [Cell(method), _spread(main, row["test"]), _difference(row.get("difference"), main)]
        cells += [_spread(main, row["last"]), _mean([m["best"]["epoch"] for m in metrics], 0)]
        cells += [_spread(main, row.get("validation", {}))]
        cells += [Cell(short(size), size) for size in (row["parameters"][of] for of in ("student", "method"))]
        cells += [_mean([m["seconds"] for m in metrics], 1)]
        cells += [_mean([step_time(m) for m in metrics], 2), *_against(row.get("cost", {}))]
        cells += [_mean([extra_costs(m).get(cost) for m in metrics], 2) for cost in costs]
        rows.append([*cells, *(_spread(name, row["test"]) for name in others)])
    return Table("Methods", columns, rows)


def _against(cost: Mapping[str, Any]) -> list[Cell]:
    """Return a step's time as a ratio to the baseline's, and the memory that is more than the baseline's."""
    ratio, memory = cost.get("step_ratio"), cost.get("extra_peak_gpu_mib") or cost.get("extra_peak_mib")
    return [_mean([ratio["mean"]] if ratio else [], 2), _mean([memory["mean"]] if memory else [], 0)]


def _spread(name: str, figures: Mapping[str, Any]) -> Cell:
    found = figures.get(name)
    return Cell(spread(name, found), None if found is None else known(found["mean"]))


def _difference(found: Mapping[str, Any] | None, main: str) -> Cell:
    if found is None:
        return Cell(NOTHING)
    low, high = (known(edge) for edge in found["interval95"])
    text = figure(main, found["mean"], sign=True)
    if low is None or high is None:
        return Cell(f"{text} [{NOTHING}]", found["mean"])
    edges = ", ".join(figure(main, edge, sign=True) for edge in (low, high))
    return Cell(f"{text} [{edges}]", found["mean"], strong=low > 0 or high < 0)


def _mean(values: Sequence[float | None], digits: int) -> Cell:
    there = [value for value in values if value is not None]
    return Cell(fixed(fmean(there), digits), fmean(there)) if there else Cell(NOTHING)


def _reading(summary: Mapping[str, Any], runs: Runs, main: str) -> str:
    kept = sorted({m["kept"] for by_seed in runs.values() for m in by_seed.values()})
    text = (
        f"Mean ± standard deviation over seeds, on test data, at the {' or '.join(kept)} epoch. “− {BASELINE}” is the "
        f"difference in {unit(main).label} to {BASELINE}, paired by seed, with its 95 % interval; it stands out where "
        "the interval leaves out zero."
    )
    missing = [method for method in runs if method not in summary]
    return text + (f" Without a finished run: {', '.join(missing)}." if missing else "")


def _points(summary: Mapping[str, Any], runs: Runs, main: str, strokes: Mapping[str, Stroke]) -> list[Block]:
    scale = unit(main).scale
    strips, lines, apart, marks = [], [], [], []
    for method, row in summary.items():
        seeds = sorted(runs[method], key=int)
        points = [(float(seed), scale * runs[method][seed]["test"][main]) for seed in seeds]
        strips.append((Series(method, points), None))
        lines.append(strokes[method])
        if row.get("difference"):
            shared = [seed for seed in seeds if seed in runs[BASELINE]]
            gaps = [(float(s), scale * d) for s, d in zip(shared, row["difference"]["pairs"], strict=True)]
            low, high = (known(edge) for edge in row["difference"]["interval95"])
            apart.append((Series(method, gaps), None if low is None or high is None else (scale * low, scale * high)))
            marks.append(strokes[method])
    charts = [strip_chart(f"test {unit(main).label}", strips, lines)]
    if apart:
        title = f"difference to {BASELINE}, {unit(main).label}"
        charts.append(strip_chart(title, apart, marks, zero=True))
    text = "A circle is a seed, the upright mark the mean over seeds"
    text += f"; a bar is the 95 % interval of the paired difference to {BASELINE}." if apart else "."
    return [Note(text), Charts(charts), _every_run(summary, runs)]


def _every_run(summary: Mapping[str, Any], runs: Runs) -> Table:
    names = [n for n in dict.fromkeys(n for row in summary.values() for n in row["test"]) if n != COUNT]
    columns = ["method", "seed", *(unit(name).label for name in names), "best epoch", "seconds"]
    rows = []
    for method in summary:
        for seed in sorted(runs[method], key=int):
            run = runs[method][seed]
            figures = [Cell(figure(name, run["test"].get(name)), known(run["test"].get(name))) for name in names]
            best, seconds = run["best"]["epoch"], run["seconds"]
            costs = [Cell(str(best), best), Cell(fixed(seconds, 1), seconds)]
            rows.append([Cell(method), Cell(seed, int(seed)), *figures, *costs])
    return Table("Every run", columns, rows, folded="Every run")


def _curves(folder: Path, runs: Runs, strokes: Mapping[str, Stroke]) -> list[Block]:
    """Return a chart for each validation figure, over the runs whose logs are there."""
    lines: dict[str, list[Series]] = {}
    drawn: dict[str, list[Stroke]] = {}
    for method, stroke in strokes.items():
        logs = [folder / method / f"seed{seed}" / "log.jsonl" for seed in runs[method]]
        by_run = []
        for log in filter(Path.is_file, logs):
            records = read_lines(log)
            with understood(log):
                by_run.append(named_series([(record["epoch"], record["validation"]) for record in records]))
        for name in dict.fromkeys(name for found in by_run for name in found if name != COUNT):
            series = _over_seeds(method, name, [found[name] for found in by_run if name in found])
            if series.points:
                lines.setdefault(name, []).append(series)
                drawn.setdefault(name, []).append(stroke)
    if not lines:
        return []
    charts = [line_chart(unit(name).label, found, strokes=drawn[name]) for name, found in lines.items()]
    text = "Mean over seeds; the band is one standard deviation to either side."
    return [Note(text), Charts(charts, [*strokes.items()])]


def _over_seeds(method: str, name: str, lines: Sequence[Series]) -> Series:
    scale = unit(name).scale
    tables = [dict(line.points) for line in lines]
    points, edges = [], []
    for epoch in sorted(set.intersection(*(set(table) for table in tables))):
        values = [scale * table[epoch] for table in tables]
        mean = fmean(values)
        sd = (sum((v - mean) ** 2 for v in values) / (len(values) - 1)) ** 0.5 if len(values) > 1 else 0.0
        points.append((epoch, mean))
        edges.append((mean - sd, mean + sd))
    return Series(method, points, edges if len(lines) > 1 else ())


def _maps(layers: LayerMaps) -> list[Block]:
    first = next(iter(layers.maps))
    views = []
    for title, values in layers.maps.items():
        one = LayerMaps(layers.rows, layers.columns, layers.samples, {title: values})
        views.append(View(one, SIDES, named=title, against=None if title == first else (first, layers.maps[first])))
    text = (
        f"Similarity (linear CKA, centred, debiased) of every teacher layer to every student layer on the same "
        f"{short(layers.samples)} test images, of the first seed: {first}, and after each method."
    )
    return [Note(text), Maps(views)]
