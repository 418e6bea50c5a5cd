"""Collections in TREC's files: documents, topics, judgments."""

from __future__ import annotations

from collections.abc import Sequence

from tutelage.data._files import require_folder
from tutelage.data.generated_queries import Documents, Generator
from tutelage.data.retrieval_data import RetrievalContents, RetrievalData
from tutelage.data.sets._judgments import (
    judged_part,
    read_corpus,
    read_qrels,
    unique_rows,
    warn_unjudged,
)
from tutelage.data.sets._trec import read_trec_documents, read_trec_topics

ADVICE = "give the folder as data.root, and the names of the three files in it"


class Trec(RetrievalData):
    """Documents between <doc> and </doc>, topics between <top> and </top>, and qrels.

    Topics and judgments are joined by the topics' numbers. Training queries are generated.

    Args:
        root: the folder of the files.
        documents: name of the file of documents, with <docno>, and <title> and <text>.
        topics: name of the file of topics, with <num> and <title>.
        qrels: name of the file of judgments, `topic 0 docno grade` a line.
        pairs: generators of the training queries.
        generated: generators of further queries without judgments.
        validation: share of the training queries that is held out.
        judged_validation: share of the judged queries that is held out from testing.
        documents_per_query: documents of a training query in a batch.
        generator_seed: of random sentences.
    """

    def __init__(
        self,
        root: str,
        documents: str,
        topics: str,
        qrels: str,
        pairs: Sequence[Generator] = ("title", "first_sentence", "random_sentence"),
        generated: Sequence[Generator] = ("tfidf", "random_sentence"),
        validation: float = 0.05,
        judged_validation: float = 0.0,
        documents_per_query: int = 1,
        generator_seed: int = 0,
    ) -> None:
        self.root = root
        self.documents = documents
        self.topics = topics
        self.qrels = qrels
        self.pairs = pairs
        self.generated = generated
        self.validation = validation
        self.judged_validation = judged_validation
        self.documents_per_query = documents_per_query
        self.generator_seed = generator_seed

    def read(self) -> RetrievalContents:
        """Read the three files.

        Raises:
            UserError: If a file is missing or of another form, or an id is given twice.
        """
        root = require_folder(self.root, "the collection", ADVICE)
        documents = read_trec_documents(root / self.documents, ADVICE)
        ids = [document.identifier for document in documents]
        titles = [document.title for document in documents]
        bodies = [document.text for document in documents]
        corpus, rows = read_corpus(root / self.documents, ids, titles, bodies)
        topics = read_trec_topics(root / self.topics, ADVICE)
        # A number may be written 001 in one file and 1 in the other.
        unique_rows([_plain(number) for number, _ in topics], str(root / self.topics))
        queries = {_plain(number): title for number, title in topics}
        read = read_qrels(root / self.qrels, ADVICE)
        grades = [(_plain(query), document, grade) for query, document, grade in read]
        parts = {"test": judged_part("test", queries, grades, rows, root / self.qrels)}
        warn_unjudged(root / self.topics, queries, parts)
        return RetrievalContents(
            corpus=corpus,
            documents=Documents(ids, titles, bodies),
            parts=parts,
        )


def _plain(number: str) -> str:
    return str(int(number)) if number.isdecimal() else number
