"""Read lists of interactions: RecBole's atomic files, MovieLens, CiteULike, tables.

What a line says is checked, and an error names file and line. Ids are texts: `7` and `07` differ.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tutelage.data.sets._interaction_values import fields_of, ids_of, rating_of
from tutelage.errors import NotInstalledError, UserError, near_misses, reason

USER_NAMES = ("user_id", "userId", "user", "uid", "userid", "UserID", "member_id", "visitorid")
ITEM_NAMES = ("item_id", "itemId", "item", "iid", "movieId", "movie_id", "itemid", "MovieID")
RATING_NAMES = ("rating", "Rating", "score", "stars", "label")
FILES = (
    ("*.inter", "recbole"),
    ("u.data", "movielens"),
    ("ratings.dat", "movielens"),
    ("ratings.csv", "movielens"),
    ("users.dat", "citeulike"),
    ("*.parquet", "table"),
    ("*.csv", "table"),
    ("*.tsv", "table"),
)
ADVICE = (
    "give a file *.inter of RecBole, u.data, ratings.dat or ratings.csv of MovieLens, users.dat of "
    "CiteULike, or a table *.csv, *.tsv or *.parquet"
)

BYTE_ORDER_MARKS = ("\ufeff", "\xef\xbb\xbf")  # as UTF-8 reads it, and as Latin-1 does

Columns = tuple[str | None, str | None, str | None]
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
    path, known = _find(root, format)
    is_table = known in ("recbole", "table") or path.suffix in (".csv", ".parquet")
    named = [name for name in columns if name is not None]
    if named and not is_table:
        raise UserError(
            f"{path} has no header, so that there is no column {named[0]!r}; leave data.user, "
            "data.item and data.rating out"
        )
    if known == "citeulike":
        rows = _citeulike(path)
    elif path.suffix == ".parquet":
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


def _find(root: Path, format: str) -> tuple[Path, str]:
    """Return the file, and its format."""
    if os.path.isfile(root):
        known = [name for pattern, name in FILES if root.match(pattern)]
        if format == "auto" and not known:
            raise UserError(f"{root} has no known name of interactions; {ADVICE}, or set format")
        return root, known[0] if format == "auto" else format
    if not os.path.isdir(root):
        raise UserError(f"data.root: there is no {root}; {ADVICE}")
    for pattern, name in FILES:
        if format not in ("auto", name):
            continue
        found = sorted(root.glob(pattern))
        if len(found) > 1:
            raise UserError(
                f"{root} holds {len(found)} files {pattern}, such as {found[0].name} and "
                f"{found[1].name}; set data.root to one of them"
            )
        if found:
            return found[0], name
    what = "of interactions" if format == "auto" else f"of the format {format!r}"
    raise UserError(f"{root} holds no file {what}; {ADVICE}")


def _lines(path: Path, encoding: str = "utf-8") -> Iterator[tuple[int, str]]:
    """Give (number, line) of a text file, without empty lines; a byte-order mark is an error."""
    try:
        with path.open(encoding=encoding, newline=None) as file:
            for number, line in enumerate(file, 1):
                if number == 1 and line.startswith(BYTE_ORDER_MARKS):
                    raise UserError(
                        f"{path} begins with a byte-order mark, which would become part of the "
                        "first name; save it as UTF-8 without one"
                    )
                if line.strip():
                    yield number, line.rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is no {encoding} text ({error.reason}); convert it") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); check its rights") from error


def _citeulike(path: Path) -> Iterator[Row]:
    """Give the pairs of `users.dat`: a line for every user, the number of items, then the items."""
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
        for item in items:
            yield str(number - 1), item, None


def _movielens(path: Path) -> Iterator[Row]:
    """Give the pairs of `u.data` (tabs) or `ratings.dat` (::): user, item, rating, time."""
    separator = None
    for number, line in _lines(path, "latin-1"):
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
    separator = _separator(path, header_line, typed)
    header = fields_of(header_line, separator, path, 1)
    names = [name.strip().partition(":")[0] if typed else name.strip() for name in header]
    if typed and not all(":" in name for name in header):
        raise UserError(
            f"{path}, line 1: the header of RecBole's atomic files names each column with its "
            f"type, as user_id:token, got {header_line[:80]!r}"
        )
    places = _places(path, names, columns)
    for number, line in lines:
        fields = fields_of(line, separator, path, number)
        if len(fields) != len(names):
            raise UserError(
                f"{path}, line {number}: {len(fields)} fields, but the header names {len(names)}"
            )
        user, item = ids_of([fields[place] for place in places[:2]], path, number)
        rating = None if len(places) == 2 else rating_of(fields[places[2]], path, number)
        yield user, item, rating


def _separator(path: Path, header: str, typed: bool) -> str:
    """Return what is between the columns of a table: tabs, commas, or semicolons.

    Spreadsheets of many languages write .csv with semicolons. Of a usual separator that the header
    does not have, the next one is taken.
    """
    usual = ("\t", ",", ";") if typed or path.suffix == ".tsv" else (",", "\t", ";")
    found = next((separator for separator in usual if separator in header), None)
    if found is None:
        raise UserError(
            f"{path}, line 1: a header with names of columns is expected, with commas, tabs or "
            "semicolons between them"
        )
    if typed and found != "\t":
        raise UserError(
            f"{path}, line 1: RecBole's atomic files have tabs between columns, here are "
            f"{'commas' if found == ',' else 'semicolons'}; save it with tabs, or as .csv"
        )
    return found


def _parquet(path: Path, columns: Columns) -> Iterator[Row]:
    try:
        from pyarrow import parquet
    except ImportError as error:
        what = f"{path} is a parquet file, which"
        raise NotInstalledError(what, "pyarrow", instead=", or save it as .csv") from error
    try:
        table = parquet.read_table(path)
    except Exception as error:  # a damaged file makes the reader raise nearly anything
        raise UserError(f"{path} cannot be read as parquet ({reason(error)})") from error
    names = list(table.column_names)
    places = _places(path, names, columns)
    values = [table.column(names[place]).to_pylist() for place in places]
    for number, row in enumerate(zip(*values, strict=True), 1):
        rating = None if len(places) == 2 else rating_of(row[2], path, number, "row")
        yield *ids_of(row[:2], path, number, "row"), rating


def _places(path: Path, names: Sequence[str], columns: Columns) -> list[int]:
    """Return the places of user and item, and of the rating if there is one."""
    places = []
    known = (("user", USER_NAMES), ("item", ITEM_NAMES), ("rating", RATING_NAMES))
    for wanted, (role, usual) in zip(columns, known, strict=True):
        if wanted is not None and wanted not in names:
            raise UserError(f"{path} has no column {wanted!r}{near_misses(wanted, names)}")
        found = [wanted] if wanted is not None else [name for name in usual if name in names]
        if found:
            name = str(found[0])
            place = names.index(name)
            if place in places or names.count(name) > 1:
                raise UserError(
                    f"{path}: the column {name!r} is there twice, or would be two of user, item "
                    "and rating; name each column once"
                )
            places.append(place)
        elif role != "rating":
            raise UserError(
                f"{path} has no column of {role}s in its header {list(names)[:8]}; add a header, "
                f"or set data.{role} to the column's name"
            )
    return places
