"""Layer × layer maps: read, checked, and laid out for a page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from tutelage.analysis.formatting import finite, format_fixed
from tutelage.errors import UserError
from tutelage.report.colors import level
from tutelage.report.folder import errors_of, read_json, read_lines

T = TypeVar("T")
Numbers = list[list[float | None]]
Words = list[list[str | None]]
Shape = tuple[Sequence[str], Sequence[str]]  # the names of the rows and of the columns

VERDICTS = ("trust", "caution", "do not trust")


@dataclass(frozen=True)
class Certainty:
    """What is known about each cell's value beside the value; None where it was not asked for."""

    low: Numbers | None = None
    high: Numbers | None = None
    p_value: Numbers | None = None
    verdict: Words | None = None
    reason: Words | None = None
    interval: str = "interval"  # what low and high are called


@dataclass(frozen=True)
class LayerMaps:
    """Maps over the same layers.

    Attributes:
        rows: layer names.
        columns: layer names.
        samples: how many samples the maps are over.
        maps: values by title, in order.
        certainty: of the only map.
    """

    rows: list[str]
    columns: list[str]
    samples: int | None
    maps: dict[str, Numbers]
    certainty: Certainty = Certainty()


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
                cells.append((color_class(value), format_fixed(value, 2), verdict_class(verdict)))
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
            "reference": self.reference,
            **asdict(self.layers.certainty),
        }


def color_class(value: float | None) -> str:
    """Return a cell's color class.

    >>> color_class(0.5), color_class(None)
    ('h25', 'none')
    """
    index = level(value)
    return "none" if index is None else f"h{index}"


def verdict_class(verdict: str | None) -> str:
    """Return a verdict's class, the name of its shape.

    >>> verdict_class("do not trust"), verdict_class(None)
    ('do-not-trust', '')
    """
    return verdict.replace(" ", "-") if verdict in VERDICTS else ""


def rounded(value: float | None) -> float | None:
    """Return a number with six significant digits, None for NaN."""
    return None if finite(value) is None else float(f"{value:.6g}")


def read_study_maps(path: Path) -> LayerMaps:
    """Return the maps of a study: layer_maps.json."""
    content = read_json(path)
    with errors_of(path):
        rows = _names(content["rows"])
        columns = _names(content["columns"])
        maps = {
            str(title): _numbers(values, (rows, columns))
            for title, values in content["maps"].items()
        }
        if not maps:
            raise ValueError("it holds no map")
        return LayerMaps(rows, columns, content["samples"], maps)


def read_epoch_maps(path: Path) -> LayerMaps:
    """Return the maps of a run, one for each recorded epoch: layer_maps.jsonl."""
    records = read_lines(path)
    if not records:
        raise UserError(f"{path} holds no map yet; wait for the first epoch that is recorded")
    with errors_of(path):
        rows = _names(records[0]["rows"])
        columns = _names(records[0]["columns"])
        maps = {}
        for record in records:
            if (_names(record["rows"]), _names(record["columns"])) != (rows, columns):
                raise ValueError(
                    f"the layers of epoch {record['epoch']} are not those of the first one"
                )
            maps[f"epoch {int(record['epoch'])}"] = _numbers(record["value"], (rows, columns))
        return LayerMaps(rows, columns, records[0]["samples"], maps)


def read_comparison_map(path: Path) -> LayerMaps:
    """Return the map of two networks, and what is known about each cell: compare.json."""
    content = read_json(path)
    with errors_of(path):
        rows = _names(content["rows"])
        columns = _names(content["columns"])
        shape = (rows, columns)
        certainty = Certainty(
            low=_optional_numbers(content["low"], shape),
            high=_optional_numbers(content["high"], shape),
            p_value=_optional_numbers(content["p_value"], shape),
            verdict=_optional_words(content["verdict"], shape),
            reason=_optional_words(content["reason"], shape),
            interval=_interval_name(content.get("confidence")),
        )
        maps = {"": _numbers(content["value"], shape)}
        return LayerMaps(rows, columns, content["samples"], maps, certainty)


def finite_numbers(row: Sequence[Any]) -> list[float | None]:
    """Return a row of numbers, with None for what is no finite number."""
    return [None if value is None else finite(float(value)) for value in row]


def _numbers(values: Any, shape: Shape) -> Numbers:
    """Return a matrix of rows × columns, with None for what is no finite number."""
    return [finite_numbers(row) for row in _matrix(values, shape)]


def _optional_numbers(values: Any, shape: Shape) -> Numbers | None:
    return None if values is None else _numbers(values, shape)


def _optional_words(values: Any, shape: Shape) -> Words | None:
    if values is None:
        return None
    return [[None if word is None else str(word) for word in row] for row in _matrix(values, shape)]


def _matrix(values: Sequence[Sequence[T]], shape: Shape) -> Sequence[Sequence[T]]:
    rows, columns = shape
    if len(values) != len(rows) or any(len(row) != len(columns) for row in values):
        raise ValueError(f"a map is not {len(rows)} x {len(columns)}, the number of its layers")
    return values


def _names(values: Any) -> list[str]:
    if not isinstance(values, list) or not values:
        raise ValueError("it names no layers")
    return [str(value) for value in values]


def _interval_name(confidence: float | None) -> str:
    return "interval" if confidence is None else f"{100 * confidence:g} % interval"
