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


def check_id_type(field: Any, path: Path) -> None:
    """Raise unless a column of parquet can hold ids.

    Args:
        field: of the file's schema.
        path: of the file, for the message.

    Raises:
        UserError: If it holds lists, mappings, bytes, times or truth values.
    """
    from pyarrow import types

    kind = field.type.value_type if types.is_dictionary(field.type) else field.type
    is_text = types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)
    if not (is_text or types.is_integer(kind) or types.is_floating(kind) or types.is_null(kind)):
        raise UserError(
            f"{path}: the column {field.name!r} holds {kind}, but an id is a text or a whole "
            "number, one in each row"
        )


def ids_of(
    values: Sequence[object], path: Path, number: int, what: str = "line"
) -> tuple[str, str]:
    """Return user and item as texts; a whole number that is stored as float has no point.

    Raises:
        UserError: If one is missing, a fraction, or holds control characters.
    """
    texts = []
    for value in values:
        is_missing = value is None or (isinstance(value, float) and math.isnan(value))
        if isinstance(value, float) and not is_missing:
            if not value.is_integer():
                raise UserError(f"{path}, {what} {number}: the id {value} is no whole number")
            value = int(value)
        text = "" if is_missing else str(value).strip()
        if not text.isprintable() and min(text) < " ":
            raise UserError(
                f"{path}, {what} {number}: the id {text!r} holds control characters; give the text "
                "file of users and items"
            )
        texts.append(text)
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
