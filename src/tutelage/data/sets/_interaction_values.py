"""Values of a line of interactions: its fields, the ids, and the rating, each checked."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tutelage.errors import UserError


def fields_of(line: str, separator: str, path: Path, number: int) -> list[str]:
    """Return the fields of a line of a table.

    Raises:
        UserError: If quotes are not closed.
    """
    try:
        return next(csv.reader([line], delimiter=separator, strict=True))
    except csv.Error as error:
        raise UserError(
            f"{path}, line {number}: {error}; a field in quotes ends with one, on the same line"
        ) from error


def ids_of(
    values: Sequence[object], path: Path, number: int, what: str = "line"
) -> tuple[str, str]:
    """Return user and item as texts; a whole number that is stored as float has no point.

    Raises:
        UserError: If one is missing.
    """
    texts = []
    for value in values:
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        is_missing = value is None or (isinstance(value, float) and math.isnan(value))
        texts.append("" if is_missing else str(value).strip())
    if "" in texts:
        raise UserError(f"{path}, {what} {number}: the user or the item is empty")
    return texts[0], texts[1]


def rating_of(value: Any, path: Path, number: int, what: str = "line") -> float:
    """Return a rating.

    Raises:
        UserError: If it is no finite number.
    """
    try:
        rating = float(value)
    except (TypeError, ValueError):
        rating = math.nan
    if not math.isfinite(rating):
        raise UserError(f"{path}, {what} {number}: the rating {value!r} is no number")
    return rating
