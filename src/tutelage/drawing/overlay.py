"""What a network found, drawn on an image: joints, boxes, masks."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tutelage.core import Overlay
from tutelage.drawing.colors import text_color
from tutelage.drawing.masks import NO_CLASS, class_color, class_name, mask_image

MIN_SCORE = 0.1  # points of lower confidence are drawn hollow
MIN_BOX_SCORE = 0.3  # boxes of lower confidence are not drawn
TITLE_HEIGHT = 14  # pixels above a panel


def joint_color(index: int, count: int) -> tuple[int, int, int]:
    """Return the color of a joint; neighbors are far apart on the color circle.

    >>> joint_color(0, 8), joint_color(1, 8)
    ((255, 51, 51), (51, 111, 255))
    """
    hue = (index * 0.618033988749895) % 1.0
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.8, 1.0)
    return round(255 * red), round(255 * green), round(255 * blue)


def draw_overlay(image: Tensor, overlay: Overlay, names: Sequence[str] = ()) -> Any:
    """Return a PIL image with the joints, boxes or classes of an overlay.

    Args:
        image: (3, H, W) uint8.
        overlay: in pixels of the image.
        names: of the joints, or of the classes by label.
    """
    from PIL import Image

    if overlay.points is not None:
        return draw_points(image, overlay, names)
    if overlay.boxes is not None:
        return draw_boxes(image, overlay, names)
    picture = Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())
    if overlay.mask is None:
        return picture
    mask = overlay.mask.where(overlay.mask >= 0, NO_CLASS).to(torch.uint8).cpu().numpy()
    colors = mask_image(mask, names)
    return Image.alpha_composite(picture.convert("RGBA"), colors).convert("RGB")


def draw_panels(
    image: Tensor, overlays: Mapping[str, Overlay], names: Sequence[str], longest_side: int
) -> NDArray[np.uint8]:
    """Return an image once for each overlay, side by side under its title, (H, W, 3).

    >>> image = torch.zeros(3, 20, 30, dtype=torch.uint8)
    >>> draw_panels(image, {"truth": Overlay(), "student": Overlay()}, [], 60).shape
    (34, 60, 3)

    Args:
        image: (3, H, W) uint8.
        overlays: by title, in pixels of the image.
        names: of the joints, or of the classes by label.
        longest_side: of a panel in pixels; larger images are made smaller.
    """
    from PIL import Image, ImageDraw

    scale = min(1.0, longest_side / max(image.shape[-2:]))
    height, width = (max(1, round(side * scale)) for side in image.shape[-2:])
    sheet = Image.new("RGB", (width * len(overlays), TITLE_HEIGHT + height))
    draw = ImageDraw.Draw(sheet)
    for number, (title, overlay) in enumerate(overlays.items()):
        panel = draw_overlay(image, overlay, names)
        sheet.paste(panel.resize((width, height)), (number * width, TITLE_HEIGHT))
        draw.text((number * width + 2, 1), title, fill="white")
    return np.asarray(sheet)


def draw_boxes(image: Tensor, overlay: Overlay, names: Sequence[str] = ()) -> Any:
    """Return a PIL image with a frame for each box, its class and its score.

    Boxes whose score is below 0.3 are left out.

    Args:
        image: (3, H, W) uint8.
        overlay: its boxes are in pixels of the image.
        names: of the classes by label.
    """
    from PIL import Image, ImageDraw

    picture = Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())
    if overlay.boxes is None or overlay.labels is None:
        return picture
    draw = ImageDraw.Draw(picture)
    width = max(1, round(max(picture.size) / 400))
    labels = overlay.labels.tolist()
    scores = [None] * len(labels) if overlay.scores is None else overlay.scores.tolist()
    found = list(zip(overlay.boxes.tolist(), labels, scores, strict=True))
    for corners, label, score in reversed(found):  # the surest one lies on top
        if score is not None and score < MIN_BOX_SCORE:
            continue
        if not all(map(math.isfinite, corners)):  # of a network that diverged
            continue
        color = class_color(label)
        left, right = sorted(corners[::2])
        top, bottom = sorted(corners[1::2])
        draw.rectangle((left, top, right, bottom), outline=color, width=width)
        text = (
            class_name(names, label) if score is None else f"{class_name(names, label)} {score:.2f}"
        )
        place = draw.textbbox((left + 1, top + 1), text)
        draw.rectangle(place, fill=color)
        draw.text((left + 1, top + 1), text, fill=text_color(color))
    return picture


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
        if not (math.isfinite(x) and math.isfinite(y)):
            continue
        color = joint_color(index, len(points))
        box = (x - radius, y - radius, x + radius, y + radius)
        draw.ellipse(box, fill=color if score >= MIN_SCORE else None, outline=color, width=1)
        if index < len(names):
            draw.text((x + radius + 1, y - radius), names[index], fill=color)
    return picture
