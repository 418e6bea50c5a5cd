"""Plain text for a terminal."""

from __future__ import annotations

from collections.abc import Mapping


def metrics_line(metrics: Mapping[str, float]) -> str:
    """Return metrics on one line.

    >>> metrics_line({"top1": 0.91234, "num_samples": 100.0})
    'top1 0.9123  num_samples 100'
    """
    return "  ".join(f"{name} {value:.4g}" for name, value in metrics.items())


def calibration_line(
    temperature: float, calibrated: Mapping[str, float], metrics: Mapping[str, float]
) -> str:
    """Return what a fitted temperature changes, on one line.

    >>> calibration_line(1.5, {"top1": 0.9, "ece": 0.01}, {"top1": 0.9, "ece": 0.2})
    'at temperature 1.5, which exports and predictions have: ece 0.01'
    >>> calibration_line(1.0, {"top1": 0.9}, {"top1": 0.9})
    'at temperature 1, which exports and predictions have: the same'

    Args:
        temperature: that was fitted.
        calibrated: metrics at it.
        metrics: those without it.
    """
    changed = {name: value for name, value in calibrated.items() if value != metrics.get(name)}
    return (
        f"at temperature {temperature:.3g}, which exports and predictions have: "
        f"{metrics_line(changed) or 'the same'}"
    )
