"""Retrieval: vectors of queries and documents, ranked by inner product over the whole corpus."""

from __future__ import annotations

from tutelage.tasks.retrieval.compare import paired_test
from tutelage.tasks.retrieval.loss import in_batch_softmax_loss
from tutelage.tasks.retrieval.metrics import rank_metrics
from tutelage.tasks.retrieval.search import search
from tutelage.tasks.retrieval.task import Retrieval

__all__ = ["Retrieval", "in_batch_softmax_loss", "paired_test", "rank_metrics", "search"]
