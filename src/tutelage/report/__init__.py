"""Pictures and pages from run folders; the only place that plots."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tutelage._lazy import lazy_names

if TYPE_CHECKING:
    from tutelage.report.heatmap import (
        draw_comparison,
        draw_epoch_maps,
        draw_layer_maps,
        write_picture,
    )
    from tutelage.report.page import write_report
else:
    __getattr__, __dir__ = lazy_names(__name__)

__all__ = ["draw_comparison", "draw_epoch_maps", "draw_layer_maps", "write_picture", "write_report"]
