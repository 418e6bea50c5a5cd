"""Layer × layer maps, read from a folder's files and checked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from tutelage.analysis.formatting import finite
from tutelage.errors import UserError
from tutelage.report.folder import errors_of, read_json, read_lines
from tutelage.report.maps import Certainty, LayerMaps, Numbers, Words

T = TypeVar("T")
# A debiased CKA can lie outside 0 to 1, far outside where both layers are all but constant.
MAX_SIMILARITY = 1e6

Shape = tuple[Sequence[str], Sequence[str]]  # the names of the rows and of the columns


def read_study_maps(path: Path) -> LayerMaps:
    """Return the maps of a study: layer_maps.json."""
    content = read_json(path)
    with errors_of(path):
        rows = _names(content["rows"])
        columns = _names(content["columns"])
        maps = {
            str(title): _similarities(values, (rows, columns))
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
            title = f"epoch {int(record['epoch'])}"
            maps[title] = _similarities(record["value"], (rows, columns))
        return LayerMaps(rows, columns, records[0]["samples"], maps)


def read_comparison_map(path: Path) -> LayerMaps:
    """Return the map of two networks, and what is known about each cell: compare.json."""
    content = read_json(path)
    with errors_of(path):
        rows = _names(content["rows"])
        columns = _names(content["columns"])
        shape = (rows, columns)
        p_value = _optional_numbers(content["p_value"], shape)
        certainty = Certainty(
            low=_optional_numbers(content["low"], shape),
            high=_optional_numbers(content["high"], shape),
            p_value=p_value,
            verdict=_optional_words(content["verdict"], shape),
            reason=_optional_words(content["reason"], shape),
            interval=_interval_name(content.get("confidence")),
            p_floor=_p_floor(p_value, finite(content.get("permutations"))),
        )
        maps = {"": _similarities(content["value"], shape)}
        return LayerMaps(rows, columns, content["samples"], maps, certainty)


def finite_numbers(row: Sequence[Any]) -> list[float | None]:
    """Return a row of numbers, with None for what is no finite number."""
    return [None if value is None else finite(float(value)) for value in row]


def _similarities(values: Any, shape: Shape) -> Numbers:
    """Return a matrix of similarities, which are near 0 to 1 wherever they mean anything."""
    numbers = _numbers(values, shape)
    for row in numbers:
        for value in row:
            if value is not None and abs(value) > MAX_SIMILARITY:
                raise ValueError(f"{value:g} is no similarity")
    return numbers


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
    return "interval" if confidence is None else f"{100 * confidence:g} % confidence interval"


def _p_floor(p_values: Numbers | None, permutations: float | None) -> float | None:
    """Return the smallest p-value that the permutations allow, 1 / (1 + permutations).

    Where their number was not written, it is the smallest p-value that is there, if it and all
    others can be counts out of one number of permutations.
    """
    if permutations is not None:
        return 1 / (1 + permutations)
    known = [value for row in p_values or [] for value in row if value is not None]
    if not known or not 0.0 < min(known) <= 0.5:
        return None
    smallest = min(known)
    counts = [1 / smallest, *(value / smallest for value in known)]
    return smallest if all(abs(count - round(count)) < 1e-3 for count in counts) else None
