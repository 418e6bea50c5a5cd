"""Object detection with torchvision's detectors and with those of Hugging Face's DETR family."""

from __future__ import annotations

from tutelage.tasks.detection.detr import TransformerDetection
from tutelage.tasks.detection.metrics import DetectionMetrics, average_precision
from tutelage.tasks.detection.task import Detection

__all__ = ["Detection", "DetectionMetrics", "TransformerDetection", "average_precision"]
