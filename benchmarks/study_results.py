"""The results of the studies in benchmarks/results, and what their rows are called."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from typing import Any

import tutelage.methods
from benchmarks.timing import RESULTS
from tutelage.analysis.study import BASELINE, summarize
from tutelage.analysis.study_table import Cell, Column, Row
from tutelage.core import Method

SETTINGS = {
    "fashion-1000": "CNN → CNN, 1000 labels",
    "fashion-4000": "CNN → CNN, 4000",
    "vit-student-1000": "CNN → ViT, 1000",
    "vit-student-4000": "CNN → ViT, 4000",
    "vit-teacher-1000": "ViT → CNN, 1000",
    "vit-teacher-4000": "ViT → CNN, 4000",
    "mixer-student-1000": "CNN → Mixer, 1000",
}
# Studies of one folder of recipes, within the cap.
CIFAR10 = {
    "cifar10-resnet8": "CIFAR-10, WRN-16-2 → ResNet-8, 5000",
    "cifar10-resnet8-45000": "CIFAR-10, WRN-16-2 → ResNet-8, 45 000",
    "cifar10-small_cnn": "CIFAR-10, CNN → CNN, 5000",
    "cifar10-vit": "CIFAR-10, WRN-16-2 → ViT, 5000",
}
MIN_SEEDS = 3  # of a study whose intervals are shown
# Variants whose name is not that of one or several methods.
TITLES = {"residual": "ResidualKD", "dkd_8": "DKD, β = 8", "rtk": "RTK-style"}


def class_names() -> dict[str, str]:
    """Return the methods' class names by the names of their modules, such as kd: KD."""
    names = {}
    for name in tutelage.methods.__all__:
        value = getattr(tutelage.methods, name)
        if isinstance(value, type) and issubclass(value, Method):
            names[value.__module__.split(".")[2]] = name
    return names


def title(variant: str) -> str:
    """Return what a row is called: the class of the variant's method, or of its methods."""
    if variant in TITLES:
        return TITLES[variant]
    names = class_names()
    if variant in names:
        return names[variant]
    parts = variant.split("_")
    return " + ".join(names[part] for part in parts) if set(parts) <= set(names) else variant


@cache
def result(name: str) -> dict[str, Any]:
    """Return what a study measured; nothing at all if it was not run."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else {"summary": {}}


def summary(setting: str) -> dict[str, Row]:
    """Return the summary of a setting, by variant: the baseline, then all others by title."""
    rows = dict(result(f"methods_{setting}")["summary"])
    for variant, row in result(f"methods_{setting}-dkd")["summary"].items():
        if variant != BASELINE:  # DKD's later study has its own, with the same seeds
            rows[variant] = row
    order = sorted(rows, key=lambda variant: (variant != BASELINE, title(variant).lower()))
    return {variant: rows[variant] for variant in order}


def settings() -> dict[str, dict[str, Row]]:
    """Return the summaries of the settings that were run."""
    return {setting: summary(setting) for setting in SETTINGS if summary(setting)}


def capped_settings() -> dict[str, dict[str, Row]]:
    """Return the summaries within the gradient cap, where all variants have enough seeds."""
    rows = {setting: summary(f"{setting}-capped") for setting in SETTINGS}
    return {setting: own for setting, own in rows.items() if own and repeated(own) == own}


def repeated(rows: Mapping[str, Row]) -> dict[str, Row]:
    """Return the rows with as many seeds as an interval needs."""
    return {name: row for name, row in rows.items() if len(row["seeds"]) >= MIN_SEEDS}


def capped_studies() -> dict[str, dict[str, Row]]:
    """Return the summaries of all studies of classification within the cap, by what was trained."""
    cifar10 = {name: repeated(result(study)["summary"]) for study, name in CIFAR10.items()}
    return _titled(capped_settings()) | {name: rows for name, rows in cifar10.items() if rows}


def uncapped_studies() -> dict[str, dict[str, Row]]:
    """Return the summaries with the recipes' weights as they are, under the same names."""
    return _titled(settings())


def _titled(summaries: Mapping[str, dict[str, Row]]) -> dict[str, dict[str, Row]]:
    return {f"Fashion-MNIST, {SETTINGS[name]}": rows for name, rows in summaries.items()}


def variants() -> list[str]:
    """Return the variants of the classification study."""
    names = {variant for rows in settings().values() for variant in rows}
    return sorted(names - {BASELINE})


def teacher_row(study: Mapping[str, Any]) -> Mapping[str, Row]:
    """Return the row of a study's teacher, by its title; empty if its own run is not there."""
    runs = list(study.get("teachers", {}).values())
    return summarize({"Teacher": {0: runs[0]}}) if runs else {}


def seeds_column() -> Column:
    """Return the column of the number of seeds."""
    return Column("seeds", lambda variant, row: Cell(str(len(row["seeds"]))))
