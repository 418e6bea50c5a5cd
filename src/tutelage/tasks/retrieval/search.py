"""Exact search: the documents of largest inner product, in blocks, without a (Q, N) matrix.

Equal scores are ordered as trec_eval does: the document whose id comes last in the order of text is
first. A top k of a block says nothing about which of several equal scores it took. So k + 1 are
stored: only a query whose k-th and (k + 1)-th score are equal can have lost one, and is ranked once
more in full.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tutelage.errors import UserError

QUERY_BLOCK = 256
DOCUMENT_BLOCK = 8192  # both together: scores of 8 MiB


@dataclass(frozen=True)
class Ranking:
    """The best documents of each query.

    Attributes:
        documents: int64 (Q, k), rows in the corpus, the best first; k is at most the corpus' size.
        scores: (Q, k).
        num_ties: queries whose k-th score is also that of a document that is left out.
    """

    documents: Tensor
    scores: Tensor
    num_ties: int


@torch.no_grad()
def search(
    queries: Tensor,
    documents: Tensor,
    k: int,
    tie_order: Tensor | None = None,
) -> Ranking:
    """Return the k documents of largest inner product with each query.

    >>> found = search(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.5, 1.0], [1.0, 0.0]]), k=1)
    >>> found.documents.tolist(), found.scores.tolist()
    ([[1]], [[1.0]])

    Args:
        queries: (Q, d), of float32 or float64.
        documents: (N, d), which may be mapped into memory.
        k: how many; all of them if there are fewer.
        tie_order: int64 (N,), the place of each document among equal scores; None orders them by
            their rows. See `trec_tie_order`.

    Raises:
        UserError: If the widths differ, there is no document, or a vector holds NaN or infinity.
    """
    if queries.ndim != 2 or documents.ndim != 2 or queries.shape[1] != documents.shape[1]:
        raise UserError(
            f"queries {tuple(queries.shape)} and documents {tuple(documents.shape)} are no vectors "
            "of one width"
        )
    if not len(documents) or k < 1:
        raise UserError(f"search needs documents and k of at least 1, got {len(documents)} and {k}")
    _refuse_not_finite(queries)
    if tie_order is None:
        tie_order = torch.arange(len(documents))
    tie_order = tie_order.to(queries.device)
    wanted = min(k + 1, len(documents))
    found_scores: list[Tensor] = []
    found_rows: list[Tensor] = []
    num_ties = 0
    for start in range(0, len(queries), QUERY_BLOCK):
        block = queries[start : start + QUERY_BLOCK]
        scores, rows = _best_of_all(block, documents, wanted)
        tied = torch.zeros(len(block), dtype=torch.bool, device=scores.device)
        if wanted > k:
            tied = scores[:, k - 1] == scores[:, k]
            scores, rows = scores[:, :k].clone(), rows[:, :k].clone()
        for number in tied.nonzero().flatten().tolist():
            scores[number], rows[number] = _ranked_in_full(block[number], documents, k, tie_order)
        num_ties += int(tied.sum())
        order = tie_order[rows].argsort(dim=1, stable=True)
        scores, rows = scores.gather(1, order), rows.gather(1, order)
        order = scores.argsort(dim=1, descending=True, stable=True)
        found_scores.append(scores.gather(1, order))
        found_rows.append(rows.gather(1, order))
    if not found_rows:
        empty = torch.zeros(0, min(k, len(documents)), dtype=torch.int64)
        return Ranking(empty, empty.to(queries.dtype), 0)
    return Ranking(torch.cat(found_rows), torch.cat(found_scores), num_ties)


def trec_tie_order(ids: Sequence[str]) -> Tensor:
    """Return the place of each document among equal scores: the last id first, as trec_eval does.

    >>> trec_tie_order(["d10", "d9", "d1"]).tolist()
    [1, 0, 2]
    """
    order = sorted(range(len(ids)), key=lambda row: ids[row].encode(), reverse=True)
    places = torch.empty(len(ids), dtype=torch.int64)
    places[torch.tensor(order, dtype=torch.int64)] = torch.arange(len(ids))
    return places


def _best_of_all(queries: Tensor, documents: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the scores and rows of the best documents, in the order of `topk`."""
    best: tuple[Tensor, Tensor] | None = None
    for first in range(0, len(documents), DOCUMENT_BLOCK):
        block = documents[first : first + DOCUMENT_BLOCK].to(queries.device, queries.dtype)
        # Without a name the scores are freed before those of the next block are made.
        top, rows = (queries @ block.mT).topk(min(count, len(block)), dim=1, sorted=False)
        rows += first
        if best is not None:
            top = torch.cat([best[0], top], 1)
            rows = torch.cat([best[1], rows], 1)
        top, columns = top.topk(min(count, top.shape[1]), dim=1)
        best = top, rows.gather(1, columns)
    assert best is not None
    _refuse_not_finite(best[0])
    return best


def _ranked_in_full(
    query: Tensor, documents: Tensor, k: int, tie_order: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the best documents of one query, whose scores are all compared."""
    blocks = [
        query.unsqueeze(0)
        @ documents[first : first + DOCUMENT_BLOCK].to(query.device, query.dtype).mT
        for first in range(0, len(documents), DOCUMENT_BLOCK)
    ]
    scores = torch.cat(blocks, 1).squeeze(0)
    by_ties = tie_order.argsort()
    order = scores[by_ties].argsort(descending=True, stable=True)[:k]
    rows = by_ties[order]
    return scores[rows], rows


def _refuse_not_finite(values: Tensor) -> None:
    if not bool(values.isfinite().all()):
        raise UserError(
            "query or document vectors hold NaN or infinity, so that nothing can be ranked; check "
            "the weights of the network"
        )
