"""The page of one run: figures, curves, how hard each term pulls, what it cost, the recipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tutelage.report.blocks import Block, Cell, Charts, Facts, Listing, Maps, Note, Page, Section, Table, Text
from tutelage.report.charts import Chart, Series, line_chart
from tutelage.report.folder import read_json, read_lines, read_text, understood
from tutelage.report.maps import View, read_epoch_maps
from tutelage.report.numbers import COUNT, described, figure, fixed, known, moment, short, unit
from tutelage.report.pictures import picture_sections

KNOWN = frozenset(
    ("kept", "test", "last", "best", "validation", "teacher", "parameters", "seconds", "steps", "seed")
)  # of metrics.json; every other number in it is a cost that we show under its own name


def run_page(folder: Path) -> Page:
    """Return the page of a finished run's folder; see `engine.run_folder` for what lies in it."""
    metrics, scales = read_json(folder / "metrics.json"), read_json(folder / "loss_scale.json")
    records = read_lines(folder / "log.jsonl")
    environment = read_json(folder / "environment.json")
    with understood(folder / "metrics.json"):
        outcome: list[Block] = [_facts(metrics), _figures(metrics)]
        best = int(metrics["best"]["epoch"])
    with understood(folder / "log.jsonl"):
        curves = _curves(records, best)
    with understood(folder / "loss_scale.json"):
        pulls = _pulls(scales)
    with understood(folder / "environment.json"):
        machine = Listing(described(environment))
        told = f"{folder} · {moment(environment['time'])}"
    pictures = picture_sections([("student", folder)])
    sections = [Section("Outcome", outcome), *pictures, *curves, Section("Before the first step", pulls)]
    if (folder / "layer_maps.jsonl").is_file():
        layers = read_epoch_maps(folder / "layer_maps.jsonl")
        sections.append(Section("How the layers came to agree", moving_maps(layers.samples, View(layers, SIDES))))
    recipe = Text("The recipe as run, every default filled in", read_text(folder / "recipe.yaml"), printed=True)
    sections += [Section("Recipe", [recipe]), Section("Environment", [machine])]
    return Page(title_of(folder), told, sections)


SIDES = ("teacher", "student")


def title_of(folder: Path) -> str:
    """Return a folder's name, with its parent's for a seed of a study."""
    path = folder.resolve()
    return f"{path.parent.name}, {path.name}" if path.name.startswith("seed") else path.name


def moving_maps(samples: int | None, view: View) -> list[Block]:
    """Return a map with a slider, and what it shows."""
    text = (
        f"Similarity of every teacher layer to every student layer on the same {short(samples)} samples, from "
        f"{view.titles[0]} to {view.titles[-1]}. Move the slider to see how the student's features moved."
    )
    return [Note(text), Maps([view])]


def extra_costs(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Return every number of metrics.json that has no place of its own, such as a step's time or the memory."""
    found = {name: known(value) for name, value in metrics.items() if name not in KNOWN}
    return {name.replace("_", " "): value for name, value in found.items() if value is not None}


def step_time(metrics: Mapping[str, Any]) -> float | None:
    """Return milliseconds per step."""
    steps = known(metrics["steps"])
    return float(metrics["seconds"]) / steps * 1000 if steps else None


def _facts(metrics: Mapping[str, Any]) -> Facts:
    test, parameters = metrics["test"], metrics["parameters"]
    main = next(iter(test))
    kept = f"kept: the {metrics['kept']} epoch, {metrics[metrics['kept']]['epoch']} of {metrics['last']['epoch']}"
    facts = [(f"test {unit(main).label}", figure(main, test[main]), f"{kept}; {short(test.get(COUNT))} items")]
    if metrics["teacher"] is not None:
        taught = metrics["teacher"]["validation"].get(main)
        facts.append((f"teacher’s {unit(main).label}", figure(main, taught), "on validation data"))
    size, large = parameters["student"], parameters["teacher"]
    share = f"{100 * size / large:.2g} % of the teacher’s {short(large)}" if large else "shipped student"
    facts.append(("parameters", short(size), share))
    if parameters["method"]:
        facts.append(("the method’s own", short(parameters["method"]), "parameters, for training only"))
    facts.append(("training", f"{fixed(metrics['seconds'], 1)} s", f"{short(metrics['steps'])} steps"))
    facts.append(("per step", f"{fixed(step_time(metrics), 2)} ms", "mean over the run"))
    facts += [(name, short(value), "") for name, value in extra_costs(metrics).items()]
    return Facts([*facts, ("seed", str(metrics["seed"]), "")])


def _figures(metrics: Mapping[str, Any]) -> Table:
    last, best = metrics["last"], metrics["best"]
    parts = {f"test, epoch {last['epoch']} (last)": last["test"]}
    if "test" in best and best["epoch"] != last["epoch"]:
        parts = {f"test, epoch {best['epoch']} (best)": best["test"], **parts}
    parts[f"validation, epoch {best['epoch']}"] = metrics["validation"]
    if metrics["teacher"] is not None:
        parts["teacher, validation"] = metrics["teacher"]["validation"]
    names = [name for name in last["test"] if name != COUNT]
    rows = [
        [
            Cell(unit(name).label),
            *(Cell(figure(name, part.get(name)), known(part.get(name))) for part in parts.values()),
        ]
        for name in names
    ]
    return Table("Figures", ["figure", *parts], rows)


def _curves(records: Sequence[Mapping[str, Any]], best: int) -> list[Section]:
    terms = named_series([(record["epoch"], record["terms"]) for record in records])
    figures = named_series([(record["epoch"], record["validation"]) for record in records])
    rates = Series("learning rate", [(record["epoch"], record["lr"]) for record in records])
    charts = [line_chart(name, [line]) for name, line in terms.items()]
    if rates.points:
        charts.append(line_chart("learning rate", [rates]))
    sections = [Section("Terms of the loss, mean over each epoch", [Charts(charts)])]
    seen = [_figure_chart(line, best) for name, line in figures.items() if name != COUNT]
    return [*sections, Section("Validation", [Charts(seen)])] if seen else sections


def named_series(records: Sequence[tuple[int, Mapping[str, float]]]) -> dict[str, Series]:
    """Return a series for each name, over the epochs that have a finite value of it."""
    names = list(dict.fromkeys(name for _, values in records for name in values))
    found = {name: [(e, float(v[name])) for e, v in records if known(v.get(name)) is not None] for name in names}
    return {name: Series(name, points) for name, points in found.items() if points}


def _figure_chart(line: Series, best: int) -> Chart:
    scale = unit(line.name).scale
    scaled = Series(line.name, [(epoch, value * scale) for epoch, value in line.points])
    return line_chart(unit(line.name).label, [scaled], rule=(best, f"best epoch, {best}"))


def _pulls(scales: Sequence[Mapping[str, Any]]) -> list[Block]:
    text = (
        "Each term at its full weight on one batch: its value, the norm of its gradient on the student, and how many "
        "times harder than the labels it pulls."
    )
    rows = [
        [
            Cell(str(scale["term"])),
            *(Cell(short(scale[key]), known(scale[key])) for key in ("value", "gradient")),
            Cell("–" if scale["ratio"] is None else f"{scale['ratio']:.3g} ×", known(scale["ratio"])),
        ]
        for scale in scales
    ]
    return [Note(text), Table("Terms before the first step", ["term", "value", "gradient norm", "to the labels"], rows)]
