"""Read lists of interactions: RecBole's atomic files, MovieLens, CiteULike, tables.

What a line says is checked, and an error names file and line. Ids are texts: `7` and `07` differ.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tutelage.data._tables import import_parquet
from tutelage.data.sets._interaction_lookup import (
    ADVICE,
    Columns,
    find_file,
    places_of,
    separator_of,
)
from tutelage.data.sets._interaction_values import check_id_type, fields_of, ids_of, rating_of
from tutelage.errors import UserError, reason

BYTE_ORDER_MARK = "\ufeff"

Row = tuple[str, str, Any]


@dataclass(frozen=True)
class RawInteractions:
    """Pairs as a file has them.

    Attributes:
        source: the file, for messages.
        users: (N,) int64, numbers by first appearance.
        items: (N,) int64, the same.
        user_ids: what the file calls the users.
        item_ids: what it calls the items.
    """

    source: str
    users: Tensor
    items: Tensor
    user_ids: list[str]
    item_ids: list[str]


def read_interactions(
    root: Path,
    format: str = "auto",
    *,
    columns: Columns = (None, None, None),
    min_rating: float | None = None,
) -> RawInteractions:
    """Return the interactions of a file.

    Args:
        root: the file, or a folder with one.
        format: "auto", "recbole", "movielens", "citeulike" or "table".
        columns: names of user, item and rating in a table or an atomic file; None looks for known
            ones.
        min_rating: the least rating that counts; None takes all above 0.

    Raises:
        UserError: If there is no such file, or a line of it is not as its format has it.
    """
    path, known = find_file(root, format)
    is_table = known in ("recbole", "table") or path.suffix.lower() in (".csv", ".parquet")
    named = [name for name in columns if name is not None]
    if named and not is_table:
        raise UserError(
            f"{path} has no header, so that there is no column {named[0]!r}; leave data.user, "
            "data.item and data.rating out"
        )
    if known == "citeulike":
        rows = _citeulike(path)
    elif path.suffix.lower() == ".parquet":
        rows = _parquet(path, columns)
    elif not is_table:
        rows = _movielens(path)
    else:
        rows = _table(path, columns, typed=known == "recbole")
    users: dict[str, int] = {}
    items: dict[str, int] = {}
    pairs: list[tuple[int, int]] = []
    skipped = 0
    for user, item, rating in rows:
        if rating is None and min_rating is not None:
            raise UserError(
                f"{path} has no ratings, so that data.min_rating means nothing; leave it out, or "
                "set data.rating to their column"
            )
        if rating is not None and not (rating > 0 if min_rating is None else rating >= min_rating):
            skipped += 1
            continue
        pairs.append((users.setdefault(user, len(users)), items.setdefault(item, len(items))))
    if not pairs:
        least = "" if min_rating is None else f" with a rating of at least {min_rating:g}"
        raise UserError(f"{path} has no interaction{least}; {ADVICE}")
    if skipped and min_rating is None:
        warnings.warn(
            f"{path}: {skipped} of {len(pairs) + skipped} lines have a rating of 0 or less, which "
            "is no interaction",
            stacklevel=2,
        )
    table = torch.tensor(pairs)
    return RawInteractions(str(path), table[:, 0], table[:, 1], list(users), list(items))


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Give (number, line) of a text file, without empty lines; a byte-order mark is an error."""
    try:
        with path.open(encoding="utf-8", newline=None) as file:
            for number, line in enumerate(file, 1):
                if number == 1 and line.startswith(BYTE_ORDER_MARK):
                    raise UserError(
                        f"{path} begins with a byte-order mark, which would become part of the "
                        "first name; save it as UTF-8 without one"
                    )
                if line.strip():
                    yield number, line.rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is no UTF-8 text ({error.reason}); convert it") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); check its rights") from error


def _citeulike(path: Path) -> Iterator[Row]:
    """Give the pairs of `users.dat`: a line for every user, the number of items, then the items."""
    without_items = 0
    number = 0
    for number, line in _lines(path):
        count, *items = line.split()
        if not count.isdecimal() or int(count) != len(items):
            raise UserError(
                f"{path}, line {number}: the first number says how many items follow, but it is "
                f"{count} and {len(items)} follow"
            )
        wrong = [item for item in items if not item.isdecimal()]
        if wrong:
            raise UserError(f"{path}, line {number}: {wrong[0]!r} is no item number")
        without_items += not items
        for item in items:
            yield str(number - 1), item, None
    if without_items:
        warnings.warn(
            f"{path}: {without_items} of {number} users have no items and are left out",
            stacklevel=2,
        )


def _movielens(path: Path) -> Iterator[Row]:
    """Give the pairs of `u.data` (tabs) or `ratings.dat` (::): user, item, rating, time."""
    separator = None
    for number, line in _lines(path):
        separator = separator or ("::" if "::" in line else "\t")
        fields = line.split(separator)
        if len(fields) != 4:
            raise UserError(
                f"{path}, line {number}: {len(fields)} fields, but a line of MovieLens has 4, "
                f"user, item, rating and time, with {separator!r} between them"
            )
        yield *ids_of(fields[:2], path, number), rating_of(fields[2], path, number)


def _table(path: Path, columns: Columns, typed: bool) -> Iterator[Row]:
    """Give the pairs of a table with a header; RecBole's says `name:type` and has tabs."""
    lines = _lines(path)
    first = next(lines, None)
    if first is None:
        raise UserError(f"{path} is empty; {ADVICE}")
    header_line = first[1]
    separator = separator_of(path, header_line, typed)
    header = fields_of(header_line, separator, path, 1)
    names = [name.strip().partition(":")[0] if typed else name.strip() for name in header]
    if typed and not all(":" in name for name in header):
        raise UserError(
            f"{path}, line 1: the header of RecBole's atomic files names each column with its "
            f"type, as user_id:token, got {header_line[:80]!r}"
        )
    places = places_of(path, names, columns)
    for number, line in lines:
        fields = fields_of(line, separator, path, number)
        if len(fields) != len(names):
            raise UserError(
                f"{path}, line {number}: {len(fields)} fields, but the header names {len(names)}"
            )
        user, item = ids_of([fields[place] for place in places[:2]], path, number)
        rating = None if len(places) == 2 else rating_of(fields[places[2]], path, number)
        yield user, item, rating


def _parquet(path: Path, columns: Columns) -> Iterator[Row]:
    parquet = import_parquet(path)
    try:
        table = parquet.read_table(path)
    except Exception as error:  # a damaged file makes the reader raise nearly anything
        raise UserError(f"{path} cannot be read as parquet ({reason(error)})") from error
    names = list(table.column_names)
    places = places_of(path, names, columns)
    for place in places[:2]:
        check_id_type(table.schema.field(place), path)
    values = [table.column(names[place]).to_pylist() for place in places]
    for number, row in enumerate(zip(*values, strict=True), 1):
        rating = None if len(places) == 2 else rating_of(row[2], path, number, "row")
        yield *ids_of(row[:2], path, number, "row"), rating
