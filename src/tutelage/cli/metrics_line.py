"""Plain text for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def metrics_line(metrics: Mapping[str, float]) -> str:
    """Return metrics on one line.

    >>> metrics_line({"top1": 0.91234, "num_samples": 100.0})
    'top1 0.9123  num_samples 100'
    """
    return "  ".join(f"{name} {value:.4g}" for name, value in metrics.items())


def calibration_line(
    calibration: Mapping[str, Any], part: str, metrics: Mapping[str, float]
) -> str:
    """Return what a fitted temperature changes, on one line.

    >>> calibration = {"temperature": 1.5, "test": {"top1": 0.9, "ece": 0.01}}
    >>> calibration_line(calibration, "test", {"top1": 0.9, "ece": 0.2})
    'at temperature 1.5, which exports and predictions have: ece 0.01'

    Args:
        calibration: `temperature`, and the metrics at it by part.
        part: `validation` or `test`.
        metrics: without it.
    """
    changed = {
        name: value for name, value in calibration[part].items() if value != metrics.get(name)
    }
    return (
        f"at temperature {calibration['temperature']:.3g}, which exports and predictions have: "
        f"{metrics_line(changed)}"
    )
