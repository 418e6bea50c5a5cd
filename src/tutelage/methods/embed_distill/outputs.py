"""What a network gives for a batch of queries and documents, read from its output."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from tutelage.core.batch import Batch
from tutelage.core.output import Output
from tutelage.errors import UserError


@dataclass(frozen=True)
class Vectors:
    """The vectors of one network, or the scores of a cross-encoder.

    Queries that were generated have no documents; they stand behind the others.

    Attributes:
        queries: (B + G, d); (B, k, d) of a cross-encoder with dual pooling, one a pair; None of one
            without.
        documents: (B · k, d); (B, k, d) of a cross-encoder with dual pooling; None if there are
            none.
        scores: (B, k) of a cross-encoder; None of a dual encoder.
        num_labeled: B; None if all queries have documents.
    """

    queries: Tensor | None
    documents: Tensor | None
    scores: Tensor | None = None
    num_labeled: int | None = None

    @classmethod
    def of(cls, output: Output, batch: Batch) -> Vectors:
        """Return the vectors in a network's output: a mapping of them, or the queries' alone.

        Args:
            output: of student or teacher.
            batch: says by `num_labeled` how many of its queries have documents; without it all do.

        Raises:
            UserError: If there are none.
        """
        value: Any = output.output
        if not isinstance(value, Mapping) or "logits" in value or "out" in value:
            return cls(output.logits, None)
        queries, documents, scores = map(value.get, ("queries", "documents", "scores"))
        if queries is None and scores is None:
            raise UserError(
                f"the {output.role} gives {sorted(value)}; EmbedDistill needs 'queries' and "
                "'documents', or 'scores' of a cross-encoder"
            )
        return cls(queries, documents, scores, batch.get("num_labeled"))

    def labeled_queries(self) -> Tensor:
        """Return the vectors (B, d) of the queries that have documents."""
        assert self.queries is not None
        return self.queries if self.num_labeled is None else self.queries[: self.num_labeled]

    def generated_queries(self) -> Tensor:
        """Return the vectors (G, d) of the queries that were generated."""
        if self.queries is None or self.num_labeled in (None, len(self.queries)):
            raise UserError(
                "the batch has no generated queries, though EmbedDistill has shares of them; let "
                "the data have generated queries, as those of tutelage.data.RetrievalData have"
            )
        return self.queries[self.num_labeled :]

    def targets(self, count: int) -> Tensor:
        """Return what the student's first `count` query vectors are to match, (count, d)."""
        if self.queries is None:
            raise UserError(
                "the teacher scores pairs and gives no vectors, so there is nothing to match; set "
                "embed_weight to 0, or give it dual pooling"
            )
        if self.queries.ndim == 3:  # one a pair: that with the relevant document
            return self.queries[:count, 0]
        return self.labeled_queries()

    def document_targets(self, documents: Tensor) -> Tensor:
        """Return what the student's document vectors (N, d) are to match."""
        if self.documents is None:
            raise UserError("the teacher gives no vectors of documents, which the student matches")
        return self.documents.reshape(len(documents), -1)

    def own_candidates(self) -> Tensor:
        """Return the vectors (B, k, d) of each query's own documents."""
        queries = self.labeled_queries()
        assert self.documents is not None
        return self.documents.view(len(queries), -1, queries.shape[1])
