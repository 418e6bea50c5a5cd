"""Join queries, documents and judgments that are given by their ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from tutelage.core.collection import Collection, Judgments
from tutelage.data._text import is_file, read_lines, warn_counts
from tutelage.data.retrieval_data import JudgedQueries
from tutelage.errors import UserError

PARTS = {"train": ("train",), "validation": ("dev", "validation", "val"), "test": ("test",)}
Grade = tuple[str, str, int]
"""Query id, document id, grade."""


def joined_text(title: str, text: str) -> str:
    """Return title and text as encoders read them; a text that begins with its title has it once.

    >>> joined_text("on lift", "on lift. we study it"), joined_text("on lift", "we study it")
    ('on lift. we study it', 'on lift we study it')
    """
    title = " ".join(title.split())
    text = " ".join(text.split())
    begins = text.startswith(title) and not text[len(title) : len(title) + 1].isalnum()
    return text if begins else f"{title} {text}".strip()


def unique_rows(ids: Sequence[str], what: str) -> dict[str, int]:
    """Return the row of every id.

    Raises:
        UserError: If an id is empty or occurs twice; the message names it and its rows.
    """
    rows: dict[str, int] = {}
    for row, identifier in enumerate(ids):
        if not identifier.strip():
            raise UserError(f"{what}: entry {row + 1} has an empty id; give every entry one")
        if identifier in rows:
            raise UserError(
                f"{what}: the id {identifier!r} is given twice, in entries {rows[identifier] + 1} "
                f"and {row + 1}; let ids be unique"
            )
        rows[identifier] = row
    return rows


def read_qrels(path: Path, fix: str) -> list[Grade]:
    """Return the judgments of a qrels file, of TREC or of BEIR.

    TREC's lines are `query 0 document grade` with spaces, BEIR's `query document grade` with tabs
    and a header.

    Raises:
        UserError: If a line is neither, or the header names the columns in another order; the
            message names it.
    """
    grades: list[Grade] = []
    for number, line in enumerate(read_lines(path, fix), 1):
        fields = line.split("\t") if "\t" in line else line.split()
        if number == 1 and len(fields) == 3 and not _is_number(fields[-1]):  # BEIR's header
            _check_header(path, fields)
            continue
        if len(fields) not in (3, 4) or not _is_grade(fields[-1]):
            raise UserError(
                f"{path}, line {number}: a judgment is `query 0 document grade` (TREC) or, with "
                "tabs, `query document grade` (BEIR), where the grade is a whole number, got "
                f"{line[:80]!r}; {fix}"
            )
        grades.append((fields[0].strip(), fields[-2].strip(), int(float(fields[-1]))))
    return grades


def read_corpus(
    path: Path, ids: Sequence[str], titles: Sequence[str], bodies: Sequence[str]
) -> tuple[Collection, dict[str, int]]:
    """Return the documents of a file as encoders read them, title and text, and the row of each id.

    Args:
        path: of the file, for messages.
        ids: of its documents.
        titles: of each document, perhaps empty.
        bodies: text of each document.

    Raises:
        UserError: If an id is given twice.
    """
    rows = unique_rows(ids, str(path))
    texts = [joined_text(title, body) for title, body in zip(titles, bodies, strict=True)]
    warn_documents(path, texts)
    return Collection("documents", ids, texts), rows


def judged_part(
    name: str,
    queries: Mapping[str, str],
    grades: Sequence[Grade],
    document_rows: Mapping[str, int],
    where: object,
) -> JudgedQueries:
    """Return the queries of a part that have judgments, and the judgments by row.

    Beside what `fitting_judgments` says, queries without text are counted in a warning, but stay.

    Args:
        name: of the part.
        queries: text by id; those of other parts may be among them.
        grades: of the part.
        document_rows: row of each document's id.
        where: the file of the judgments, for the warning.

    Raises:
        UserError: If nothing is left.
    """
    ids, judgments = fitting_judgments(name, list(queries), grades, document_rows, where)
    empty = sum(not queries[query].strip() for query in ids)
    warn_counts(where, {"queries without text": empty})
    collection = Collection(name, ids, [" ".join(queries[query].split()) for query in ids])
    return JudgedQueries(collection, judgments)


def fitting_judgments(
    name: str,
    queries: Sequence[str],
    grades: Sequence[Grade],
    document_rows: Mapping[str, int],
    where: object,
) -> tuple[list[str], Judgments]:
    """Return the ids of the queries of a part that have judgments, and the judgments by row.

    What does not fit is left out and counted in one warning: judgments of unknown documents or
    queries, and second judgments of one pair, of which the larger grade counts. Held-out queries
    without a relevant document are counted too, but stay.

    Args:
        name: of the part.
        queries: ids; those of other parts may be among them.
        grades: of the part.
        document_rows: row of each document's id.
        where: the file of the judgments, for the warning.

    Raises:
        UserError: If nothing is left.
    """
    counts = dict.fromkeys(
        ("judgments of unknown documents", "judgments of unknown queries", "doubled judgments"), 0
    )
    known = set(queries)
    by_pair: dict[tuple[str, str], int] = {}
    for query, document, grade in grades:
        if query not in known:
            counts["judgments of unknown queries"] += 1
        elif document not in document_rows:
            counts["judgments of unknown documents"] += 1
        elif (query, document) in by_pair:
            counts["doubled judgments"] += 1
            by_pair[query, document] = max(grade, by_pair[query, document])
        else:
            by_pair[query, document] = grade
    judged = {query for query, _ in by_pair}
    if name != "train":  # there they are left out, and said
        relevant = {query for (query, _), grade in by_pair.items() if grade > 0}
        counts["queries without a relevant document, which count 0"] = len(judged - relevant)
    warn_counts(where, counts)
    if not judged:
        raise UserError(
            f"{where}: no judgment fits a query and a document of the data; check that the ids of "
            "the three files belong together"
        )
    ids = [query for query in queries if query in judged]
    rows = {query: row for row, query in enumerate(ids)}
    triples = [(rows[q], document_rows[d], grade) for (q, d), grade in by_pair.items()]
    return ids, Judgments.of(triples)


def read_parts(root: Path, fix: str) -> dict[str, tuple[Path, list[Grade]]]:
    """Return file and judgments of every part that a folder `qrels` in BEIR's layout has.

    Args:
        root: has the folder.
        fix: ends the error message.

    Raises:
        UserError: If there is none for testing, or one is damaged.
    """
    found = {}
    for part, names in PARTS.items():
        paths = [root / "qrels" / f"{name}.tsv" for name in names]
        path = next(filter(is_file, paths), None)
        if path is None and part == "test":
            path = paths[0]  # reading it says what is wrong with it
        if path is not None:
            found[part] = path, read_qrels(path, fix)
    return found


def warn_unjudged(
    where: object, queries: Mapping[str, str], parts: Mapping[str, JudgedQueries]
) -> None:
    """Say how many queries have a judgment in no part: they are neither trained nor tested on."""
    judged = {identifier for part in parts.values() for identifier in part.queries.ids}
    count = sum(identifier not in judged for identifier in queries)
    warn_counts(where, {"queries without judgments": count})


def warn_documents(where: object, texts: Sequence[str]) -> None:
    """Say how many documents are empty: they stay in the corpus, but can hardly be found."""
    empty = sum(not text.strip() for text in texts)
    warn_counts(where, {"documents without text": empty})


def _check_header(path: Path, names: Sequence[str]) -> None:
    """Raise if a header has the document before the query: ids of both may be equal numbers."""
    first, second = (name.strip().lower() for name in names[:2])
    if first.startswith(("corpus", "doc")) or second.startswith(("query", "topic")):
        raise UserError(
            f"{path}, line 1, names the columns {list(names)}; put the query's id first, then the "
            "document's, then the grade"
        )


def _is_grade(field: str) -> bool:
    """Return whether a field is a whole number that int64 holds, as 2 or 2.0."""
    return _is_number(field) and float(field).is_integer() and abs(float(field)) < 2**63


def _is_number(field: str) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return "_" not in field  # Python reads 1_0 as 10
