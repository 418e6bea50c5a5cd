"""Semantic segmentation: one class a pixel."""

from __future__ import annotations

from tutelage.tasks.segmentation.metrics import SegmentationMetrics
from tutelage.tasks.segmentation.task import Segmentation

__all__ = ["Segmentation", "SegmentationMetrics"]
