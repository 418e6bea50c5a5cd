"""Masks over an image: colors, outlines, names, and how far two masks agree."""

from __future__ import annotations

import base64
import colorsys
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tutelage.errors import UserError

Mask = NDArray[np.uint8]  # (H, W), the class of every pixel

NO_CLASS = 255  # a pixel without a class
BACKGROUND_NAMES = ("background", "unlabeled", "unlabelled", "void")
CLASS_ALPHA = 150  # how much of the image a class hides, of 255
OUTLINE_ALPHA = 255
OUTLINE_RESOLUTION = 480  # pixels of the longer side at which outlines are drawn
MIN_NAMED_SHARE = 0.01  # share of the pixels from which on a class is named in the picture


def read_mask(path: Path) -> Mask:
    """Return the class of every pixel, (H, W)."""
    try:
        with Image.open(path) as picture:
            return np.asarray(picture.convert("L"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(
            f"{path} is missing or broken ({error}); the folder is not complete"
        ) from None


def class_color(index: int) -> str:
    """Return a class's color; neighbors in number are far apart in hue.

    >>> class_color(1), class_color(2)
    ('#4ce5e6', '#e6b94c')
    """
    hue = (index * 0.618034 + 0.882) % 1.0
    red, green, blue = colorsys.hls_to_rgb(hue, 0.6, 0.75)
    return "#" + "".join(f"{round(255 * share):02x}" for share in (red, green, blue))


def is_background(name: str) -> bool:
    """Return whether a class is what lies behind all others, which is left clear."""
    return name.lower() in BACKGROUND_NAMES


def class_name(names: Sequence[str], index: int) -> str:
    """Return a class's name, or its number if it has none."""
    return names[index] if 0 <= index < len(names) else f"class {index}"


def mask_picture(mask: Mask, names: Sequence[str], truth: Mask | None = None) -> str:
    """Return a picture of the classes as a data URI; see `mask_image`."""
    data = io.BytesIO()
    mask_image(mask, names, truth).save(data, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(data.getvalue()).decode()


def mask_image(mask: Mask, names: Sequence[str], truth: Mask | None = None) -> Image.Image:
    """Return a picture of the classes, RGBA, clear where nothing but background is.

    Args:
        mask: the class of every pixel.
        names: of the classes.
        truth: its outlines are drawn in white.
    """
    colors = np.zeros((256, 4), np.uint8)
    for index in np.unique(mask):
        if index != NO_CLASS and not is_background(class_name(names, index)):
            colors[index] = [*bytes.fromhex(class_color(int(index))[1:]), CLASS_ALPHA]
    colors[NO_CLASS] = (128, 128, 128, CLASS_ALPHA)
    pixels = colors[mask]
    pixels[_outline(mask) & (pixels[..., 3] > 0), 3] = OUTLINE_ALPHA
    if truth is not None:
        pixels[_outline(truth) & (truth != NO_CLASS)] = (255, 255, 255, OUTLINE_ALPHA)
    return Image.fromarray(pixels, "RGBA")


def enlarged(mask: Mask) -> Mask:
    """Return a small mask with every pixel repeated, so that its outlines are thin.

    >>> enlarged(np.zeros((100, 50), np.uint8)).shape
    (400, 200)
    """
    times = max(1, OUTLINE_RESOLUTION // max(mask.shape))
    return mask.repeat(times, 0).repeat(times, 1)


def class_labels(mask: Mask, names: Sequence[str]) -> list[tuple[str, float, float, float]]:
    """Return (name, x, y, share of the pixels) of the classes to name, the largest first.

    The point lies on the class, near the middle of its pixels.
    """
    labels = []
    for index in np.unique(mask[mask != NO_CLASS]):
        name = class_name(names, int(index))
        rows, columns = np.nonzero(mask == index)
        share = len(rows) / mask.size
        if share < MIN_NAMED_SHARE or is_background(name):
            continue
        distance = (rows - np.median(rows)) ** 2 + (columns - np.median(columns)) ** 2
        nearest = np.argmin(distance)
        labels.append((name, float(columns[nearest]) + 0.5, float(rows[nearest]) + 0.5, share))
    return sorted(labels, key=lambda label: -label[3])


def mask_agreement(truth: Mask, mask: Mask) -> tuple[float, float] | None:
    """Return the mean IoU over the classes of either mask, and the share of correct pixels.

    None if no pixel has a true class.

    >>> truth = np.array([[0, 0, 1, 255]], np.uint8)
    >>> mask_agreement(truth, np.array([[0, 1, 1, 1]], np.uint8))
    (0.5, 0.6666666666666666)
    """
    has_class = truth != NO_CLASS
    if not has_class.any():
        return None
    target = truth[has_class]
    prediction = mask[has_class]
    ious = []
    for index in np.union1d(target, prediction):
        intersection = ((target == index) & (prediction == index)).sum()
        union = ((target == index) | (prediction == index)).sum()
        ious.append(intersection / union)
    return float(np.mean(ious)), float((target == prediction).mean())


def _outline(mask: Mask) -> NDArray[np.bool_]:
    """Return where a class meets another to its right or below."""
    edge = np.zeros(mask.shape, bool)
    edge[:, :-1] |= mask[:, :-1] != mask[:, 1:]
    edge[:-1] |= mask[:-1] != mask[1:]
    return edge
