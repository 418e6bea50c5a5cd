"""What `tutelage advise` says our studies found, written from benchmarks/results into the package.

A wheel has no benchmarks, so the figures that advice rests on are kept in
src/tutelage/cli/evidence.json: the gains of each method over the baseline in percentage points of
top-1, with their 95 % intervals. A test compares them with the results.

python -m benchmarks.evidence    # writes it anew
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.method_study import STUDIES
from benchmarks.study_results import MIN_SEEDS, repeated, result, summary, title
from benchmarks.tables import FACTOR
from tutelage.analysis.study import BASELINE
from tutelage.analysis.study_table import Row

PATH = Path(__file__).parents[1] / "src/tutelage/cli/evidence.json"

FASHION = {"data": "Fashion-MNIST", "classes": 10, "student": "CNN", "teacher": "CNN"}
TO_VIT = {**FASHION, "student": "ViT"}
FROM_VIT = {**FASHION, "teacher": "ViT"}
# Setting of the study of all methods -> what it was; there is one more of each with the cap.
SETTINGS: dict[str, dict[str, Any]] = {
    "fashion-1000": {**FASHION, "labels": 1000},
    "fashion-4000": {**FASHION, "labels": 4000},
    "vit-student-1000": {**TO_VIT, "labels": 1000},
    "vit-student-4000": {**TO_VIT, "labels": 4000},
    "vit-teacher-1000": {**FROM_VIT, "labels": 1000},
    "vit-teacher-4000": {**FROM_VIT, "labels": 4000},
    "rcka-fashion-10000": {**FASHION, "labels": 10000},
}
# Studies of one folder of recipes, within the cap.
FOLDERS: dict[str, dict[str, Any]] = {
    "digits-100": {**FASHION, "data": "digits", "labels": 100},
    "cifar10-small_cnn": {**FASHION, "data": "CIFAR-10", "labels": 5000},
    "cifar10-resnet8": {**FASHION, "data": "CIFAR-10", "labels": 5000},
    "cifar10-resnet8-45000": {**FASHION, "data": "CIFAR-10", "labels": 45000},
    "cifar10-vit": {**TO_VIT, "data": "CIFAR-10", "labels": 5000},
}

# Variants that aligned logits in the studies without the cap; their recipes align probabilities.
OF_LOGITS = ("rcka", "rcka_kd", "lcka")


def evidence() -> dict[str, Any]:
    """Return the studies of classification, and what other weights for the labels were worth."""
    studies = []
    for setting, facts in SETTINGS.items():
        for name in (setting, f"{setting}-capped"):
            is_capped = name != setting
            rows = summary(name) if is_capped else _as_recipes_are(summary(name))
            if rows and repeated(rows) == rows:
                study = STUDIES[name]
                recipes = {v: recipe for v, (recipe, own) in study.variants.items() if not own}
                known = {**facts, "folder": study.folder, "capped": is_capped}
                studies.append(_study(f"methods_{name}", rows, known, recipes))
    for name, facts in FOLDERS.items():
        found = result(name)
        recipes = {v: recipe for v, (recipe, *own) in found["variants"].items() if not own}
        known = {**facts, "folder": found["recipes"], "capped": True}
        studies.append(_study(name, repeated(found["summary"]), known, recipes))
    return {"studies": studies, "balance": _balance()}


def _as_recipes_are(rows: Mapping[str, Row]) -> dict[str, Row]:
    """Return the rows of a study without the cap but those whose recipe has changed since."""
    return {name: row for name, row in rows.items() if name not in OF_LOGITS}


def _study(
    name: str, rows: Mapping[str, Row], facts: Mapping[str, Any], recipes: Mapping[str, str]
) -> dict[str, Any]:
    parameters = rows[BASELINE]["parameters"]
    teachers = list(result(name).get("teachers", {}).values())
    return {
        "result": name,
        **facts,
        "seeds": len(rows[BASELINE]["seeds"]),
        "steps": next(iter(result(name)["runs"][BASELINE].values()))["steps"],
        "ratio": round(parameters["teacher"] / parameters["student"], 1),
        "teacher_top1": round(100 * teachers[0]["test"]["top1"], 1) if teachers else None,
        "baseline_top1": _percent(rows[BASELINE]["test"]["top1"]["mean"]),
        "baseline_ece": round(rows[BASELINE]["test"]["ece"]["mean"], 3),
        "certain": _certain(rows),
        "gains": {_method(v): _gain(row) for v, row in rows.items() if v != BASELINE},
        "ece": {
            _method(v): round(row["test"]["ece"]["mean"], 3)
            for v, row in rows.items()
            if v != BASELINE
        },
        "recipes": {_method(v): recipes[v] for v in rows if v != BASELINE and v in recipes},
    }


def _balance() -> dict[str, Any]:
    """Return how many times as heavy labels were best, and the gain where that is not once."""
    found = {}
    for variant, row in summary("balanced-4000").items():
        method, _, factor = variant.partition(FACTOR)
        if method not in (BASELINE, *OF_LOGITS) and len(row["seeds"]) >= MIN_SEEDS:
            found[_method(method)] = {"factor": int(factor), "gain": _gain(row)}
    methods = {variant.partition(FACTOR)[0] for variant in summary("balances-4000")}
    tried = {_method(method) for method in methods.difference(OF_LOGITS)}
    return {
        "result": "methods_balanced-4000",
        "tries": "methods_balances-4000",
        "labels": 4000,
        "gains": found,
        "kept": sorted(tried - set(found) - {_method(BASELINE)}),
    }


def _certain(rows: Mapping[str, Row]) -> list[str]:
    """Return the methods whose interval is above zero before it is rounded, best first."""
    others = {name: row["difference"] for name, row in rows.items() if name != BASELINE}
    names = [name for name, difference in others.items() if difference["interval95"][0] > 0]
    return [_method(name) for name in sorted(names, key=lambda name: -others[name]["mean"])]


def _method(variant: str) -> str:
    """Return the class of a variant's method, as `tutelage advise` knows it of a recipe."""
    return title(variant).removesuffix("-style")


def _gain(row: Row) -> list[float]:
    difference = row["difference"]
    return [_percent(value) for value in (difference["mean"], *difference["interval95"])]


def _percent(share: float) -> float:
    return round(100 * share, 1)


def written(content: Mapping[str, Any]) -> str:
    """Return the evidence as JSON, a study a line."""
    studies = ",\n".join(json.dumps(study, ensure_ascii=False) for study in content["studies"])
    balance = json.dumps(content["balance"], ensure_ascii=False)
    return f'{{"studies": [\n{studies}\n],\n"balance": {balance}}}\n'


def main() -> None:
    """Write the evidence anew."""
    PATH.write_text(written(evidence()))
    print(PATH)


if __name__ == "__main__":
    main()
