"""Classification of known classes that is also evaluated on images of unknown ones."""

from __future__ import annotations

from tutelage.tasks.open_set.metrics import (
    OpenSetMetrics,
    accepted_outliers,
    auroc,
    energy_score,
    softmax_score,
)
from tutelage.tasks.open_set.task import OpenSetClassification

__all__ = [
    "OpenSetClassification",
    "OpenSetMetrics",
    "accepted_outliers",
    "auroc",
    "energy_score",
    "softmax_score",
]
