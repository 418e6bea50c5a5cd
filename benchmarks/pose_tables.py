"""The tables of the studies of poses."""

from __future__ import annotations

from benchmarks.study_results import result, seeds_column, teacher_row
from tutelage.analysis.study_table import (
    StudyTable,
    difference_column,
    method_column,
    metric_column,
)

POSE_TITLES = {
    "baseline": "Baseline",
    "okdhp": "OKDHP, its branch",
    "okdhp_no_kd": "the same without the divergence",
    "okdhp, branches alone": "the same without an ensemble",
    "okdhp, detached": "OKDHP, ensemble detached",
    "okdhp, temperature 0.2": "OKDHP, temperature 0.2",
    "fpd": "FPD",
}


def pose_table(name: str) -> str:
    """Return a study of poses: the deployed network, and the ensemble and branches in training."""
    study = result(name)
    rows = {
        title: study["summary"][key]
        for key, title in POSE_TITLES.items()
        if key in study["summary"]
    }
    first = next(iter(rows.values()))["test"]
    further = [
        metric for metric in ("pck@0.05", "pck@0.1", "pck@0.2", "pck/paws") if metric in first
    ]
    columns = [
        method_column("", str),
        metric_column("pck", digits=1),
        difference_column("pck", digits=1),
        *(metric_column(metric, digits=1, with_std=False) for metric in further),
        metric_column("ensemble/pck", header="its ensemble", digits=1),
        metric_column("branch_agreement", digits=1, with_std=False),
        seeds_column(),
    ]
    return StudyTable.of({**teacher_row(study), **rows}, columns).markdown()
