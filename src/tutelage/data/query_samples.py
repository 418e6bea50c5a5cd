"""Samples of retrieval: queries with a relevant document each, and the corpus they are from."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from tutelage.core.batch import IGNORE_INDEX, Batch
from tutelage.core.collection import Collection, Judgments
from tutelage.data.samples import Key, Samples, Stream
from tutelage.errors import UserError, near_misses


class CorpusSamples(Samples):
    """The documents of a corpus, the part `corpus`.

    Args:
        corpus: the documents.
        rows: which of them, in this order; None is all.
    """

    def __init__(self, corpus: Collection, rows: Tensor | None = None) -> None:
        self.corpus = corpus
        self.rows = torch.arange(len(corpus)) if rows is None else rows

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, keys: Sequence[Key]) -> Batch:
        """Return documents as inputs, with their rows as ids."""
        rows = self.rows[torch.tensor([position for _, position in keys])]
        return Batch({"inputs": self.corpus.take(rows.tolist()), "ids": rows})

    def subset(self, positions: Sequence[int] | Tensor) -> CorpusSamples:
        """Return the documents at these positions."""
        return CorpusSamples(self.corpus, self.rows[torch.as_tensor(positions)])


class QuerySamples(Samples):
    """Queries and what is judged of them.

    A batch has the fields

        inputs            B texts of queries, followed by G generated ones of a stream
        documents         B · k texts; the first of each query's k is relevant, the others are not
        document_groups   int64 (B · k,), equal for documents of equal text
        labels            int64 (B + G,), the row of the relevant document in the corpus; -100 for
                          generated queries
        num_labeled       B
        ids               int64 (B + G,), positions in the part

    and without `with_documents` inputs, ids and num_labeled only.

    Args:
        corpus: the documents.
        queries: the queries of the part.
        judgments: of queries and documents, by row.
        rows: which of the queries, in this order; None is all.
        pools: generated queries by name, without judgments, which can join the batches.
        documents_per_query: k; the others are drawn at random from what is not judged relevant.
        with_documents: whether batches have documents, which evaluation does not need.
        seed: draws which relevant document of several, and the others.
    """

    def __init__(
        self,
        corpus: Collection,
        queries: Collection,
        judgments: Judgments,
        *,
        rows: Tensor | None = None,
        pools: Mapping[str, Collection] | None = None,
        documents_per_query: int = 1,
        with_documents: bool = True,
        seed: int = 0,
    ) -> None:
        self.corpus = corpus
        self.queries = queries
        self.judgments = judgments
        self.rows = torch.arange(len(queries)) if rows is None else rows
        self.pools = dict(pools or {})
        self.documents_per_query = documents_per_query
        self.with_documents = with_documents
        self.seed = seed
        self.joining: list[Collection] = []  # the pools whose queries follow the rows
        self._groups = text_groups(corpus) if with_documents else torch.zeros(0)
        self._relevant = relevant_documents(judgments, len(queries)) if with_documents else []

    def __len__(self) -> int:
        return len(self.rows) + sum(map(len, self.joining))

    def collections(self) -> list[tuple[Collection, Any]]:
        """Return all that batches draw from, with what it is for an encoder."""
        queries = [self.queries, *self.joining]
        return [(self.corpus, "document"), *((collection, "query") for collection in queries)]

    def batch(self, keys: Sequence[Key]) -> Batch:
        """Return queries with their documents as one batch; see the class."""
        own = [key for key in keys if key[1] < len(self.rows)]
        generated = [key[1] - len(self.rows) for key in keys[len(own) :]]
        rows = [int(self.rows[position]) for _, position in own]
        inputs = _joined(self.queries.take(rows), [self._generated(n) for n in generated])
        ids = torch.tensor([position for _, position in keys], dtype=torch.int64)
        if not self.with_documents:
            return Batch({"inputs": inputs, "ids": ids, "num_labeled": len(rows)})
        chosen = [self._choose(row, key) for row, key in zip(rows, own, strict=True)]
        documents = torch.tensor(chosen, dtype=torch.int64)
        unlabeled = torch.full((len(generated),), IGNORE_INDEX)
        fields = {
            "inputs": inputs,
            "documents": self.corpus.take(documents.flatten().tolist()),
            "document_groups": self._groups[documents.flatten()],
            "labels": torch.cat([documents[:, 0], unlabeled]),
            "num_labeled": len(rows),
            "ids": ids,
        }
        return Batch(fields)

    def subset(self, positions: Sequence[int] | Tensor) -> QuerySamples:
        """Return the queries at these positions, with the pools but without streams of them."""
        return QuerySamples(
            self.corpus,
            self.queries,
            self.judgments,
            rows=self.rows[torch.as_tensor(positions, dtype=torch.int64)],
            pools=self.pools,
            documents_per_query=self.documents_per_query,
            with_documents=self.with_documents,
            seed=self.seed,
        )

    def with_streams(self, shares: Mapping[str, float]) -> QuerySamples:
        """Return these queries and generated ones, which join every batch.

        Args:
            shares: pool -> how many of its queries a batch holds per labeled one; 0 is none.

        Raises:
            UserError: If there is no such pool.
        """
        joined = self.subset(torch.arange(len(self.rows)))
        streams: list[Stream] = []
        for name, share in shares.items():
            if name not in self.pools:
                raise UserError(
                    f"the training data has no generated queries {name!r}"
                    f"{near_misses(name, self.pools)}; data.generated makes them"
                )
            if share:
                streams.append(Stream(name, len(joined), len(self.pools[name]), share))
                joined.joining.append(self.pools[name])
        joined.streams = tuple(streams)
        return joined

    def _choose(self, row: int, key: Key) -> list[int]:
        """Return the documents of one query: a relevant one, and others that are not."""
        relevant = self._relevant[row]
        if not relevant:
            raise UserError(
                f"the query {self.queries.ids[row]!r} has no relevant document to train on; leave "
                "it out of the training part"
            )
        if len(relevant) == 1 and self.documents_per_query == 1:
            return [relevant[0]]
        draw = random.Random(f"{self.seed} {key[0]} {row}")
        chosen = [relevant[draw.randrange(len(relevant))]]
        excluded = {*relevant}
        while len(chosen) < self.documents_per_query:
            if len(excluded) == len(self.corpus):
                raise UserError(
                    f"data.documents_per_query is {self.documents_per_query}, but the corpus has "
                    f"{len(self.corpus)} documents; choose fewer"
                )
            other = draw.randrange(len(self.corpus))
            if other not in excluded:
                excluded.add(other)
                chosen.append(other)
        return chosen

    def _generated(self, number: int) -> Any:
        for pool in self.joining:
            if number < len(pool):
                return pool.items[number]
            number -= len(pool)
        raise IndexError(number)


def text_groups(corpus: Collection) -> Tensor:
    """Return a number for each document, int64 (n,), equal where the texts are.

    >>> text_groups(Collection("c", ["1", "2", "3"], ["wing", "plate", "wing"])).tolist()
    [0, 1, 0]
    """
    if isinstance(corpus.items, Tensor):
        inverse: Tensor = torch.unique(corpus.items, dim=0, return_inverse=True)[1]
        return inverse
    first: dict[str, int] = {}
    return torch.tensor([first.setdefault(text, len(first)) for text in corpus.items])


def relevant_documents(judgments: Judgments, num_queries: int) -> list[list[int]]:
    """Return the rows of the relevant documents of every query."""
    relevant: list[list[int]] = [[] for _ in range(num_queries)]
    is_relevant = judgments.grades > 0
    pairs = zip(
        judgments.queries[is_relevant].tolist(),
        judgments.documents[is_relevant].tolist(),
        strict=True,
    )
    for query, document in pairs:
        relevant[query].append(document)
    return relevant


def _joined(inputs: Any, generated: list[Any]) -> Any:
    if isinstance(inputs, Tensor):
        return torch.cat([inputs, torch.stack(generated)]) if generated else inputs
    return [*inputs, *generated]
