"""Folders in the layout of BEIR, which most collections of dense retrieval are published in."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tutelage.data._files import require_folder
from tutelage.data._text import iterate_lines
from tutelage.data.generated_queries import Documents, Generator
from tutelage.data.retrieval_data import RetrievalContents, RetrievalData
from tutelage.data.sets._judgments import (
    judged_part,
    read_corpus,
    read_parts,
    unique_rows,
    warn_unjudged,
)
from tutelage.data.sets._user_queries import read_user_queries
from tutelage.errors import UserError

ADVICE = "give a folder with corpus.jsonl, queries.jsonl and qrels/test.tsv, and set data.root"


class Beir(RetrievalData):
    """A folder of BEIR: corpus.jsonl, queries.jsonl, and qrels/*.tsv by part.

        corpus.jsonl    {"_id": "d1", "title": "", "text": "..."} a line
        queries.jsonl   {"_id": "q1", "text": "..."} a line
        qrels/test.tsv  query-id, corpus-id, score with tabs and a header; train.tsv, dev.tsv

    Encoders read title and text. Without qrels/train.tsv the training queries are generated. Ids
    are text. Judgments of unknown documents and queries are counted and left out, and so are
    training queries that are equal to one of validation or test.

    Args:
        root: the folder.
        pairs: generators of the training queries, without qrels/train.tsv.
        generated: generators of further queries without judgments.
        generated_file: queries that a generator of yours has made, in the pool `user`: JSON lines
            {"document": id, "query": text}, or those two with a tab.
        validation: share of the training queries that is held out, without qrels/dev.tsv.
        judged_validation: share of the test queries that is held out instead.
        documents_per_query: documents of a training query in a batch.
        generator_seed: of random sentences.
    """

    def __init__(
        self,
        root: str,
        pairs: Sequence[Generator] = ("title", "first_sentence", "random_sentence"),
        generated: Sequence[Generator] = ("tfidf", "random_sentence"),
        generated_file: str | None = None,
        validation: float = 0.05,
        judged_validation: float = 0.0,
        documents_per_query: int = 1,
        generator_seed: int = 0,
    ) -> None:
        self.root = root
        self.pairs = pairs
        self.generated = generated
        self.generated_file = generated_file
        self.validation = validation
        self.judged_validation = judged_validation
        self.documents_per_query = documents_per_query
        self.generator_seed = generator_seed

    def read(self) -> RetrievalContents:
        """Read the folder.

        Raises:
            UserError: If a file is missing or damaged, or an id is given twice.
        """
        root = require_folder(self.root, "the BEIR folder", ADVICE)
        entries = read_json_lines(root / "corpus.jsonl", ("_id", "text"), ADVICE)
        ids = [entry["_id"] for entry in entries]
        titles = [_title(entry, root / "corpus.jsonl") for entry in entries]
        bodies = [entry["text"] for entry in entries]
        corpus, rows = read_corpus(root / "corpus.jsonl", ids, titles, bodies)
        asked = read_json_lines(root / "queries.jsonl", ("_id", "text"), ADVICE)
        unique_rows([entry["_id"] for entry in asked], str(root / "queries.jsonl"))
        queries = {entry["_id"]: entry["text"] for entry in asked}
        parts = {
            part: judged_part(part, queries, grades, rows, path)
            for part, (path, grades) in read_parts(root, ADVICE).items()
        }
        warn_unjudged(root / "queries.jsonl", queries, parts)
        user = None
        if self.generated_file is not None:
            excluded = [str(text) for part in parts.values() for text in part.queries.items]
            user = read_user_queries(Path(self.generated_file), rows, excluded)
        return RetrievalContents(
            corpus=corpus,
            documents=Documents(ids, titles, bodies),
            parts=parts,
            user_queries=user,
        )


def _title(entry: dict[str, Any], path: Path) -> str:
    """Return the title of a document, which may be missing."""
    title = entry.get("title") or ""
    if not isinstance(title, str):
        raise UserError(
            f"{path}: the title of document {entry['_id']!r} is {title!r} and no text; put it in "
            "quotes, or leave it out"
        )
    return title


def read_json_lines(path: Path, needed: Sequence[str], fix: str) -> list[dict[str, Any]]:
    """Return the objects of a file with one JSON object a line.

    Args:
        path: of the file.
        needed: fields that each object has, of text.
        fix: ends the error message.

    Raises:
        UserError: If the file is missing, or a line is none; the message names it.
    """
    entries = []
    for number, line in iterate_lines(path, fix):
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path}, line {number}, is no JSON ({error}); {fix}") from error
        for name in needed:
            if not isinstance(entry, dict) or not isinstance(entry.get(name), str):
                raise UserError(f"{path}, line {number}, has no field {name!r} of text; {fix}")
        entries.append(entry)
    if not entries:
        raise UserError(f"{path} is empty; {fix}")
    return entries
