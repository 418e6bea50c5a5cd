"""Masks as pictures: colors of classes, and outlines."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Mask = NDArray[np.uint8]  # (H, W), the class of every pixel

NO_CLASS = 255  # a pixel without a class
BACKGROUND_NAMES = ("background", "unlabeled", "unlabelled", "void")
CLASS_ALPHA = 150  # how much of the image a class hides, of 255
OUTLINE_ALPHA = 255


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


def _outline(mask: Mask) -> NDArray[np.bool_]:
    """Return where a class meets another to its right or below."""
    edge = np.zeros(mask.shape, bool)
    edge[:, :-1] |= mask[:, :-1] != mask[:, 1:]
    edge[:-1] |= mask[:-1] != mask[1:]
    return edge
