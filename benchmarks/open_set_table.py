"""The table of what unlabeled images of other classes are worth."""

from __future__ import annotations

from benchmarks.study_results import result, summary, teacher_row
from tutelage.analysis.study_table import (
    StudyTable,
    difference_column,
    method_column,
    metric_column,
)

OPEN_TITLES = {
    "baseline": "Baseline",
    "kd": "KD",
    "kd_open": "KD, also on shoes, bags, digits",
    "srd_closed": "SRD",
    "srd": "SRD, also on shoes, bags, digits",
    "srd_logits": "the same without its feature term",
    "srd_same": "SRD, also on unlabeled clothes",
}
OUTLIER_METRICS = ("auroc_near", "fpr95_near", "auroc_far", "fpr95_far")


def outliers_table() -> str:
    """Return what unlabeled images of other classes are worth, for accuracy and for outliers."""
    rows = summary("open-1200")
    rows = {variant: rows[variant] for variant in OPEN_TITLES}
    columns = [
        method_column("", lambda variant: OPEN_TITLES.get(variant, variant)),
        metric_column("top1", header="accuracy", digits=1),
        difference_column("top1", digits=1),
        *(metric_column(metric, digits=1) for metric in OUTLIER_METRICS),
    ]
    return StudyTable.of({**teacher_row(result("methods_open-1200")), **rows}, columns).markdown()
