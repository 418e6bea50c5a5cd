"""The tables of what a temperature fitted after training does to calibration."""

from __future__ import annotations

from collections.abc import Callable
from statistics import fmean

from benchmarks.study_results import result, seeds_column, title
from tutelage.analysis.formatting import format_metric
from tutelage.analysis.study import Run
from tutelage.analysis.study_table import (
    Cell,
    Column,
    Row,
    StudyTable,
    difference_column,
    method_column,
    metric_column,
)

CALIBRATED = ("fashion-1000-calibrated", "fashion-4000-calibrated")


def calibration_table(name: str) -> str:
    """Return accuracy, and the calibration error before and after a temperature was fitted.

    Args:
        name: of a study whose runs have `train.calibrate: temperature`.
    """
    study = result(name)

    def mean(header: str, value: Callable[[Run], float], text: Callable[[float], str]) -> Column:
        def cell(variant: str, row: Row) -> Cell:
            return Cell(text(fmean(map(value, study["runs"][variant].values()))))

        return Column(header, cell)

    columns = [
        method_column("", title),
        metric_column("top1", digits=1),
        difference_column("top1", digits=1),
        metric_column("ece", with_std=False),
        mean(
            "ECE, calibrated",
            lambda run: run["calibration"]["test"]["ece"],
            lambda ece: format_metric("ece", ece),
        ),
        mean("temperature", lambda run: run["calibration"]["temperature"], "{:.2f}".format),
        seeds_column(),
    ]
    return StudyTable.of(study["summary"], columns).markdown()
