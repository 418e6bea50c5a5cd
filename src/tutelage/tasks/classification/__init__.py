"""Classification with one label an item, such as of images, or with any number of them."""

from __future__ import annotations

from tutelage.tasks.classification.calibration import fit_temperature, fold_temperature
from tutelage.tasks.classification.metrics import ClassificationMetrics
from tutelage.tasks.classification.multi_label import (
    MultiLabelClassification,
    MultiLabelMetrics,
)
from tutelage.tasks.classification.task import Classification

__all__ = [
    "Classification",
    "ClassificationMetrics",
    "MultiLabelClassification",
    "MultiLabelMetrics",
    "fit_temperature",
    "fold_temperature",
]
