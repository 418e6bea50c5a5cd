"""The tasks a student is trained for: how a batch enters a network, the loss, and the metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tutelage._lazy import lazy_names

if TYPE_CHECKING:
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
else:
    __getattr__, __dir__ = lazy_names(__name__)

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
