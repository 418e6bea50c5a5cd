"""Masks over an image: colours that are told apart, outlines, names, and how far two masks agree."""

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

Pixels = NDArray[np.uint8]

NOBODY = 255  # a pixel without a class
EMPTY = ("background", "unlabeled", "unlabelled", "void")  # names of classes that are left clear
VEIL, LINE = 150, 255  # how much of the image a class and its outline hide, of 255
FINE = 480  # pixels of the longer side at which outlines are drawn
SMALL = 0.01  # share of the pixels from which on a class is named in the picture


def read_mask(path: Path) -> Pixels:
    """Return the class of every pixel, (H, W)."""
    try:
        with Image.open(path) as picture:
            return np.asarray(picture.convert("L"))
    except OSError as error:
        raise UserError(f"{path} is missing or broken ({error}); the folder is not complete") from None


def colour(index: int) -> str:
    """Return a class's colour; neighbours in number are far apart in hue.

    >>> colour(1), colour(2)
    ('#4ce5e6', '#e6b94c')
    """
    hue = (index * 0.618034 + 0.882) % 1.0
    red, green, blue = colorsys.hls_to_rgb(hue, 0.6, 0.75)
    return "#" + "".join(f"{round(255 * share):02x}" for share in (red, green, blue))


def is_clear(name: str) -> bool:
    """Return whether a class is what lies behind all others."""
    return name.lower() in EMPTY


def overlay(mask: Pixels, names: Sequence[str], truth: Pixels | None = None) -> str:
    """Return a picture of the classes as a data URI, with the true outlines in white where the truth is given."""
    table = np.zeros((256, 4), np.uint8)
    for index in np.unique(mask):
        if index != NOBODY and not is_clear(named(names, index)):
            table[index] = [*bytes.fromhex(colour(int(index))[1:]), VEIL]
    table[NOBODY] = (128, 128, 128, VEIL)
    drawn = table[mask]
    drawn[_outline(mask) & (drawn[..., 3] > 0), 3] = LINE
    if truth is not None:
        drawn[_outline(truth) & (truth != NOBODY)] = (255, 255, 255, LINE)
    data = io.BytesIO()
    Image.fromarray(drawn, "RGBA").save(data, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(data.getvalue()).decode()


def enlarged(mask: Pixels) -> Pixels:
    """Return a small mask with every pixel repeated, so that its outlines are thin.

    >>> enlarged(np.zeros((100, 50), np.uint8)).shape
    (400, 200)
    """
    times = max(1, FINE // max(mask.shape))
    return mask.repeat(times, 0).repeat(times, 1)


def named(names: Sequence[str], index: int) -> str:
    """Return a class's name, or its number where it has none."""
    return names[index] if 0 <= index < len(names) else f"class {index}"


def places(mask: Pixels, names: Sequence[str]) -> list[tuple[str, float, float, float]]:
    """Return (name, x, y, share of the pixels) of every class that is worth naming; the point lies on the class."""
    found = []
    for index in np.unique(mask[mask != NOBODY]):
        name = named(names, int(index))
        rows, columns = np.nonzero(mask == index)
        share = len(rows) / mask.size
        if share >= SMALL and not is_clear(name):
            nearest = np.argmin((rows - np.median(rows)) ** 2 + (columns - np.median(columns)) ** 2)
            found.append((name, float(columns[nearest]) + 0.5, float(rows[nearest]) + 0.5, share))
    return sorted(found, key=lambda entry: -entry[3])


def agreement(truth: Pixels, mask: Pixels) -> tuple[float, float] | None:
    """Return the mean IoU over the classes of either, and the share of pixels that are right; None without any class.

    >>> agreement(np.array([[0, 0, 1, 255]], np.uint8), np.array([[0, 1, 1, 1]], np.uint8))
    (0.5, 0.6666666666666666)
    """
    known = truth != NOBODY
    if not known.any():
        return None
    true, seen = truth[known], mask[known]
    classes = np.union1d(true, seen)
    shared = [
        ((true == index) & (seen == index)).sum() / ((true == index) | (seen == index)).sum() for index in classes
    ]
    return float(np.mean(shared)), float((true == seen).mean())


def _outline(mask: Pixels) -> NDArray[np.bool_]:
    """Return where a class meets another to its right or below."""
    edge = np.zeros(mask.shape, bool)
    edge[:, :-1] |= mask[:, :-1] != mask[:, 1:]
    edge[:-1] |= mask[:-1] != mask[1:]
    return edge
