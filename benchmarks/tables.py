"""The tables of results in README.md and docs: written from benchmarks/results, never by hand.

A table stands between `<!-- figures NAME -->` and `<!-- end of figures -->`, in any of these files.
NAME is one of `TABLES`, a variant of the classification study such as `dkd`, or the name of a
study's result such as `mni152`. A test compares what stands there with what the results say.

python -m benchmarks.tables    # rewrites every such table in README.md and docs
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from statistics import fmean

from benchmarks.calibration_tables import CALIBRATED, calibration_table
from benchmarks.open_set_table import outliers_table
from benchmarks.pose_tables import pose_table
from benchmarks.rcka_tables import probabilities_table
from benchmarks.recommendation_tables import RECOMMENDERS, recommendation_table
from benchmarks.retrieval_tables import retrieval_table
from benchmarks.speed_tables import accumulation_table, data_speed_table, train_loop_table
from benchmarks.study_results import (
    SETTINGS,
    capped_settings,
    capped_studies,
    result,
    seeds_column,
    settings,
    summary,
    teacher_row,
    title,
    uncapped_studies,
    variants,
)
from benchmarks.timing import RESULTS
from tutelage.analysis.formatting import MISSING, NUM_SAMPLES, format_metric, markdown_table
from tutelage.analysis.study import BASELINE
from tutelage.analysis.study_table import (
    Cell,
    Row,
    StudyTable,
    difference_column,
    method_column,
    metric_column,
    parameters_column,
)

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
REGION = re.compile(r"(<!-- figures ([\w-]+) -->\n).*?(<!-- end of figures -->)", re.DOTALL)
# The README's columns, whose lines are short: each stands for what is left of it, too.
GAINS_HEADERS = {
    "Fashion-MNIST, CNN → CNN, 1000 labels": "CNN, 1000",
    "Fashion-MNIST, CNN → CNN, 4000": "4000",
    "Fashion-MNIST, CNN → ViT, 1000": "to ViT, 1000",
    "Fashion-MNIST, CNN → ViT, 4000": "4000",
    "Fashion-MNIST, ViT → CNN, 1000": "from ViT, 1000",
    "Fashion-MNIST, ViT → CNN, 4000": "4000",
    "CIFAR-10, WRN-16-2 → ResNet-8, 5000": "CIFAR: ResNet",
    "CIFAR-10, CNN → CNN, 5000": "CNN",
    "CIFAR-10, WRN-16-2 → ViT, 5000": "ViT",
}
FACTOR = ", labels × "  # between the method and the factor, in the names of the balance study


def accuracy(row: Row) -> str:
    """Return the accuracy, mean ± standard deviation, in percent; the mean alone of one seed."""
    return metric_column("top1", digits=1).cell("", row).text


def difference(row: Row) -> str:
    """Return the difference to the baseline with its interval, bold where that is above 0."""
    return difference_column("top1", digits=1).cell("", row).markdown()


def ece(row: Row) -> str:
    """Return the expected calibration error."""
    return format_metric("ece", row["test"]["ece"]["mean"])


def gain(row: Row) -> str:
    """Return the mean difference to the baseline alone, bold where its interval is above 0."""
    cell = difference_column("top1", digits=1).cell("", row)
    return Cell(cell.text.partition(" ")[0], cell.value, cell.strong).markdown()


def by_gain(rows: Mapping[str, Row]) -> list[str]:
    """Return the variants in a setting but the baseline, the largest gain first."""
    gains = {name: row["difference"]["mean"] for name, row in rows.items() if name != BASELINE}
    return sorted(gains, key=lambda name: -gains[name])


def classification_table() -> str:
    """Return differences to the baseline, variants by settings, and calibration."""
    summaries = settings()
    first = next(iter(summaries.values()))
    accuracies = [accuracy(rows[BASELINE]) for rows in summaries.values()]
    lines = [[title(BASELINE), *accuracies, ece(first[BASELINE])]]
    for variant in by_gain(first):
        cells = [
            difference(rows[variant]) if variant in rows else MISSING for rows in summaries.values()
        ]
        lines.append([title(variant), *cells, ece(first[variant])])
    header = ["", *(SETTINGS[setting] for setting in summaries), "ECE, first column"]
    return markdown_table(header, lines)


def gains_table() -> str:
    """Return mean differences to the baseline within the cap, methods by settings.

    Methods are ordered by how far they are ahead of KD on average, in the settings that they have.
    Variants with a value that no recipe has are on the pages of their methods.
    """
    summaries = {name: rows for name, rows in capped_studies().items() if name in GAINS_HEADERS}
    accuracies = [accuracy(rows[BASELINE]).split()[0] for rows in summaries.values()]
    names = [name for name in next(iter(summaries.values())) if name not in (BASELINE, "dkd_8")]

    def ahead(name: str) -> float:
        both = [(r[name], r["kd"]) for r in summaries.values() if name in r]
        return fmean(r["difference"]["mean"] - kd["difference"]["mean"] for r, kd in both)

    lines = [[title(BASELINE), *accuracies]]
    for variant in sorted(names, key=ahead, reverse=True):
        cells = [gain(rows[variant]) if variant in rows else MISSING for rows in summaries.values()]
        lines.append([title(variant), *cells])
    return markdown_table(["", *(GAINS_HEADERS[name] for name in summaries)], lines)


def settings_tables() -> str:
    """Return everything of every setting, a table each."""
    columns = [
        method_column("", title),
        metric_column("top1", header="best epoch", digits=1),
        difference_column("top1", digits=1),
        metric_column("top1", "last", header="last epoch", digits=1, with_std=False),
        metric_column("ece", with_std=False),
        metric_column("nll", digits=2, with_std=False),
        parameters_column("student", header="parameters"),
        parameters_column("method", header="of the method"),
        seeds_column(),
    ]
    parts = []
    for setting, rows in settings().items():
        name = f"methods_{setting}"
        table = StudyTable.of({**teacher_row(result(name)), **rows}, columns).markdown()
        parts.append(f"### {SETTINGS[setting]}\n\n`benchmarks/results/{name}.json`\n\n{table}")
    return "\n".join(parts)


def cap_table() -> str:
    """Return differences to the baseline with the recipes' weights and with the gradient cap.

    A setting is shown once all its variants have as many seeds as an interval needs.
    """
    parts = []
    for setting, capped in capped_settings().items():
        rows = summary(setting)
        lines = []
        for name in by_gain(capped):
            cells = [
                make(of[name]) if name in of else MISSING
                for make in (difference, ece)
                for of in (rows, capped)
            ]
            lines.append([title(name), *cells])
        header = [SETTINGS[setting], "weights as they are", "capped", "ECE", "ECE, capped"]
        parts.append(markdown_table(header, lines))
    return "\n".join(parts)


def balance_table() -> str:
    """Return what it is worth to choose how much the labels weigh.

    Every method got the same tries, with two other seeds.
    """
    tries = summary("balances-4000")
    recipes = summary("fashion-4000")
    chosen = summary("balanced-4000")
    factors = sorted({int(name.partition(FACTOR)[2]) for name in tries})
    lines = []
    for method in dict.fromkeys(name.partition(FACTOR)[0] for name in tries):
        names = [f"{method}{FACTOR}{factor}" for factor in factors]
        validation = {name: tries[name]["validation"]["top1"]["mean"] for name in names}
        # Of those that are equal as shown, the first: the recipe's.
        best = max(names, key=lambda name: round(validation[name], 3))
        texts = {name: format_metric("top1", validation[name], digits=1) for name in names}
        texts[best] = f"**{texts[best]}**"
        tuned = recipes[method] if best == names[0] else chosen[best]
        cells = [*texts.values(), difference(recipes[method]), difference(tuned)]
        lines.append([title(method), *cells])
    header = ["validation", *(f"labels × {factor}" for factor in factors)]
    header += [f"recipe − {BASELINE} [95 %]", f"chosen − {BASELINE} [95 %]"]
    return markdown_table(header, lines)


def cost_table(name: str | None = None) -> str:
    """Return what the losses cost by themselves: all, or those of one class; empty if none."""
    losses = json.loads((RESULTS / "loss_cost.json").read_text())["methods"]
    lines = []
    for loss, row in losses.items():
        if name is None or loss.split(",")[0] == name:
            share = f"{100 * row['share']['median']:.2f} %"
            lines.append([loss, f"{row['ms']:.1f}", f"{row['extra_mib']:.0f}", share])
    return (
        markdown_table(["loss by itself", "ms", "MiB", "share of a step"], lines) if lines else ""
    )


def variant_tables(variant: str) -> str:
    """Return what a method's page shows: figures within the cap, KD's, those without it, cost."""
    shown = list(dict.fromkeys([variant, "kd"]))
    uncapped = uncapped_studies()
    lines = []
    for setting, rows in capped_studies().items():
        if variant in rows:
            row = rows[variant]
            free = uncapped.get(setting, {}).get(variant)
            gains = [difference(rows[name]) for name in shown]
            cells = [accuracy(rows[BASELINE]), accuracy(row), *gains, ece(row)]
            lines.append([setting, *cells, difference(free) if free else MISSING])
    name = title(variant)
    gains_headers = [f"{title(other)} − {BASELINE} [95 %]" for other in shown]
    header = ["within the cap", BASELINE, name, *gains_headers, "ECE", f"{name} without the cap"]
    parts = [markdown_table(header, lines), cost_table(name.split(" + ")[0])]
    return "\n".join(part for part in parts if part)


def study_table(name: str) -> str:
    """Return one study: every metric on test data, and the difference in the monitored one."""
    rows = result(name)["summary"]
    metrics = next(iter(rows.values()))["test"]
    monitor = result(name).get("monitor", next(iter(metrics)))
    others = [metric for metric in metrics if metric not in (monitor, NUM_SAMPLES)]
    columns = [
        method_column("", title),
        metric_column(monitor),
        difference_column(monitor),
        *(metric_column(metric) for metric in others),
        parameters_column("student", header="parameters"),
        seeds_column(),
    ]
    return StudyTable.of({**teacher_row(result(name)), **rows}, columns).markdown()


TABLES: dict[str, Callable[[], str]] = {
    "classification": classification_table,
    "gains": gains_table,
    "settings": settings_tables,
    "cost": cost_table,
    "train-loop": train_loop_table,
    "accumulation": accumulation_table,
    "data-speed": data_speed_table,
    "balance": balance_table,
    "cap": cap_table,
    "rcka-probabilities": probabilities_table,
    "outliers": outliers_table,
    "mirror-mouse": lambda: pose_table("mirror-mouse"),
    "pen-digits": lambda: pose_table("pen-digits"),
    **{name: partial(calibration_table, name) for name in CALIBRATED},
    **{name: partial(recommendation_table, name) for name in RECOMMENDERS},
}


def table(name: str) -> str:
    """Return the table, or the tables, of a name.

    Raises:
        ValueError: If there is none.
    """
    if name in TABLES:
        return TABLES[name]()
    if name in variants():
        return variant_tables(name)
    if name.startswith("retrieval_"):
        return retrieval_table(name)
    if result(name)["summary"]:
        return study_table(name)
    raise ValueError(f"no table {name!r}; there are {[*TABLES, *variants()]} and studies")


def filled(text: str) -> str:
    """Return a page with its tables written anew."""
    return REGION.sub(lambda match: f"{match[1]}{table(match[2])}{match[3]}", text)


def main() -> None:
    """Rewrite the tables of all pages."""
    for path in PAGES:
        text = path.read_text()
        if filled(text) != text:
            path.write_text(filled(text))
            print(path.relative_to(ROOT))


if __name__ == "__main__":
    main()
