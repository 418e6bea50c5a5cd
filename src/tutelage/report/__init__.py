"""Pictures and pages from run folders; the only place that plots."""

from __future__ import annotations

from tutelage.report.heatmap import draw_comparison, draw_epoch_maps, draw_layer_maps, write_picture
from tutelage.report.page import write_report

__all__ = ["draw_comparison", "draw_epoch_maps", "draw_layer_maps", "write_picture", "write_report"]
