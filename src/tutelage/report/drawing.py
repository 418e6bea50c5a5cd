"""Points of joints drawn on an image."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from tutelage.core import Overlay

MIN_SCORE = 0.1  # points of lower confidence are drawn hollow


def joint_color(index: int, count: int) -> tuple[int, int, int]:
    """Return the color of a joint; neighbors are far apart on the color circle.

    >>> joint_color(0, 8), joint_color(1, 8)
    ((255, 51, 51), (51, 111, 255))
    """
    hue = (index * 0.618033988749895) % 1.0
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.8, 1.0)
    return round(255 * red), round(255 * green), round(255 * blue)


def draw_points(image: Tensor, overlay: Overlay, names: Sequence[str] = ()) -> Any:
    """Return a PIL image with a dot for each joint, and its name beside it.

    Args:
        image: (3, H, W) uint8.
        overlay: its points are in pixels of the image.
        names: of the joints.
    """
    from PIL import Image, ImageDraw

    picture = Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())
    draw = ImageDraw.Draw(picture)
    if overlay.points is None:
        return picture
    points = overlay.points.tolist()
    scores = [1.0] * len(points) if overlay.point_scores is None else overlay.point_scores.tolist()
    radius = max(2.0, max(picture.size) / 150)
    for index, ((x, y), score) in enumerate(zip(points, scores, strict=True)):
        color = joint_color(index, len(points))
        box = (x - radius, y - radius, x + radius, y + radius)
        draw.ellipse(box, fill=color if score >= MIN_SCORE else None, outline=color, width=1)
        if index < len(names):
            draw.text((x + radius + 1, y - radius), names[index], fill=color)
    return picture
