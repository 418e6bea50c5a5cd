"""Plain text for a terminal."""

from __future__ import annotations

from collections.abc import Mapping


def metrics_line(metrics: Mapping[str, float]) -> str:
    """Return metrics on one line.

    >>> metrics_line({"top1": 0.91234, "num_samples": 100.0})
    'top1 0.9123  num_samples 100'
    """
    return "  ".join(f"{name} {value:.4g}" for name, value in metrics.items())
