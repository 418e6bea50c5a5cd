"""Layer × layer maps, and how a page shows them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tutelage.analysis.formatting import finite, format_fixed
from tutelage.report.colors import level

Numbers = list[list[float | None]]
Words = list[list[str | None]]

VERDICTS = ("trust", "caution", "do not trust")
MARKED = VERDICTS[1:]  # the verdicts with a mark: where a number needs care


@dataclass(frozen=True)
class Certainty:
    """What is known about each cell's value beside the value; None where it was not asked for."""

    low: Numbers | None = None
    high: Numbers | None = None
    p_value: Numbers | None = None
    verdict: Words | None = None
    reason: Words | None = None
    interval: str = "interval"  # what low and high are called
    p_floor: float | None = None  # no p-value can be smaller; one that is there may be any smaller


@dataclass(frozen=True)
class LayerMaps:
    """Maps over the same layers.

    Attributes:
        rows: layer names.
        columns: layer names.
        samples: how many samples the maps are over.
        maps: values by title, in order.
        certainty: of the only map.
        scale: the colors go from minus this value to this value; None goes from 0 to 1.
    """

    rows: list[str]
    columns: list[str]
    samples: int | None
    maps: dict[str, Numbers]
    certainty: Certainty = Certainty()
    scale: float | None = None

    def differences(self) -> LayerMaps | None:
        """Return what every other map has more than the first one, on a scale of its own.

        None if there is no other map.
        """
        first, *others = self.maps
        if not others:
            return None
        maps = {}
        for title in others:
            pairs = zip(self.maps[title], self.maps[first], strict=True)
            maps[f"{title} − {first}"] = [_subtract(row, base) for row, base in pairs]
        values = [
            abs(value)
            for matrix in maps.values()
            for row in matrix
            for value in row
            if value is not None
        ]
        # Two digits are written beside the colors, so the scale ends at two digits.
        largest = 100 * max(values, default=0.0)
        scale = max(math.ceil(largest - 1e-6) / 100, 0.01)
        return LayerMaps(self.rows, self.columns, self.samples, maps, scale=scale)

    def number(self, value: float | None) -> str:
        """Return a value as a cell has it."""
        # Adding 0.0 turns −0.00 into 0.00.
        rounded_value = None if value is None else round(value, 2) + 0.0
        return format_fixed(rounded_value, 2, sign=self.scale is not None and bool(rounded_value))

    def level(self, value: float | None) -> int | None:
        """Return the level of a value's color."""
        if value is None or self.scale is None:
            return level(value)
        return level((value / self.scale + 1) / 2)


def _subtract(row: Sequence[float | None], base: Sequence[float | None]) -> list[float | None]:
    return [
        None if value is None or other is None else value - other
        for value, other in zip(row, base, strict=True)
    ]


@dataclass(frozen=True)
class MapView:
    """One heat map on a page; with several titles it has a slider.

    Attributes:
        layers: what to show.
        sides: the networks that the rows and the columns belong to.
        measure: name of the value.
        heading: over the map; empty for none.
        reference: title and values of a map that the tooltip compares with.
    """

    layers: LayerMaps
    sides: tuple[str, str]
    measure: str = "CKA"
    heading: str = ""
    reference: tuple[str, Numbers] | None = None

    @property
    def titles(self) -> list[str]:
        """Titles of the maps; the last one is shown first."""
        return list(self.layers.maps)

    @property
    def size(self) -> str:
        """Class of the cells' size: `small` has no room for numbers, `tiny` none for all names."""
        longest = max(len(self.layers.columns), len(self.layers.rows))
        if longest > 60:
            return "tiny"
        if longest > 20:
            return "small"
        return "close" if longest > 12 else "roomy"

    def lines(self) -> list[tuple[str, list[tuple[str, str, str]]]]:
        """Return the rows of the map that is shown first.

        Each is a name and, for each cell, its color class, number and verdict class.
        """
        values = self.layers.maps[self.titles[-1]]
        verdicts = self.layers.certainty.verdict
        lines = []
        for i, name in enumerate(self.layers.rows):
            cells = []
            for j, value in enumerate(values[i]):
                verdict = None if verdicts is None else verdicts[i][j]
                color = color_class(self.layers, value)
                cells.append((color, self.layers.number(value), verdict_class(verdict)))
            lines.append((name, cells))
        return lines

    def data(self) -> dict[str, Any]:
        """Return all that the page's script needs, as JSON without NaN."""
        maps = [
            [[rounded(value) for value in row] for row in values]
            for values in self.layers.maps.values()
        ]
        return {
            "rows": self.layers.rows,
            "columns": self.layers.columns,
            "sides": self.sides,
            "measure": self.measure,
            "titles": self.titles,
            "maps": maps,
            "scale": self.layers.scale,
            "reference": self.reference,
            **asdict(self.layers.certainty),
        }


def color_class(layers: LayerMaps, value: float | None) -> str:
    """Return a cell's color class.

    >>> color_class(LayerMaps([], [], None, {}), 0.5)
    'h25'
    >>> color_class(LayerMaps([], [], None, {}, scale=0.2), -0.2)
    'd0'
    """
    index = layers.level(value)
    if index is None:
        return "none"
    return f"h{index}" if layers.scale is None else f"d{index}"


def verdict_class(verdict: str | None) -> str:
    """Return a verdict's class, the name of its shape; a number to trust has no mark.

    >>> verdict_class("do not trust"), verdict_class("trust"), verdict_class(None)
    ('do-not-trust', '', '')
    """
    return verdict.replace(" ", "-") if verdict in MARKED else ""


def rounded(value: float | None) -> float | None:
    """Return a number with six significant digits, None for NaN."""
    return None if finite(value) is None else float(f"{value:.6g}")
