"""Figures as text: what is a percentage, how many digits, how a spread reads."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

NOTHING = "–"
COUNT = "count"  # the figure that tells how many items the others are over


@dataclass(frozen=True)
class Unit:
    """How one figure is written.

    Attributes:
        label: its name for people.
        scale: what it is multiplied by.
        digits: after the point.
    """

    label: str
    scale: float = 1.0
    digits: int = 3


_UNITS = {
    "top1": Unit("top-1, %", 100.0, 2),
    "top5": Unit("top-5, %", 100.0, 2),
    "agreement": Unit("agreement, %", 100.0, 2),
    "ece": Unit("ECE"),
    "nll": Unit("NLL"),
    "kl": Unit("KL to teacher"),
    "ap": Unit("AP, %", 100.0, 2),
    "ap50": Unit("AP50, %", 100.0, 2),
    "ap75": Unit("AP75, %", 100.0, 2),
    "ap_small": Unit("AP small, %", 100.0, 2),
    "ap_medium": Unit("AP medium, %", 100.0, 2),
    "ap_large": Unit("AP large, %", 100.0, 2),
    "ar": Unit("AR, %", 100.0, 2),
    "teacher_ap": Unit("teacher’s AP, %", 100.0, 2),
    "auroc_near": Unit("AUROC near, %", 100.0, 2),
    "fpr95_near": Unit("FPR95 near, %", 100.0, 2),
    "auroc_far": Unit("AUROC far, %", 100.0, 2),
    "fpr95_far": Unit("FPR95 far, %", 100.0, 2),
    "miou": Unit("mIoU, %", 100.0, 2),
    "accuracy": Unit("accuracy, %", 100.0, 2),
}
_BY_CLASS = {"ap": "AP", "iou": "IoU"}  # of figures such as ap/tree


def unit(name: str) -> Unit:
    """Return how a figure is written; one we do not know is written as it is.

    >>> unit("ap/tree").label, unit("margin").label
    ('AP tree, %', 'margin')
    """
    of, _, part = name.partition("/")
    if part and of in _BY_CLASS:
        return Unit(f"{_BY_CLASS[of]} {part}, %", 100.0, 2)
    return _UNITS.get(name, Unit(name))


def known(value: Any) -> float | None:
    """Return a finite number as it is, anything else as None."""
    return value if isinstance(value, (int, float)) and math.isfinite(value) else None


def fixed(value: float | None, digits: int, sign: bool = False) -> str:
    """Return a number with so many digits after the point.

    >>> fixed(-1.234, 2), fixed(0.5, 1, sign=True), fixed(None, 2)
    ('−1.23', '+0.5', '–')
    """
    if known(value) is None:
        return NOTHING
    return (f"{value:+.{digits}f}" if sign else f"{value:.{digits}f}").replace("-", "−")


def short(value: Any) -> str:
    """Return a number with four digits that count, a whole one with thousands apart.

    >>> short(136740), short(0.00299985), short(None)
    ('136,740', '0.003', '–')
    """
    value = known(value)
    if value is None:
        return NOTHING
    return (f"{value:,.0f}" if value == round(value) and abs(value) < 1e15 else f"{value:.4g}").replace("-", "−")


def figure(name: str, value: float | None, sign: bool = False) -> str:
    """Return one figure in its unit.

    >>> figure("top1", 0.85237), figure("ece", 0.101)
    ('85.24', '0.101')
    """
    value = known(value)
    return NOTHING if value is None else fixed(value * unit(name).scale, unit(name).digits, sign)


def spread(name: str, found: Mapping[str, Any] | None) -> str:
    """Return mean ± standard deviation; the mean alone when there was one run.

    >>> spread("top1", {"mean": 0.85, "sd": 0.01}), spread("top1", {"mean": 0.85, "sd": float("nan")})
    ('85.00 ± 1.00', '85.00')
    """
    if found is None:
        return NOTHING
    mean, sd = figure(name, found["mean"]), figure(name, found["sd"])
    return mean if sd == NOTHING else f"{mean} ± {sd}"


def moment(text: str) -> str:
    """Return a point in time for people.

    >>> moment("2026-11-25T02:08:28+00:00")
    '2026-11-25 02:08 UTC'
    """
    return datetime.fromisoformat(text).astimezone(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")


def described(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return a record as pairs of text, one level deep.

    >>> described({"python": "3.11", "packages": {"torch": "2.4"}, "gpu": None})
    [('python', '3.11'), ('packages', 'torch 2.4'), ('gpu', '–')]
    """
    return [(str(key), _text(value)) for key, value in record.items()]


def _text(value: Any) -> str:
    if value is None:
        return NOTHING
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_text(inner)}" for key, inner in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(_text(inner) for inner in value)
    return str(value)
