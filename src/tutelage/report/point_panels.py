"""Panels of joints: the true ones, and those that a network found."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tutelage.analysis.formatting import format_fixed
from tutelage.report.panels import Panel, PictureRow, Shape
from tutelage.report.previews import Annotation, Points, Preview

FOUND = 0.05  # share of the picture's longer side
RADIUS = 0.014  # of a circle, likewise


def point_rows(previews: Sequence[Preview], names: Sequence[str]) -> list[PictureRow]:
    """Return each image with a panel for the truth and one for each network."""
    rows = []
    for preview in previews:
        side = max(preview.width, preview.height)
        panels = [_truth(preview.truth, names, side)]
        panels += [_prediction(found, preview.truth, names, side) for found in preview.predictions]
        rows.append(PictureRow.of(preview, panels))
    return rows


def _truth(truth: Annotation, names: Sequence[str], side: float) -> Panel:
    points = truth.points or Points([], [])
    shapes = [
        _circle("true", place, _name(names, joint), side)
        for joint, (place, score) in enumerate(zip(points.places, points.scores, strict=True))
        if score > 0
    ]
    return Panel(truth.title, f"{len(shapes)} joints", shapes)


def _prediction(
    prediction: Annotation, truth: Annotation, names: Sequence[str], side: float
) -> Panel:
    found = prediction.points or Points([], [])
    true = truth.points or Points([], [])
    shapes = []
    hits = 0
    total = 0
    rows = zip(found.places, found.scores, true.places, true.scores, strict=True)
    for joint, (place, score, target, weight) in enumerate(rows):
        if weight <= 0:
            continue
        total += 1
        distance = math.dist(place, target) / side
        is_found = distance <= FOUND
        hits += is_found
        name = _name(names, joint)
        if not is_found:
            shapes.append(_circle("true", target, f"{name}: the truth", side))
        text = f"{name}, score {format_fixed(score, 2)}\n{format_fixed(100 * distance, 1)} % away"
        shapes.append(_circle("hit" if is_found else "false", place, text, side))
    caption = f"{hits} of {total} found" if total else "nothing to find"
    return Panel(prediction.title, caption, shapes)


def _circle(kind: str, place: tuple[float, float], tooltip: str, side: float) -> Shape:
    radius = round(RADIUS * side, 2)
    x, y = place
    position = (round(x - radius, 2), round(y - radius, 2), 2 * radius, 2 * radius)
    assert kind in ("true", "hit", "false")
    return Shape(kind, position, tooltip, radius=radius)  # type: ignore[arg-type]


def _name(names: Sequence[str], joint: int) -> str:
    return names[joint] if joint < len(names) else f"joint {joint}"
