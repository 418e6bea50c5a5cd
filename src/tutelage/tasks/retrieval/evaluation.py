"""Rank a corpus for the queries of a part, on any number of ranks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import torch
from torch import Tensor

from tutelage.core import Batch, Evaluation
from tutelage.core.collection import Collection, Judgments
from tutelage.core.distributed import gather_lists
from tutelage.errors import UserError
from tutelage.models.text import DualEncoder
from tutelage.tasks.retrieval.metrics import DEPTH, means, rank_metrics, without_documents
from tutelage.tasks.retrieval.search import search, trec_tie_order

BOTH_COUNTINGS = ("ndcg@10", "mrr@10")
SUFFIX = "_without_grade_0"


@dataclass(frozen=True)
class RankedPart:
    """Queries to rank a corpus for.

    Attributes:
        corpus: all documents.
        queries: of the whole data set's part.
        rows: which of them, by position in the part.
        judgments: by position in the part.
        samples: what batches are loaded of.
        batches: loads this rank's share of them.
    """

    corpus: Collection
    queries: Collection
    rows: Tensor
    judgments: Judgments
    samples: Any
    batches: Callable[[Any], Iterable[Batch]]

    @classmethod
    def of(cls, parts: Mapping[str, Any], run: Evaluation) -> RankedPart:
        """Return a part of the data, with its judgments alone."""
        samples = parts[run.part]
        places = torch.full((len(samples.queries),), -1)
        places[samples.rows] = torch.arange(len(samples.rows))
        judgments = samples.judgments
        positions = places[judgments.queries]
        mask = positions >= 0
        own = Judgments(positions[mask], judgments.documents[mask], judgments.grades[mask])
        corpus = parts["corpus"].corpus
        return cls(corpus, samples.queries, samples.rows, own, samples, run.batches)

    @property
    def tie_order(self) -> Tensor:
        """The order of documents with equal scores."""
        return _tie_order(self.corpus)

    @cached_property
    def unclear(self) -> Judgments:
        """The judgments of grade 0 or below, whose documents one counting leaves out."""
        mask = self.judgments.grades <= 0
        own = self.judgments
        return Judgments(own.queries[mask], own.documents[mask], own.grades[mask])

    @property
    def depth(self) -> int:
        """To which rankings are needed."""
        if not len(self.unclear):
            return DEPTH
        return DEPTH + int(self.unclear.queries.bincount().max())

    def at(self, positions: Tensor, judgments: Judgments) -> Judgments:
        """Return the judgments of some positions, numbered in their order."""
        places = torch.full((len(self.rows),), -1)
        places[positions] = torch.arange(len(positions))
        found = places[judgments.queries]
        mask = found >= 0
        return Judgments(found[mask], judgments.documents[mask], judgments.grades[mask])

    def metrics(self, positions: Tensor, ranking: Tensor) -> dict[str, Tensor]:
        """Return the metrics of every query of a ranking, in both countings if there are two.

        Args:
            positions: int64 (Q,) of the queries in the part.
            ranking: int64 (Q, k) of documents.
        """
        judgments = self.at(positions, self.judgments)
        metrics = rank_metrics(ranking[:, :DEPTH], judgments, len(self.corpus))
        if len(self.unclear):
            cleared = without_documents(ranking, self.at(positions, self.unclear), DEPTH)
            other = rank_metrics(cleared, judgments, len(self.corpus))
            metrics |= {f"{name}{SUFFIX}": other[name] for name in BOTH_COUNTINGS}
        return metrics


@lru_cache(maxsize=2)
def _tie_order(corpus: Collection) -> Tensor:
    """Return the order of a corpus, which all validations of a run share."""
    return trec_tie_order(corpus.ids)


@dataclass(frozen=True)
class Found:
    """What a network found.

    Attributes:
        by_query: each metric of every query of the part, by position, float64 (Q,).
        positions: int64, the queries of this rank's share.
        queries: their vectors.
        documents: vectors of the corpus.
        num_ties: queries whose ranking was cut between equal scores.
    """

    by_query: Mapping[str, Tensor]
    positions: Tensor
    queries: Tensor
    documents: Tensor
    num_ties: int

    def means(self) -> dict[str, float]:
        """Return the means over queries."""
        return means(self.by_query)


@torch.no_grad()
def evaluate_part(model: DualEncoder, part: RankedPart) -> Found:
    """Rank the corpus for every query of a part and measure.

    Args:
        model: in eval mode.
        part: the queries.
    """
    documents = model.encode_collection(part.corpus, "document")
    model.prepare([(part.queries, "query")])
    positions: list[Tensor] = []
    vectors: list[Tensor] = []
    for batch in part.batches(part.samples):
        positions.append(batch.ids.cpu())
        vectors.append(model.embed(batch.inputs, "query"))
    if not positions:
        raise UserError("there is nothing to evaluate: a rank has no query; use fewer processes")
    own = torch.cat(positions)
    queries = torch.cat(vectors).float()
    found = search(queries, documents, part.depth, part.tie_order)
    metrics = part.metrics(own, found.documents.cpu())
    by_query, num_ties = over_ranks(own, metrics, found.num_ties)
    return Found(by_query, own, queries, documents, num_ties)


def over_ranks(
    positions: Tensor, metrics: Mapping[str, Tensor], num_ties: int = 0
) -> tuple[dict[str, Tensor], int]:
    """Return the metrics of all queries by position, of all ranks.

    Args:
        positions: int64 (Q,), of this rank's share.
        metrics: (Q,) each, of this rank's share.
        num_ties: of this rank's share.
    """
    lists = [positions.tolist(), [num_ties], *(values.tolist() for values in metrics.values())]
    order, ties, *values = gather_lists(lists)
    places = torch.tensor(order, dtype=torch.int64).argsort()
    joined = [torch.tensor(column, dtype=torch.float64)[places] for column in values]
    return dict(zip(metrics, joined, strict=True)), sum(ties)
