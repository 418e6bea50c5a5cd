"""Maps of values from 0 to 1 as pictures, such as CKA of layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

CELL = 12  # pixels of a cell of a map
# CKA of 0, 0.5 and 1: dark blue, green, yellow, as most maps of it are colored.
COLORS = np.array([[68, 1, 84], [33, 145, 140], [253, 231, 37]], dtype=np.float64)
UNDEFINED = (160, 160, 160)


def map_picture(value: Sequence[Sequence[float | None]]) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return a map as a picture (rows · 12, columns · 12, 3); gray is undefined.

    >>> map_picture([[0.0, 1.0, None]]).shape
    (12, 36, 3)
    """
    rows = []
    for row in value:
        rows.append([UNDEFINED if cell is None else _color(cell) for cell in row])
    colors = np.array(rows, dtype=np.uint8)
    return colors.repeat(CELL, axis=0).repeat(CELL, axis=1)


def _color(value: float) -> tuple[int, int, int]:
    place = min(max(value, 0.0), 1.0) * (len(COLORS) - 1)
    red, green, blue = (
        round(float(np.interp(place, np.arange(len(COLORS)), channel))) for channel in COLORS.T
    )
    return red, green, blue
