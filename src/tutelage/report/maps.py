"""Layer × layer maps: read, checked, and laid out for a page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from tutelage.errors import UserError
from tutelage.report.colours import level
from tutelage.report.folder import read_json, read_lines, understood
from tutelage.report.numbers import fixed, known

T = TypeVar("T")
Numbers = list[list[float | None]]
Words = list[list[str | None]]

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
        rows, columns: layer names.
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
class View:
    """One heat map on a page; with several titles it has a slider.

    Attributes:
        layers: what to show.
        sides: what the rows and what the columns belong to.
        measure: name of the value.
        named: heading over the map; empty for none.
        against: values that the tooltip names for comparison, by title.
    """

    layers: LayerMaps
    sides: tuple[str, str]
    measure: str = "CKA"
    named: str = ""
    against: tuple[str, Numbers] | None = None

    @property
    def titles(self) -> list[str]:
        """Titles of the maps; the last one is shown first."""
        return list(self.layers.maps)

    @property
    def size(self) -> str:
        """Class of the cells' size: `small` has no room for a number, `tiny` none for every name."""
        most = max(len(self.layers.columns), len(self.layers.rows))
        return "tiny" if most > 60 else "small" if most > 20 else "close" if most > 12 else "roomy"

    def lines(self) -> list[tuple[str, list[tuple[str, str, str]]]]:
        """Return each row's name and (colour class, number, verdict class) of its cells, of the map shown first."""
        values = self.layers.maps[self.titles[-1]]
        verdicts = self.layers.certainty.verdict or [[None] * len(self.layers.columns)] * len(values)
        return [
            (name, [(shade(value), fixed(value, 2), mark(verdict)) for value, verdict in zip(row, judged, strict=True)])
            for name, row, judged in zip(self.layers.rows, values, verdicts, strict=True)
        ]

    def data(self) -> dict[str, Any]:
        """Return all that the page's script needs, as JSON without NaN."""
        return {
            "rows": self.layers.rows,
            "columns": self.layers.columns,
            "sides": self.sides,
            "measure": self.measure,
            "titles": self.titles,
            "maps": [[[rounded(v) for v in row] for row in values] for values in self.layers.maps.values()],
            "against": self.against,
            **vars(self.layers.certainty),
        }


def shade(value: float | None) -> str:
    """Return a cell's colour class.

    >>> shade(0.5), shade(None)
    ('h25', 'none')
    """
    at = level(value)
    return "none" if at is None else f"h{at}"


def mark(verdict: str | None) -> str:
    """Return a verdict's class, the name of its shape.

    >>> mark("do not trust"), mark(None)
    ('do-not-trust', '')
    """
    return verdict.replace(" ", "-") if verdict in VERDICTS else ""


def rounded(value: float | None) -> float | None:
    """Return a number with six digits that count, None for NaN."""
    return None if known(value) is None else float(f"{value:.6g}")


def read_study_maps(path: Path) -> LayerMaps:
    """Return the maps of a study: layer_maps.json."""
    content = read_json(path)
    with understood(path):
        rows, columns = _names(content["rows"]), _names(content["columns"])
        maps = {str(title): numbers(values, (rows, columns)) for title, values in content["maps"].items()}
        if not maps:
            raise ValueError("it holds no map")
        return LayerMaps(rows, columns, content["samples"], maps)


def read_epoch_maps(path: Path) -> LayerMaps:
    """Return the maps of a run, one for each recorded epoch: layer_maps.jsonl."""
    records = read_lines(path)
    if not records:
        raise UserError(f"{path} holds no map yet; wait for the first epoch that is recorded")
    with understood(path):
        rows, columns = _names(records[0]["rows"]), _names(records[0]["columns"])
        maps = {}
        for record in records:
            if (_names(record["rows"]), _names(record["columns"])) != (rows, columns):
                raise ValueError(f"the layers of epoch {record['epoch']} are not those of the first one")
            maps[f"epoch {int(record['epoch'])}"] = numbers(record["value"], (rows, columns))
        return LayerMaps(rows, columns, records[0]["samples"], maps)


def read_comparison_map(path: Path) -> LayerMaps:
    """Return the map of two networks, and what is known about each cell: compare.json."""
    content = read_json(path)
    with understood(path):
        rows, columns = _names(content["rows"]), _names(content["columns"])
        shape = (rows, columns)
        certainty = Certainty(
            low=_if_there(content["low"], shape),
            high=_if_there(content["high"], shape),
            p_value=_if_there(content["p_value"], shape),
            verdict=_words(content["verdict"], shape),
            reason=_words(content["reason"], shape),
            interval=_interval(content.get("confidence")),
        )
        return LayerMaps(rows, columns, content["samples"], {"": numbers(content["value"], shape)}, certainty)


def numbers(values: Any, shape: tuple[Sequence[str], Sequence[str]]) -> Numbers:
    """Return a matrix of rows × columns, with None for what is no finite number."""
    return [[None if value is None else known(float(value)) for value in row] for row in _matrix(values, shape)]


def _interval(confidence: float | None) -> str:
    return "interval" if confidence is None else f"{100 * confidence:g} % interval"


def _if_there(values: Any, shape: tuple[Sequence[str], Sequence[str]]) -> Numbers | None:
    return None if values is None else numbers(values, shape)


def _words(values: Any, shape: tuple[Sequence[str], Sequence[str]]) -> Words | None:
    if values is None:
        return None
    return [[None if value is None else str(value) for value in row] for row in _matrix(values, shape)]


def _matrix(values: Sequence[Sequence[T]], shape: tuple[Sequence[str], Sequence[str]]) -> Sequence[Sequence[T]]:
    rows, columns = shape
    if len(values) != len(rows) or any(len(row) != len(columns) for row in values):
        raise ValueError(f"a map is not {len(rows)} x {len(columns)}, the number of its layers")
    return values


def _names(values: Any) -> list[str]:
    if not isinstance(values, list) or not values:
        raise ValueError("it names no layers")
    return [str(value) for value in values]
