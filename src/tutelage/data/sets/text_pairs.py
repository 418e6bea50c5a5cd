"""Pairs of a query and its document in one table."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path

from tutelage.core.collection import Collection, Judgments
from tutelage.data._text import is_file, iterate_lines, warn_counts
from tutelage.data.generated_queries import Documents, Generator
from tutelage.data.retrieval_data import JudgedQueries, RetrievalContents, RetrievalData
from tutelage.errors import NotInstalledError, UserError

FIX = "give a file of two columns, query and document: .tsv without a header, or .parquet"


class TextPairs(RetrievalData):
    """A table of queries and documents: with tabs, or parquet with columns of these names.

    Equal documents are one document of the corpus, with the id of its first row. The pairs are cut
    by document, so that no tested document is trained on.

    Args:
        file: .tsv (query, tab, document) or .parquet.
        query: name of the query's column in parquet.
        document: name of the document's column in parquet.
        test: share of the documents whose queries are for testing; as many are for validation.
        generated: generators of further queries.
        documents_per_query: documents of a training query in a batch.
        seed: of the cut.
    """

    def __init__(
        self,
        file: str,
        query: str = "query",
        document: str = "document",
        test: float = 0.1,
        generated: Sequence[Generator] = (),
        documents_per_query: int = 1,
        seed: int = 0,
    ) -> None:
        self.file = file
        self.query = query
        self.document = document
        self.test = test
        self.generated = generated
        self.documents_per_query = documents_per_query
        self.seed = seed

    def read(self) -> RetrievalContents:
        """Read the table.

        Raises:
            UserError: If it is missing, lacks a column, or has too few documents to cut.
        """
        if not 0 < self.test < 0.5:
            raise UserError(f"data.test is a share below 0.5, got {self.test}")
        path = Path(self.file).expanduser()
        rows: dict[str, int] = {}
        ids: list[str] = []
        pairs: list[tuple[str, str, int]] = []
        empty = 0
        for number, (query, document) in enumerate(self._pairs(path), 1):
            query, document = " ".join(query.split()), " ".join(document.split())
            if not query or not document:
                empty += 1
                continue
            if document not in rows:
                rows[document] = len(ids)
                ids.append(f"row{number}")
            pairs.append((f"row{number}", query, rows[document]))
        warn_counts(path, {"rows without query or document": empty})
        held_out = round(self.test * len(ids))
        if held_out < 1 or len(ids) < 3:
            raise UserError(f"{path} has {len(ids)} documents, too few to cut into parts; {FIX}")
        order = list(range(len(ids)))
        random.Random(self.seed).shuffle(order)
        cuts = {
            "test": set(order[:held_out]),
            "validation": set(order[held_out : 2 * held_out]),
            "train": set(order[2 * held_out :]),
        }
        texts = list(rows)
        return RetrievalContents(
            corpus=Collection("documents", ids, texts),
            documents=Documents(ids, [""] * len(ids), texts),
            parts={name: _part(name, pairs, chosen) for name, chosen in cuts.items()},
        )

    def _pairs(self, path: Path) -> Iterator[tuple[str, str]]:
        if not is_file(path):
            raise UserError(f"{path} is missing, or no file; {FIX}")
        if path.suffix == ".parquet":
            yield from _parquet(path, self.query, self.document)
            return
        for number, line in iterate_lines(path, FIX):
            query, tab, document = line.partition("\t")
            if not tab or "\t" in document:
                raise UserError(
                    f"{path}, line {number}, has {line.count(chr(9)) + 1} columns and not 2; {FIX}"
                )
            if number == 1 and (query.lower(), document.lower()) == (self.query, self.document):
                raise UserError(f"{path}, line 1, is a header; remove it, or {FIX}")
            yield query, document


def _parquet(path: Path, query: str, document: str) -> Iterator[tuple[str, str]]:
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise NotInstalledError(
            f"{path} is a parquet file, which", "pyarrow", "retrieval"
        ) from error
    try:
        table = parquet.read_table(path, columns=[query, document])
        columns = [table.column(name).to_pylist() for name in (query, document)]
    except Exception as error:  # pyarrow has many kinds for a damaged file or a missing column
        text = " ".join(str(error).split())[:200]
        raise UserError(
            f"{path} cannot be read as parquet with the columns {query!r} and {document!r} "
            f"({text}); set data.query and data.document"
        ) from error
    for left, right in zip(*columns, strict=True):
        yield str(left or ""), str(right or "")


def _part(name: str, pairs: Sequence[tuple[str, str, int]], chosen: set[int]) -> JudgedQueries:
    own = [pair for pair in pairs if pair[2] in chosen]
    if not own:
        raise UserError(f"no query is left for the part {name}; choose another data.test")
    triples = [(number, row, 1) for number, (_, _, row) in enumerate(own)]
    ids = [identifier for identifier, _, _ in own]
    return JudgedQueries(Collection(name, ids, [q for _, q, _ in own]), Judgments.of(triples))
