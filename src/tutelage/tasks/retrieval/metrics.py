"""Ranking metrics of each query, as trec_eval defines them.

    ndcg@10      Σ_{r ≤ 10} g_r / log2(r + 1), over the same sum of the judged documents in their
                    best order; g is the grade, and what is below 0 counts as 0
    mrr@10       1 / rank of the first relevant document among the first 10, else 0
    recall_at_k     relevant documents among the first k, over all relevant ones
    success_at_k    1 if a relevant document is among the first k: the "top-k accuracy" of the NQ
                    literature
    precision@10 relevant documents among the first 10, over 10
    map@100      mean over all relevant documents of the precision at their rank, 0 beyond 100

A document is relevant if its grade is above 0. The mean is over all judged queries; one that is
missing from a ranking counts 0.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from tutelage.core.collection import Judgments

DEPTH = 100  # to which rankings are needed
RECALL_AT = (5, 20, 100)
SUCCESS_AT = (1, 5, 20)
TOP = 10


def rank_metrics(ranking: Tensor, judgments: Judgments, num_documents: int) -> dict[str, Tensor]:
    """Return the metrics of every query by name, float64 (Q,).

    >>> judgments = Judgments.of([(0, 7, 1), (0, 3, 1)])
    >>> found = rank_metrics(torch.tensor([[5, 7, 2]]), judgments, num_documents=9)
    >>> found["mrr@10"].item(), found["recall@5"].item()
    (0.5, 0.5)

    Args:
        ranking: int64 (Q, k), rows of documents, the best first; -1 is none.
        judgments: of these queries, by row.
        num_documents: of the corpus.
    """
    num_queries = len(ranking)
    grades = _grades(ranking, judgments, num_documents).double()
    relevant = grades > 0
    num_relevant = torch.zeros(num_queries, dtype=torch.float64)
    num_relevant.index_add_(0, judgments.queries, (judgments.grades > 0).double())
    safe = num_relevant.clamp(min=1)
    ranks = torch.arange(1, ranking.shape[1] + 1, dtype=torch.float64)
    hits = relevant.double()
    so_far = hits.cumsum(1)
    first = torch.where(relevant, ranks, torch.inf).amin(1) if ranking.shape[1] else so_far.sum(1)
    metrics = {
        "ndcg@10": _ndcg(grades, judgments, num_queries),
        "mrr@10": torch.where(first <= TOP, 1 / first, 0.0),
    }
    for k in RECALL_AT:
        metrics[f"recall@{k}"] = hits[:, :k].sum(1) / safe
    for k in SUCCESS_AT:
        metrics[f"success@{k}"] = (first <= k).double()
    metrics["precision@10"] = hits[:, :TOP].sum(1) / TOP
    precision = (so_far / ranks * hits)[:, :DEPTH]
    metrics["map@100"] = precision.sum(1) / safe
    return metrics


def without_documents(ranking: Tensor, left_out: Judgments, depth: int) -> Tensor:
    """Return a ranking without some documents of each query, (Q, depth), -1 at its end.

    >>> without_documents(torch.tensor([[4, 7, 2]]), Judgments.of([(0, 7, 0)]), 3).tolist()
    [[4, 2, -1]]

    Args:
        ranking: int64 (Q, k).
        left_out: the pairs that are left out.
        depth: to which the ranking is wanted.
    """
    size = int(torch.cat([ranking.flatten(), left_out.documents, torch.zeros(1).long()]).max()) + 1
    is_out = torch.isin(_keys(ranking, size), left_out.queries * size + left_out.documents)
    order = is_out.to(torch.int8).argsort(dim=1, stable=True)
    remaining = ranking.masked_fill(is_out, -1).gather(1, order)[:, :depth]
    missing = depth - remaining.shape[1]
    return torch.nn.functional.pad(remaining, (0, missing), value=-1) if missing > 0 else remaining


def _keys(ranking: Tensor, num_documents: int) -> Tensor:
    """Return one number for each pair of query and document, which sort by query."""
    rows = torch.arange(len(ranking)).unsqueeze(1)
    return torch.where(ranking < 0, -1, rows * num_documents + ranking)


def _grades(ranking: Tensor, judgments: Judgments, num_documents: int) -> Tensor:
    """Return the grade of each ranked document, 0 without a judgment or below 0."""
    if not len(judgments):
        return torch.zeros_like(ranking)
    keys, order = (judgments.queries * num_documents + judgments.documents).sort()
    wanted = _keys(ranking, num_documents)
    places = torch.searchsorted(keys, wanted).clamp(max=len(keys) - 1)
    found = judgments.grades[order][places].clamp(min=0)
    return torch.where(keys[places] == wanted, found, 0)


def _ndcg(grades: Tensor, judgments: Judgments, num_queries: int) -> Tensor:
    discounts = 1 / torch.log2(torch.arange(2, TOP + 2, dtype=torch.float64))
    top = grades[:, :TOP]
    gain = (top * discounts[: top.shape[1]]).sum(1)
    # The best order: grades sorted within each query, of which each knows its rank.
    order = judgments.grades.argsort(descending=True, stable=True)
    order = order[judgments.queries[order].argsort(stable=True)]
    queries = judgments.queries[order]
    best = judgments.grades[order].clamp(min=0).double()
    starts = torch.searchsorted(queries, queries)
    ranks = torch.arange(len(queries)) - starts
    counted = ranks < TOP
    ideal = torch.zeros(num_queries, dtype=torch.float64)
    ideal.index_add_(0, queries[counted], best[counted] * discounts[ranks[counted]])
    return torch.where(ideal > 0, gain / ideal.clamp(min=1e-300), 0.0)


def means(metrics: Mapping[str, Tensor]) -> dict[str, float]:
    """Return the mean over queries of each metric."""
    return {name: float(values.mean()) for name, values in metrics.items()}
