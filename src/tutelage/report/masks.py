"""Masks in a report: names of their classes, and how far two masks agree."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from tutelage.drawing.masks import NO_CLASS, Mask, class_name, is_background, mask_image
from tutelage.errors import UserError

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


def mask_picture(mask: Mask, names: Sequence[str], truth: Mask | None = None) -> str:
    """Return a picture of the classes as a data URI; see `mask_image`."""
    data = io.BytesIO()
    mask_image(mask, names, truth).save(data, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(data.getvalue()).decode()


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
