"""The page of a search by `tutelage tune`: its trials, what each number matters, its curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tutelage.analysis.formatting import (
    MISSING,
    finite,
    format_fixed,
    format_metric,
    metric_format,
)
from tutelage.analysis.study_table import Cell
from tutelage.report.blocks import Block, Charts, Facts, Listing, Note, Page, Section, Table, Text
from tutelage.report.charts import Series, Stroke, line_chart
from tutelage.report.folder import errors_of, read_json, read_text, subtitle
from tutelage.report.run import folder_title

CURVES = 6  # of the best trials
IMPORTANCE = (
    "How much of the differences between trials each number explains, by a random forest (fANOVA): "
    "1 is all. The scores are those after the first epochs, which trials that were ended early "
    "have, too; few trials say little."
)

Trial = Mapping[str, Any]


def search_page(folder: Path) -> Page:
    """Return the page of a search's folder: tune.json, and the best recipe beside it."""
    path = folder / "tune.json"
    content = read_json(path)
    with errors_of(path):
        trials = list(content["trials"])
        best = next(trial for trial in trials if trial["position"] == content["best"])
        monitor = str(content["monitor"])
        sections = [
            Section("Outcome", [_facts(content, trials, best), _note(content)]),
            Section("Trials", [_trials_table(content, trials, monitor)]),
            Section("What matters", _importance(content["methods"])),
            Section("Scores on validation data", _curves(trials, monitor)),
        ]
        environment = Listing.of(content["provenance"])
        page_subtitle = subtitle(folder, content["provenance"]["time"])
    recipe = Text("The best recipe", read_text(folder / "best.yaml"), printed=True)
    sections += [Section("Recipe", [recipe]), Section("Environment", [environment])]
    return Page(folder_title(folder), page_subtitle, sections)


def _facts(content: Mapping[str, Any], trials: Sequence[Trial], best: Trial) -> Facts:
    monitor = content["monitor"]
    label = metric_format(monitor).label
    counts = {state: 0 for state in ("done", "stopped", "failed")}
    for trial in trials:
        counts[trial["state"]] = counts.get(trial["state"], 0) + 1
    states = (
        f"{counts['done']} to their end, {counts['stopped']} ended early, {counts['failed']} failed"
    )
    facts = [
        (
            f"validation {label}",
            format_metric(monitor, best["score"]),
            f"trial {best['position'] + 1}, the best; {best['method']}: {_numbers(best['values'])}",
        ),
        ("without a method", format_metric(monitor, content["baseline"]), "the student alone"),
        ("trials", str(len(trials)), states),
    ]
    for trial in trials:
        if trial["number"] == 0:
            figure = format_metric(monitor, trial["score"])
            facts.append((f"{trial['method']} as it was", figure, _numbers(trial["values"])))
    return Facts(facts)


def _note(content: Mapping[str, Any]) -> Note:
    return Note(
        f"All scores are on validation data, with seed {content['seed']}; test data was not read. "
        "The best of many flatters itself: compare it on test data and with other seeds, by "
        "tutelage study on this folder. Recipes took turns, with the same number of trials each, "
        "and the first trial of a recipe has its own numbers. A trial was ended early where it was "
        f"not the best of each {content['reduction']} of its recipe that came as far."
    )


def _trials_table(content: Mapping[str, Any], trials: Sequence[Trial], monitor: str) -> Table:
    methods = content["methods"]
    names = list(dict.fromkeys(name for method in methods.values() for name in method["own"]))
    label = metric_format(monitor).label
    columns = ["trial", "recipe", *names, f"validation {label}", "epochs", "end", "seconds"]
    rows = []
    for trial in trials:
        number = trial["position"]
        end = f"failed: {trial['error']}" if trial["state"] == "failed" else trial["state"]
        rows.append(
            [
                Cell(str(number + 1), number),
                Cell(trial["method"]),
                *(_number_cell(trial["values"].get(name)) for name in names),
                Cell(format_metric(monitor, trial["score"]), finite(trial["score"])),
                Cell(str(trial["epochs"]), trial["epochs"]),
                Cell(end),
                Cell(format_fixed(trial["seconds"], 1), finite(trial["seconds"])),
            ]
        )
    end_column = len(columns) - 2
    return Table("Trials", columns, rows, text_columns=(1, end_column))


def _numbers(values: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:g}" for name, value in values.items())


def _number_cell(value: float | None) -> Cell:
    return Cell(MISSING) if value is None else Cell(f"{value:g}", value)


def _importance(methods: Mapping[str, Any]) -> list[Block]:
    """Return a table for each recipe with enough trials."""
    blocks: list[Block] = []
    for name, method in methods.items():
        found = method["importance"]
        if found is None:
            continue
        if not blocks:
            blocks.append(Note(IMPORTANCE))
        rows = [
            [
                Cell(number),
                Cell(format_fixed(share, 2), share),
                *(Cell(f"{bound:.4g}", bound) for bound in method["ranges"][number]),
            ]
            for number, share in found["shares"].items()
        ]
        columns = ["number", "share", "lowest", "highest"]
        title = f"{name}, {found['trials']} trials, scores after epoch {found['epoch']}"
        blocks.append(Table(title, columns, rows, caption=title))
    few = [name for name, method in methods.items() if method["importance"] is None]
    if few:
        blocks.append(Note(f"Too few trials or numbers to say: {', '.join(few)}."))
    return blocks


def _curves(trials: Sequence[Trial], monitor: str) -> list[Block]:
    style = metric_format(monitor)
    scored = [trial for trial in trials if finite(trial["score"]) is not None]
    scored.sort(key=lambda trial: (trial["state"] != "done", -trial["score"]))
    lines = [_line(trial, style.scale) for trial in scored[:CURVES]]
    lines = [line for line in lines if line.points]
    if not lines:
        return [Note("No trial has a finite score.")]
    strokes = [Stroke.of(i) for i in range(len(lines))]
    chart = line_chart(f"the best trials: {style.label}", lines, strokes=strokes)
    history = _history(trials, style.scale)
    charts = [chart]
    if history.points:
        charts.append(line_chart(f"the best so far: {style.label}", [history], x_label="trial"))
    legend = [(line.name, stroke) for line, stroke in zip(lines, strokes, strict=True)]
    return [Charts(charts, legend)]


def _line(trial: Trial, scale: float) -> Series:
    points = [
        (float(epoch), scale * score)
        for epoch, score in trial["curve"]
        if finite(score) is not None
    ]
    return Series(f"trial {trial['position'] + 1}, {trial['method']}", points)


def _history(trials: Sequence[Trial], scale: float) -> Series:
    """Return the best score of the trials so far that ran to their end."""
    points: list[tuple[float, float]] = []
    for trial in trials:
        score = finite(trial["score"])
        if trial["state"] == "done" and score is not None:
            best = max([scale * score, *(value for _, value in points)])
            points.append((trial["position"] + 1.0, best))
    return Series("best so far", points)
