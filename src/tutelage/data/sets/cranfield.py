"""The Cranfield collection: abstracts on aerodynamics, with judgments of people."""

from __future__ import annotations

from collections.abc import Sequence

from tutelage.data._files import require_folder
from tutelage.data.generated_queries import Documents, Generator
from tutelage.data.retrieval_data import RetrievalContents, RetrievalData
from tutelage.data.sets._judgments import judged_part, read_corpus, read_qrels, warn_unjudged
from tutelage.data.sets._trec import read_trec_documents, read_trec_topics
from tutelage.errors import UserError

DOCUMENTS = "cran.all.1400.xml"
TOPICS = "cran.qry.xml"
QRELS = "cranqrel.trec.txt"
ADVICE = f"get a folder with {DOCUMENTS}, {TOPICS} and {QRELS}, and set data.root"


class Cranfield(RetrievalData):
    """1400 abstracts and 225 queries, in TREC's files; training queries are generated.

    C. W. Cleverdon, "The Cranfield tests on index language devices", Aslib Proceedings 1967.

    The topics keep their old numbers (1, 2, 4, 8 … 365), while the judgments count 1 … 225, so both
    are joined by position. A grade 0, one a query, is an unexplained -1 of other copies of the
    collection: it counts as not relevant, and the metrics `…_without_grade_0` leave such documents
    out of the rankings. Grades above 1 count as 1. Two documents are empty, and most texts begin
    with their title, which is not put before them again.

    Args:
        root: the folder of the files.
        pairs: generators of the training queries.
        generated: generators of further queries without judgments.
        validation: share of the training queries that is held out.
        judged_validation: share of the judged queries that is held out from testing; 0 tests on
            all of them.
        documents_per_query: documents of a training query in a batch.
        generator_seed: of random sentences.
    """

    def __init__(
        self,
        root: str,
        pairs: Sequence[Generator] = ("title", "first_sentence", "random_sentence"),
        generated: Sequence[Generator] = ("tfidf", "random_sentence", "random_sentence"),
        validation: float = 0.05,
        judged_validation: float = 0.0,
        documents_per_query: int = 1,
        generator_seed: int = 0,
    ) -> None:
        self.root = root
        self.pairs = pairs
        self.generated = generated
        self.validation = validation
        self.judged_validation = judged_validation
        self.documents_per_query = documents_per_query
        self.generator_seed = generator_seed

    def read(self) -> RetrievalContents:
        """Read the three files.

        Raises:
            UserError: If a file is missing or of another form, or if topics and judgments do not
                belong together.
        """
        root = require_folder(self.root, "Cranfield", ADVICE)
        documents = read_trec_documents(root / DOCUMENTS, ADVICE)
        ids = [document.identifier for document in documents]
        titles = [document.title for document in documents]
        texts = [document.text for document in documents]
        corpus, rows = read_corpus(root / DOCUMENTS, ids, titles, texts)
        topics = read_trec_topics(root / TOPICS, ADVICE)
        grades = [(q, d, min(grade, 1)) for q, d, grade in read_qrels(root / QRELS, ADVICE)]
        highest = max((int(query) for query, _, _ in grades if query.isdecimal()), default=0)
        if highest != len(topics):
            raise UserError(
                f"{root / QRELS} has judgments of query {highest}, but {root / TOPICS} has "
                f"{len(topics)} topics, which they are joined with by position; {ADVICE}"
            )
        queries = {str(position): title for position, (_, title) in enumerate(topics, 1)}
        # The title is the first sentence of the text; sentences are wanted from the rest.
        bodies = [_without_title(document.title, document.text) for document in documents]
        parts = {"test": judged_part("test", queries, grades, rows, root / QRELS)}
        warn_unjudged(root / TOPICS, queries, parts)
        return RetrievalContents(
            corpus=corpus,
            documents=Documents(ids, titles, bodies),
            parts=parts,
        )


def _without_title(title: str, text: str) -> str:
    title = " ".join(title.split())
    text = " ".join(text.split())
    return text.removeprefix(title).strip() if title else text
