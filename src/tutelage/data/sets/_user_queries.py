"""Queries that a user's own generator made of documents."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from tutelage.core.collection import Collection
from tutelage.data._text import iterate_lines, warn_counts
from tutelage.data.generated_queries import GeneratedQueries, normal_form
from tutelage.errors import UserError

FIX = 'a line is {"document": id, "query": text}, or the id, a tab and the query'


def read_user_queries(
    path: Path, document_rows: Mapping[str, int], excluded: Iterable[str]
) -> GeneratedQueries:
    """Return generated queries of a file: JSON lines, or document id and query with a tab.

    Those of unknown documents and those equal to an excluded query are counted and left out.

    Args:
        path: of the file.
        document_rows: row of each document's id.
        excluded: queries of the judged parts.

    Raises:
        UserError: If the file is missing, a line is of another form, or nothing is left.
    """
    forbidden = {normal_form(text) for text in excluded}
    dropped = dict.fromkeys(("queries of unknown documents", "queries equal to a judged one"), 0)
    ids: list[str] = []
    texts: list[str] = []
    rows: list[int] = []
    for number, line in iterate_lines(path, FIX):
        document, query = _parsed(path, number, line)
        if document not in document_rows:
            dropped["queries of unknown documents"] += 1
        elif normal_form(query) in forbidden:
            dropped["queries equal to a judged one"] += 1
        else:
            ids.append(f"user-{number}-{document}")
            texts.append(" ".join(query.split()))
            rows.append(document_rows[document])
    warn_counts(path, dropped)
    if not ids:
        raise UserError(f"{path} has no query of a document of the corpus; {FIX}")
    return GeneratedQueries(Collection("user", ids, texts), rows, dropped)


def _parsed(path: Path, number: int, line: str) -> tuple[str, str]:
    """Return document id and query of a line."""
    if line.startswith("{"):
        try:
            entry = json.loads(line)
            document, query = entry["document"], entry["query"]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise UserError(f"{path}, line {number}, cannot be read ({error!r}); {FIX}") from error
    else:
        document, tab, query = line.partition("\t")
        if not tab:
            raise UserError(f"{path}, line {number}, has no tab: {line[:60]!r}; {FIX}")
    if not isinstance(document, str) or not isinstance(query, str) or not query.strip():
        raise UserError(f"{path}, line {number}, lacks an id or a query; {FIX}")
    return document.strip(), query
