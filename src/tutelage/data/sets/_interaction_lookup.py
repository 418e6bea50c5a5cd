"""Where interactions are: the file of a folder, and the columns of a table."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from tutelage.data._tables import column_names
from tutelage.errors import UserError, near_misses

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

Columns = tuple[str | None, str | None, str | None]


def find_file(root: Path, format: str) -> tuple[Path, str]:
    """Return the file of interactions at a place, and its format; other such files are named.

    Args:
        root: a file, or a folder with one.
        format: "auto" goes by the name.

    Raises:
        UserError: If there is none, or there are several of one kind.
    """
    formats = sorted({name for _, name in FILES})
    if format not in ("auto", *formats):
        raise UserError(f"data.format is auto or one of {formats}, got {format!r}")
    if os.path.isfile(root):
        known = formats_of(root)
        if format == "auto" and not known:
            raise UserError(f"{root} has no known name of interactions; {ADVICE}, or set format")
        return root, known[0] if format == "auto" else format
    if not os.path.isdir(root):
        raise UserError(f"data.root: there is no {root}; {ADVICE}")
    inside = sorted(path for path in root.iterdir() if path.is_file())
    for pattern, name in FILES:
        if format not in ("auto", name):
            continue
        found = [path for path in inside if _matches(path, pattern)]
        if len(found) > 1:
            raise UserError(
                f"{root} holds {len(found)} files {pattern}, such as {found[0].name} and "
                f"{found[1].name}; set data.root to one of them, and if they are parts for "
                "training and testing, join them: data.holdout cuts the parts itself"
            )
        if found:
            _name_others(found[0], [path for path in inside if path != found[0]])
            return found[0], name
    what = "of interactions" if format == "auto" else f"of the format {format!r}"
    raise UserError(f"{root} holds no file {what}; {ADVICE}")


def formats_of(path: Path) -> list[str]:
    """Return the formats that a file's name fits, the first one first.

    >>> formats_of(Path("data/u.data")), formats_of(Path("own.CSV")), formats_of(Path("notes.txt"))
    (['movielens'], ['table'], [])
    """
    return [name for pattern, name in FILES if _matches(path, pattern)]


def _matches(path: Path, pattern: str) -> bool:
    """Return whether a name is that of a kind of file; a.CSV is a .csv."""
    return fnmatchcase(path.name.lower(), pattern)


def _name_others(taken: Path, others: Sequence[Path]) -> None:
    """Warn of further files with users and items, which are not read."""
    named = [path.name for path in others if _is_of_interactions(path)]
    if named:
        warnings.warn(
            f"{taken} is read, and of the same folder {', '.join(named)} is not; set data.root to "
            "a file to choose another",
            stacklevel=2,
        )


def _is_of_interactions(path: Path) -> bool:
    formats = formats_of(path)
    if formats != ["table"]:
        return bool(formats)
    try:
        names = column_names(path)
    except UserError:  # no table of these
        return False
    return has_users_and_items(names)


def has_users_and_items(names: Sequence[str]) -> bool:
    """Return whether a header has a usual column of users and one of items.

    >>> has_users_and_items(["userId", "movieId", "tag"]), has_users_and_items(["movieId"])
    (True, False)
    """
    return not (set(names).isdisjoint(USER_NAMES) or set(names).isdisjoint(ITEM_NAMES))


def separator_of(path: Path, header: str, typed: bool) -> str:
    """Return what is between the columns of a table: tabs, commas, or semicolons.

    Spreadsheets of many languages write .csv with semicolons. Of a usual separator that the header
    does not have, the next one is taken.
    """
    usual = ("\t", ",", ";") if typed or path.suffix.lower() == ".tsv" else (",", "\t", ";")
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


def places_of(path: Path, names: Sequence[str], columns: Columns) -> list[int]:
    """Return the places of user and item, and of the rating if there is one."""
    places = []
    known = (("user", USER_NAMES), ("item", ITEM_NAMES), ("rating", RATING_NAMES))
    for wanted, (role, usual) in zip(columns, known, strict=True):
        if wanted is not None and wanted not in names:
            raise UserError(f"{path} has no column {wanted!r}{near_misses(wanted, names)}")
        found = [wanted] if wanted is not None else [name for name in usual if name in names]
        if len(found) > 1:
            warnings.warn(
                f"{path}: {found} could each be the column of {role}s, {found[0]} is taken; set "
                f"data.{role} to choose another",
                stacklevel=2,
            )
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
