"""Pictures and pages from run folders; the only place that plots."""

from __future__ import annotations

from tutelage.report.heatmap import draw_layer_maps

__all__ = ["draw_layer_maps"]
