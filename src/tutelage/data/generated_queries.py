"""Queries made of documents without a generating model: title, sentences, telling terms.

The id of a generated query says where it is from: `<generator>-<seed>-<document id>`.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Collection as AnyCollection
from dataclasses import dataclass
from typing import Literal

from tutelage.core.collection import Collection, Judgments
from tutelage.errors import UserError

Generator = Literal["title", "first_sentence", "random_sentence", "tfidf"]
SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
NOT_A_WORD = re.compile(r"\W+")
FEWEST_WORDS = 3
TERMS = 6  # of a query by tf-idf


@dataclass(frozen=True)
class Documents:
    """The documents that queries are made of.

    Attributes:
        ids: of the documents.
        titles: empty where a document has none.
        texts: without the title.
    """

    ids: Sequence[str]
    titles: Sequence[str]
    texts: Sequence[str]


@dataclass(frozen=True)
class GeneratedQueries:
    """Queries with the documents that they were made of.

    Attributes:
        queries: with ids that say where each is from.
        documents: row of the document of each.
        dropped: why → how many were left out.
    """

    queries: Collection
    documents: Sequence[int]
    dropped: Mapping[str, int]

    @property
    def judgments(self) -> Judgments:
        """Each query's own document as relevant."""
        return Judgments.of([(row, document, 1) for row, document in enumerate(self.documents)])


def generate_queries(
    documents: Documents,
    generators: Sequence[Generator],
    *,
    name: str,
    seed: int = 0,
    excluded: Iterable[str] = (),
) -> GeneratedQueries:
    """Return queries of documents, one an entry of `generators` and document at most.

    Those of fewer than three words, those equal to an excluded query but for case and punctuation,
    and second ones of one text and document are left out.

    >>> documents = Documents(["d1"], ["flow past a plate"], ["we study it. it is thin air here."])
    >>> made = generate_queries(documents, ["title", "random_sentence"], name="train")
    >>> made.queries.ids, made.queries.items[0]
    (['title-0-d1', 'random_sentence-0-d1'], 'flow past a plate')

    Args:
        documents: what they are made of.
        generators: names; one that is given twice draws anew.
        name: of the collection.
        seed: of the random sentences.
        excluded: queries that must not occur, those of the test part.

    Raises:
        UserError: If there is no such generator, or no query is left.
    """
    forbidden = {normal_form(text) for text in excluded}
    seen: set[tuple[int, str]] = set()
    ids: list[str] = []
    texts: list[str] = []
    rows: list[int] = []
    dropped = dict.fromkeys(("too short", "equal to a test query", "made twice"), 0)
    for repeat, generator in enumerate(generators):
        if generator not in GENERATORS:
            raise UserError(
                f"there is no generator {generator!r} of queries; known are {list(GENERATORS)}"
            )
        draw_seed = seed + list(generators[:repeat]).count(generator)
        for row, text in enumerate(GENERATORS[generator](documents, draw_seed)):
            form = normal_form(text)
            problem = _problem(form, row, forbidden, seen)
            if problem:
                dropped[problem] += 1
                continue
            seen.add((row, form))
            ids.append(f"{generator}-{draw_seed}-{documents.ids[row]}")
            texts.append(text)
            rows.append(row)
    if not ids:
        raise UserError(
            f"no query could be made of {len(documents.ids)} documents by {list(generators)}; "
            "choose others, as documents without title or sentences need"
        )
    return GeneratedQueries(Collection(name, ids, texts), rows, dropped)


def normal_form(text: str) -> str:
    """Return a text without case, punctuation and spacing.

    >>> normal_form("What is  Lift ?") == normal_form("what is lift")
    True
    """
    return NOT_A_WORD.sub(" ", text.casefold()).strip()


def sentences(text: str) -> list[str]:
    """Return the sentences of a text that have three words or more.

    >>> sentences("a short flow . no . it is seen\\nthat  it is .")
    ['a short flow', 'it is seen that it is']
    """
    found = []
    for part in SENTENCE_END.split(text.strip()):
        sentence = " ".join(part.split()).rstrip(" .")
        if len(normal_form(sentence).split()) >= FEWEST_WORDS:
            found.append(sentence)
    return found


def _problem(
    form: str, row: int, forbidden: AnyCollection[str], seen: AnyCollection[tuple[int, str]]
) -> str | None:
    if len(form.split()) < FEWEST_WORDS:
        return "too short"
    if form in forbidden:
        return "equal to a test query"
    return "made twice" if (row, form) in seen else None


def _titles(documents: Documents, seed: int) -> list[str]:
    return [" ".join(title.split()).rstrip(" .") for title in documents.titles]


def _first_sentences(documents: Documents, seed: int) -> list[str]:
    return [next(iter(sentences(text)), "") for text in documents.texts]


def _random_sentences(documents: Documents, seed: int) -> list[str]:
    chosen = []
    for identifier, text in zip(documents.ids, documents.texts, strict=True):
        found = sentences(text)
        # By the document's id, so that a document that is added changes no other one's query.
        draw = random.Random(f"{seed} {identifier}")
        chosen.append(draw.choice(found) if found else "")
    return chosen


def _tfidf(documents: Documents, seed: int) -> list[str]:
    """Return the terms of largest tf-idf of each document, largest first."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    joined = [f"{t} {x}" for t, x in zip(documents.titles, documents.texts, strict=True)]
    vectorizer = TfidfVectorizer(stop_words="english", sublinear_tf=True)
    try:
        weights = vectorizer.fit_transform(joined).tocsr()
    except ValueError:  # no word at all
        return [""] * len(joined)
    terms = vectorizer.get_feature_names_out()
    queries = []
    for row in range(len(joined)):
        start, stop = weights.indptr[row], weights.indptr[row + 1]
        order = (-weights.data[start:stop]).argsort(kind="stable")[:TERMS]
        queries.append(" ".join(terms[weights.indices[start:stop][order]]))
    return queries


GENERATORS: Mapping[str, Callable[[Documents, int], list[str]]] = {
    "title": _titles,
    "first_sentence": _first_sentences,
    "random_sentence": _random_sentences,
    "tfidf": _tfidf,
}
