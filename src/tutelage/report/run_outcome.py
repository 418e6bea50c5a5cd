"""What came of a run: its figures, and its metrics on every part."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tutelage.analysis.formatting import (
    NUM_SAMPLES,
    cost_label,
    finite,
    format_fixed,
    format_metric,
    format_short,
    metric_format,
)
from tutelage.analysis.study_table import Cell
from tutelage.report.blocks import Facts, Table

# Keys of metrics.json with a place of their own; every other number in it is a cost.
NOT_COSTS = {
    "calibration",
    "checkpoint",
    "test",
    "last",
    "best",
    "validation",
    "teacher",
    "parameters",
    "seconds",
    "steps",
    "seed",
}


def extra_costs(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers of metrics.json without a place of their own, such as the memory."""
    costs = {}
    for name, value in metrics.items():
        number = finite(value)
        if name not in NOT_COSTS and number is not None:
            costs[name] = number
    return costs


def facts(metrics: Mapping[str, Any]) -> Facts:
    """Return the headline figures of a run.

    Args:
        metrics: what metrics.json holds.
    """
    test = metrics["test"]
    monitor = next(iter(test))
    label = metric_format(monitor).label
    checkpoint = metrics["checkpoint"]
    epoch = metrics[checkpoint]["epoch"]
    note = (
        f"of the {checkpoint} epoch, {epoch} of {metrics['last']['epoch']}; "
        f"{format_short(test.get(NUM_SAMPLES))} samples"
    )
    figures = [(f"test {label}", format_metric(monitor, test[monitor]), note)]
    figures += _teacher_facts(metrics["teacher"] or {}, monitor)
    figures += _parameter_facts(metrics["parameters"])
    steps = metrics["steps"]
    seconds = metrics["seconds"]
    step_ms = seconds / steps * 1000 if finite(steps) else None
    figures.append(("training", f"{format_fixed(seconds, 1)} s", f"{format_short(steps)} steps"))
    figures.append(("per step", f"{format_fixed(step_ms, 2)} ms", "mean over the run"))
    costs = extra_costs(metrics).items()
    figures += [(cost_label(name), format_short(value), "") for name, value in costs]
    figures.append(("seed", str(metrics["seed"]), ""))
    return Facts(figures)


def _teacher_facts(record: Mapping[str, Any], monitor: str) -> list[tuple[str, str, str]]:
    """Return the figure of each teacher: on the students' test data if known, else on validation.

    Args:
        record: what metrics.json says of the teachers.
        monitor: the metric; of several teachers each has it under `name/monitor`.
    """
    facts = []
    for name, value in record.get("validation", {}).items():
        teacher, _, metric = name.rpartition("/")
        if metric != monitor:
            continue
        label = f"teacher{' ' * bool(teacher)}{teacher}’s {metric_format(monitor).label}"
        validation = format_metric(monitor, value)
        test = finite(record.get("test", {}).get(name))
        if test is None:
            facts.append((label, validation, "on validation data, not on the test data"))
        else:
            note = f"on the same test data, {validation} on validation data"
            facts.append((label, format_metric(monitor, test), note))
    return facts


def _parameter_facts(parameters: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    student = parameters["student"]
    teacher = parameters["teacher"]
    note = "shipped student"
    if teacher:
        note = f"{100 * student / teacher:.2g} % of the teacher’s {format_short(teacher)}"
    facts = [("parameters", format_short(student), note)]
    if parameters["method"]:
        size = format_short(parameters["method"])
        facts.append(("the method’s own", size, "parameters, for training only"))
    return facts


def metrics_table(metrics: Mapping[str, Any]) -> Table:
    """Return every metric, of the epochs and of the teacher."""
    last = metrics["last"]
    best = metrics["best"]
    columns: dict[str, Mapping[str, float]] = {}
    if "test" in best and best["epoch"] != last["epoch"]:
        columns[f"test, epoch {best['epoch']} (best)"] = best["test"]
    columns[f"test, epoch {last['epoch']} (last)"] = last["test"]
    calibration = metrics.get("calibration")
    if calibration:
        shipped = metrics[metrics["checkpoint"]]["epoch"]
        title = f"test, epoch {shipped} at temperature {calibration['temperature']:.3g}"
        columns[title] = calibration["test"]
    record = metrics["teacher"] or {}
    if last["test"].keys() & record.get("test", {}).keys():  # several have names of their own
        columns["teacher, test"] = record["test"]
    columns[f"validation, epoch {best['epoch']}"] = metrics["validation"]
    if last["test"].keys() & record.get("validation", {}).keys():
        columns["teacher, validation"] = record["validation"]
    rows = []
    for name in last["test"]:
        if name != NUM_SAMPLES:
            cells = [metric_cell(name, values.get(name)) for values in columns.values()]
            rows.append([Cell(metric_format(name).label), *cells])
    return Table("Metrics", ["metric", *columns], rows)


def metric_cell(name: str, value: float | None) -> Cell:
    """Return the cell of one value of a metric."""
    return Cell(format_metric(name, value), finite(value))
