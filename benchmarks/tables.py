"""The tables of classification figures in README.md and docs: written from benchmarks/results, never by hand.

A table stands between `<!-- figures NAME -->` and `<!-- end of figures -->`; NAME is `classification`, `settings`,
`cost`, `balance`, `outliers`, or a method such as `dkd`. A test compares what is there with what the results say.

python -m benchmarks.tables    # rewrites every such table in README.md and docs
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

from benchmarks.method_study import FACTORS, METHODS, balance_name
from benchmarks.timing import RESULTS
from tutelage.engine.study import summarise

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
REGION = re.compile(r"(<!-- figures ([\w-]+) -->\n).*?(<!-- end of figures -->)", re.DOTALL)
NAMES = {
    "kd": "KD", "dkd": "DKD", "dkd_8": "DKD, β = 8", "dist": "DIST", "ckd": "CKD", "rcka": "RCKA",
    "mimic": "Mimic", "ofa": "OFA-KD", "afd_kd": "AFD + KD", "rtk": "RTK-style", "residual": "residual KD",
    "srd": "SRD",
}  # fmt: skip
SETTINGS = {
    "fashion-1000": "CNN → CNN, 1000 labels",
    "fashion-4000": "CNN → CNN, 4000",
    "vit-student-1000": "CNN → ViT, 1000",
    "vit-student-4000": "CNN → ViT, 4000",
    "vit-teacher-1000": "ViT → CNN, 1000",
    "vit-teacher-4000": "ViT → CNN, 4000",
    "mixer-student-1000": "CNN → Mixer, 1000",
}
OPEN = {
    "alone": "student alone",
    "kd": "KD",
    "kd_open": "KD, also on shoes, bags, digits",
    "srd_closed": "SRD",
    "srd": "SRD, also on shoes, bags, digits",
    "srd_logits": "the same without its feature term",
    "srd_same": "SRD, also on unlabelled clothes",
}
OUTLIERS = ("auroc_near", "fpr95_near", "auroc_far", "fpr95_far")


@cache
def result(setting: str) -> dict[str, Any]:
    """Return what a study found; nothing at all if it was not run."""
    path = RESULTS / f"methods_{setting}.json"
    return json.loads(path.read_text()) if path.exists() else {"summary": {}}


def summary(setting: str) -> dict[str, Any]:
    """Return the summary of a setting by method; DKD's later study has a baseline of its own, which is left out."""
    later = {name: row for name, row in result(f"{setting}-dkd")["summary"].items() if name != "alone"}
    return result(setting)["summary"] | later


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a table in Markdown."""
    lines = [list(head), *map(list, rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def percent(row: dict[str, Any], figure: str = "top1") -> str:
    """Return mean ± standard deviation of a test figure, in percent; the mean alone of a single seed."""
    found = row["test"][figure]
    spread = f" ± {100 * found['sd']:.1f}" if len(row["seeds"]) > 1 else ""
    return f"{100 * found['mean']:.1f}{spread}"


def paired(row: dict[str, Any]) -> str:
    """Return the difference to the student alone with its interval, bold where that is above 0."""
    if "difference" not in row:
        return ""
    low, high = row["difference"]["interval95"]
    text = f"{_signed(row['difference']['mean'])} [{_signed(low)}, {_signed(high)}]"
    return f"**{text}**" if low > 0 else text


def _signed(share: float) -> str:
    return f"{100 * share:+.1f}".replace("-", "−")


def classification() -> str:
    """Return differences to the student alone, methods by settings."""
    there = {setting: summary(setting) for setting in SETTINGS if summary(setting)}
    first = next(iter(there.values()))
    order = sorted(NAMES, key=lambda name: -first[name]["difference"]["mean"])
    rows = [["student alone", *(percent(found["alone"]) for found in there.values()), ece(first["alone"])]]
    for name in order:
        cells = [paired(found[name]) if name in found else "–" for found in there.values()]
        rows.append([NAMES[name], *cells, ece(first[name])])
    return table(["", *(SETTINGS[setting] for setting in there), "ECE, first column"], rows)


def settings() -> str:
    """Return everything of every setting, a table each."""
    head = ["", "best epoch", "− alone [95 %]", "last epoch", "ECE", "NLL", "parameters", "of the method", "seeds"]
    parts = []
    for setting, title in SETTINGS.items():
        found, teachers = summary(setting), result(setting).get("teachers", {}).values()
        rows = [_row("the teacher", summarise({"teacher": {0: run}})["teacher"]) for run in teachers]
        rows += [_row(NAMES.get(name, "student alone"), found[name]) for name in ("alone", *NAMES) if name in found]
        if found:
            parts.append(f"### {title}\n\n`benchmarks/results/methods_{setting}.json`\n\n{table(head, rows)}")
    return "\n".join(parts)


def _row(name: str, row: dict[str, Any]) -> list[str]:
    cells = [percent(row), paired(row), f"{100 * row['last']['top1']['mean']:.1f}", ece(row)]
    parameters = [f"{row['parameters'][part]:,}" for part in ("student", "method")]
    return [name, *cells, f"{row['test']['nll']['mean']:.2f}", *parameters, str(len(row["seeds"]))]


def balance() -> str:
    """Return what it is worth to choose how much the labels weigh: the same tries for every method, two other seeds."""
    tried, recipes, chosen = (summary(name) for name in ("balances-4000", "fashion-4000", "balanced-4000"))
    rows = []
    for method in METHODS:
        found = {balance_name(method, factor): factor for factor in FACTORS}
        figures = {name: tried[name]["validation"]["top1"]["mean"] for name in found}
        best = max(figures, key=lambda name: round(figures[name], 3))  # of what is equal as shown, the recipe's
        cells = [f"**{100 * figures[name]:.1f}**" if name == best else f"{100 * figures[name]:.1f}" for name in found]
        tuned = recipes[method] if found[best] == 1 else chosen[best]
        rows.append([NAMES[method], *cells, paired(recipes[method]), paired(tuned)])
    head = [*(f"labels × {factor}" for factor in FACTORS), "recipe − alone [95 %]", "chosen − alone [95 %]"]
    return table(["validation", *head], rows)


def outliers() -> str:
    """Return what unlabelled images of other classes are worth: accuracy on the known ones, and outliers told apart."""
    found, (teacher,) = summary("open-1200"), result("open-1200")["teachers"].values()
    rows = {"the teacher": summarise({"teacher": {0: teacher}})["teacher"]}
    rows |= {title: found[name] for name, title in OPEN.items()}
    head = ["", "accuracy", "− alone [95 %]", "AUROC, near", "FPR95, near", "AUROC, far", "FPR95, far"]
    return table(
        head, ([name, percent(row), paired(row), *(percent(row, f) for f in OUTLIERS)] for name, row in rows.items())
    )


def ece(row: dict[str, Any]) -> str:
    """Return the expected calibration error."""
    return f"{row['test']['ece']['mean']:.3f}"


def cost(method: str | None = None) -> str:
    """Return what the losses cost by themselves: all, or those of one method; empty if there is none."""
    path = RESULTS / "loss_cost.json"
    rows = []
    for name, row in json.loads(path.read_text())["methods"].items():
        if method is None or name.split(",")[0].lower() == method.removesuffix("_kd"):
            share = 100 * row["share"]["median"]
            rows.append([name, f"{row['ms']:.1f}", f"{row['extra_mib']:.0f}", f"{share:.2f} %"])
    return table(["loss by itself", "ms", "MiB", "share of a step"], rows) if rows else ""


def page(method: str) -> str:
    """Return what a method's page shows: its figures in every setting beside KD's, and its cost."""
    name, others = NAMES[method], [] if method == "kd" else ["kd"]
    rows = []
    for setting, title in SETTINGS.items():
        found = summary(setting)
        if method in found:
            mine, beside = found[method], [paired(found[other]) for other in others]
            rows.append([title, percent(found["alone"]), percent(mine), paired(mine), *beside, ece(mine)])
    beside = [f"{NAMES[other]} − alone" for other in others]
    head = ["Fashion-MNIST", "alone", name, f"{name} − alone [95 %]", *beside, "ECE"]
    return "\n".join(part for part in (table(head, rows), cost(method)) if part)


WHOLE: dict[str, Callable[[], str]] = {
    "classification": classification,
    "settings": settings,
    "cost": cost,
    "balance": balance,
    "outliers": outliers,
}


def filled(text: str) -> str:
    """Return a page with its tables made anew."""

    def region(match: re.Match[str]) -> str:
        name = match[2]
        made = WHOLE[name]() if name in WHOLE else page(name)
        return f"{match[1]}{made}{match[3]}"

    return REGION.sub(region, text)


def main() -> None:
    """Rewrite the tables of all pages."""
    for path in PAGES:
        text = path.read_text()
        if (new := filled(text)) != text:
            path.write_text(new)
            print(path.relative_to(ROOT))


if __name__ == "__main__":
    main()
