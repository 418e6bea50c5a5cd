"""Tables with a header: CSV, TSV and parquet files, as rows of named values."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tutelage.data._text import is_file, iterate_lines
from tutelage.errors import NotInstalledError, UserError, near_misses, reason

TABLE_ENDINGS = (".csv", ".tsv", ".parquet")
SEPARATORS = (",", "\t", ";")


@dataclass(frozen=True)
class Table:
    """A table in memory.

    Attributes:
        path: of the file, for messages.
        columns: values by the name of their column; of CSV and TSV they are texts.
    """

    path: Path
    columns: dict[str, list[Any]]

    @property
    def names(self) -> list[str]:
        """Names of the columns."""
        return list(self.columns)

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def column(self, name: str, key: str) -> list[Any]:
        """Return the values of a column.

        Args:
            name: of the column.
            key: of the recipe that names it, for the message.

        Raises:
            UserError: If there is none of that name.
        """
        if name not in self.columns:
            raise UserError(
                f"{self.path} has no column {name!r}, which {key} names"
                f"{near_misses(name, self.names)}"
            )
        return self.columns[name]


def read_table(path: Path, wanted: Sequence[str] | None = None) -> Table:
    """Return a table.

    Args:
        path: of a file with a header: .csv or .tsv with commas, semicolons or tabs, or .parquet.
        wanted: columns to read of a parquet file; None reads all.

    Raises:
        UserError: If it is missing, no table, or has no rows.
    """
    if not is_file(path):
        raise UserError(f"{path} is missing; give a table .csv, .tsv or .parquet")
    is_parquet = path.suffix.lower() == ".parquet"
    columns = _parquet(path, wanted) if is_parquet else _text(path)
    table = Table(path, columns)
    if not columns or not len(table):
        raise UserError(f"{path} has no rows; write one for each item below the header")
    return table


def column_names(path: Path) -> list[str]:
    """Return the names of a table's columns, without reading its rows.

    Raises:
        UserError: If it is no table.
    """
    if path.suffix.lower() == ".parquet":
        parquet = import_parquet(path)
        try:
            return [str(name) for name in parquet.read_schema(path).names]
        except Exception as error:  # a damaged file makes the reader raise nearly anything
            raise UserError(f"{path} cannot be read as parquet ({reason(error)})") from error
    for _, line in iterate_lines(path, "save it as UTF-8"):
        return [name.strip() for name in next(csv.reader([line], delimiter=_separator(line)))]
    raise UserError(f"{path} is empty; write a header with the names of the columns")


def text_of(value: Any) -> str:
    """Return a value of a cell as text; a missing one is empty, and 3.0 is 3.

    >>> text_of(" cat "), text_of(None), text_of(3.0), text_of(float("nan"))
    ('cat', '', '3', '')
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()


def sorted_names(names: Sequence[str] | set[str]) -> list[str]:
    """Return class names in order: numbers by their value, texts by the alphabet.

    >>> sorted_names({"10", "9"}), sorted_names({"dog", "cat"})
    (['9', '10'], ['cat', 'dog'])
    """
    if all(name.isdecimal() for name in names):
        return sorted(names, key=int)
    return sorted(names)


def _separator(header: str) -> str:
    counts = {separator: header.count(separator) for separator in SEPARATORS}
    return max(SEPARATORS, key=lambda separator: counts[separator])


def _text(path: Path) -> dict[str, list[Any]]:
    lines = iterate_lines(path, "save it as UTF-8")
    header = next(lines, None)
    if header is None:
        return {}
    separator = _separator(header[1])
    names = [name.strip() for name in next(csv.reader([header[1]], delimiter=separator))]
    if len(set(names)) < len(names) or "" in names:
        raise UserError(
            f"{path}: the header {names[:8]} has a column without a name, or two of one name; name "
            "each column once"
        )
    rows: list[list[str]] = []
    reader = csv.reader((f"{line}\n" for _, line in lines), delimiter=separator, strict=True)
    try:
        for fields in reader:
            if len(fields) != len(names):
                raise UserError(
                    f"{path}, row {len(rows) + 1}: {len(fields)} fields, but the header names "
                    f"{len(names)}"
                )
            rows.append(fields)
    except csv.Error as error:
        raise UserError(f"{path}, row {len(rows) + 1}: {error}; check its quotes") from error
    return {name: [row[place] for row in rows] for place, name in enumerate(names)}


def _parquet(path: Path, wanted: Sequence[str] | None) -> dict[str, list[Any]]:
    parquet = import_parquet(path)
    try:
        known = parquet.read_schema(path).names
        chosen = None if wanted is None else [name for name in wanted if name in known]
        content: dict[str, list[Any]] = parquet.read_table(path, columns=chosen).to_pydict()
    except Exception as error:  # a damaged file makes the reader raise nearly anything
        raise UserError(f"{path} cannot be read as parquet ({reason(error)})") from error
    return content


def import_parquet(path: Path) -> Any:
    """Return the module that reads parquet, for a file that the message names."""
    try:
        from pyarrow import parquet
    except ImportError as error:
        what = f"{path} is a parquet file, which"
        raise NotInstalledError(what, "pyarrow", instead=", or save it as .csv") from error
    return parquet
