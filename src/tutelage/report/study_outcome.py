"""What comes first on a study's page: what was run, quality, then cost."""

from __future__ import annotations

from statistics import fmean

from tutelage.analysis.formatting import (
    MISSING,
    NUM_SAMPLES,
    cost_label,
    finite,
    format_fixed,
    format_mean_std,
    format_metric,
    format_short,
    is_class_metric,
    metric_format,
)
from tutelage.analysis.study import BASELINE
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
from tutelage.report.blocks import Block, Facts, Listing, Note, Table
from tutelage.report.run_outcome import extra_costs
from tutelage.report.setting import read_setting
from tutelage.report.study_folder import Study

Fact = tuple[str, str, str]


def outcome(study: Study) -> list[Block]:
    """Return data and networks, a few numbers, the table of quality, and that of cost."""
    blocks: list[Block] = []
    setting = _setting(study)
    if setting:
        blocks.append(Listing(setting))
    blocks += [_facts(study), _quality_table(study), Note(_explanation(study))]
    if any(is_class_metric(name) for name in study.metric_names()):
        blocks.append(_class_table(study))
    blocks.append(_cost_table(study))
    return blocks


def _setting(study: Study) -> list[tuple[str, str]]:
    """Return data, labels and networks by the recipes beside the results; nothing without them.

    Where methods differ, each text names its methods.
    """
    methods_by_text: dict[str, dict[str, list[str]]] = {}
    for method in study.summary:
        recipe = study.first_run(method) / "recipe.yaml"
        if recipe.is_file():
            for label, text in read_setting(recipe):
                methods_by_text.setdefault(label, {}).setdefault(text, []).append(method)
    setting = []
    for label, methods in methods_by_text.items():
        texts = list(methods)
        if len(texts) > 1:
            texts = [f"{text} in {', '.join(names)}" for text, names in methods.items()]
        setting.append((label, "; ".join(texts)))
    return setting


def _facts(study: Study) -> Facts:
    runs = study.all_runs()
    seeds = {seed for by_seed in study.runs.values() for seed in by_seed}
    samples = format_short(runs[0]["test"].get(NUM_SAMPLES))
    has_all = all(set(study.runs[method]) == seeds for method in study.summary)
    facts = [
        ("methods", str(len(study.summary)), ", ".join(study.summary)),
        ("seeds", str(len(seeds)), "of each method" if has_all else "not of each method"),
        ("test samples", samples, "used once, at the end of each run"),
    ]
    teachers = [fact for method in study.summary for fact in _teacher_facts(study, method)]
    return Facts([*facts, *dict.fromkeys(teachers)])


def _teacher_facts(study: Study, method: str) -> list[Fact]:
    """Return the figure of a method's teacher: on test data if known, else on validation data."""
    run = next(iter(study.runs[method].values()))
    record = run["teacher"]
    if not record:
        return []
    size = f"{format_short(run['parameters']['teacher'])} parameters"
    metrics = record["validation"]
    facts = []
    for name, value in metrics.items():
        teacher, _, metric = name.rpartition("/")
        if metric != study.monitor:
            continue
        label = f"teacher{' ' * bool(teacher)}{teacher}’s {metric_format(metric).label}"
        validation = format_metric(metric, value)
        test = finite(study.teacher_test(method).get(name))
        if test is None:
            note = f"on validation data, not on the students’ test data; {size}"
            facts.append((label, validation, note))
        else:
            note = f"on the same test data as the students, {validation} on validation data; {size}"
            facts.append((label, format_metric(metric, test), note))
    return facts


def _quality_table(study: Study) -> Table:
    monitor = study.monitor
    label = metric_format(monitor).label
    others = [
        name for name in study.metric_names() if name != monitor and not is_class_metric(name)
    ]
    columns = [
        method_column(),
        metric_column(monitor, header=f"test {label}"),
        difference_column(
            monitor, header=f"− {BASELINE} [95 % confidence interval, paired by seed]"
        ),
        *(metric_column(name) for name in others),
        metric_column(monitor, "validation", header=f"validation, {label}"),
        mean_column("best epoch", lambda row: row["best_epoch"], digits=0),
        metric_column(monitor, "last", header=f"last epoch, {label}"),
    ]
    table = StudyTable.of(study.summary, columns)
    return Table("Quality", table.header, table.rows)


def _class_table(study: Study) -> Table:
    """Return a row for each class and a column for each method."""
    rows = []
    for name in study.metric_names():
        if is_class_metric(name):
            cells = [Cell(metric_format(name).label)]
            for row in study.summary.values():
                stats = row["test"].get(name)
                value = None if stats is None else finite(stats["mean"])
                cells.append(Cell(format_mean_std(name, stats), value))
            rows.append(cells)
    title = f"Every class or group, {len(rows)} figures"
    return Table("Every class or group", ["on test data", *study.summary], rows, summary=title)


def _cost_table(study: Study) -> Table:
    costs = dict.fromkeys(name for run in study.all_runs() for name in extra_costs(run))
    columns = [
        method_column(),
        step_ratio_column(),
        memory_column(header="more memory, MiB"),
        mean_column("ms per step", lambda row: row["cost"]["step_ms"], digits=2),
        mean_column("seconds", lambda row: row["seconds"], digits=1),
        *(_cost_column(study, name) for name in costs),
        parameters_column("student", header="parameters"),
        parameters_column("method", header="method’s parameters"),
    ]
    table = StudyTable.of(study.summary, columns)
    return Table("Cost of training", table.header, table.rows, caption="What training cost")


def _cost_column(study: Study, name: str) -> Column:
    """Return the column of a cost that the runs have and the summary does not."""

    def cell(method: str, row: Row) -> Cell:
        costs = [extra_costs(run) for run in study.runs[method].values()]
        values = [cost[name] for cost in costs if name in cost]
        return Cell(format_fixed(fmean(values), 2), fmean(values)) if values else Cell(MISSING)

    return Column(cost_label(name), cell)


def _explanation(study: Study) -> str:
    checkpoints = sorted({str(run["checkpoint"]) for run in study.all_runs()})
    label = metric_format(study.monitor).label
    text = (
        f"Mean ± standard deviation over seeds, on test data, at the {' or '.join(checkpoints)} "
        f"epoch. “− {BASELINE}” is the difference in {label} to {BASELINE}, paired by seed, with "
        "the 95 % confidence interval of its mean; it stands out where the interval excludes zero."
    )
    missing = [method for method in study.runs if method not in study.summary]
    return text + (f" Without a finished run: {', '.join(missing)}." if missing else "")
