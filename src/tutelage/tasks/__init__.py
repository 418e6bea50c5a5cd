"""The tasks a student is trained for: how a batch enters a network, the loss, and the metrics."""

from __future__ import annotations

from tutelage.tasks.classification import (
    Classification,
    MultiLabelClassification,
    fit_temperature,
    fold_temperature,
)
from tutelage.tasks.detection import Detection, TransformerDetection
from tutelage.tasks.open_set import OpenSetClassification
from tutelage.tasks.pose import Pose
from tutelage.tasks.recommendation import Recommendation
from tutelage.tasks.retrieval import Retrieval
from tutelage.tasks.segmentation import Segmentation

__all__ = [
    "Classification",
    "Detection",
    "MultiLabelClassification",
    "OpenSetClassification",
    "Pose",
    "Recommendation",
    "Retrieval",
    "Segmentation",
    "TransformerDetection",
    "fit_temperature",
    "fold_temperature",
]
