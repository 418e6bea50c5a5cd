"""What a student is trained for."""

from __future__ import annotations

from tutelage.tasks.classification import Classification
from tutelage.tasks.detection import Detection
from tutelage.tasks.detr import TransformerDetection
from tutelage.tasks.open_set import OpenSetClassification
from tutelage.tasks.segmentation import Segmentation

__all__ = ["Classification", "Detection", "OpenSetClassification", "Segmentation", "TransformerDetection"]
