"""The tables of what a temperature fitted after training does to calibration."""

from __future__ import annotations

from collections.abc import Iterable

from benchmarks.study_results import result, title
from tutelage.analysis.formatting import format_metric, markdown_table
from tutelage.analysis.study import MeanStd
from tutelage.analysis.study_table import difference_column, metric_column

CALIBRATED = ("fashion-1000-calibrated", "fashion-4000-calibrated")
HEADER = ["", "top-1, %", "− baseline [95 %]", "ECE", "ECE, calibrated", "temperature", "seeds"]


def calibration_table(name: str) -> str:
    """Return accuracy, and the calibration error before and after a temperature was fitted.

    Args:
        name: of a study whose runs have `train.calibrate: temperature`.
    """
    study = result(name)
    lines = []
    for variant, row in study["summary"].items():
        runs = list(study["runs"][variant].values())
        difference = ""
        if "difference" in row:
            difference = difference_column("top1", digits=1).cell(variant, row).markdown()
        lines.append(
            [
                title(variant),
                metric_column("top1", digits=1).cell(variant, row).text,
                difference,
                _mean("ece", (run["test"]["ece"] for run in runs)),
                _mean("ece", (run["calibration"]["test"]["ece"] for run in runs)),
                f"{MeanStd.of([run['calibration']['temperature'] for run in runs]).mean:.2f}",
                str(len(runs)),
            ]
        )
    return markdown_table(HEADER, lines)


def _mean(metric: str, values: Iterable[float]) -> str:
    return format_metric(metric, MeanStd.of(list(values)).mean)
