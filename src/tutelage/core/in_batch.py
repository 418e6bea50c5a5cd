"""In-batch candidates: every query of a batch is scored against the documents of all of them.

The supervised loss of retrieval and the distillation of scores rank the same candidates.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, distributed

from tutelage.core.distributed import all_gather_with_grad, is_distributed
from tutelage.core.precision import full_precision, promote
from tutelage.errors import UserError


@dataclass(frozen=True)
class Candidates:
    """The documents that the queries of this rank are scored against.

    Attributes:
        documents: vectors (M, d) of the documents of all ranks, with gradient.
        positives: int64 (B,), the column of each query's own document.
        mask: bool (B, M), True for other columns that hold a query's own document, which are false
            negatives; None if there is none to leave out.
    """

    documents: Tensor
    positives: Tensor
    mask: Tensor | None

    def scores(self, queries: Tensor) -> Tensor:
        """Return inner products (B, M), in float32 at least and outside autocast.

        At a temperature of 0.02, an error of 1e-3 of a cosine is 5 % of a logit.
        """
        with full_precision(queries.device):
            return promote(queries) @ promote(self.documents).to(promote(queries).dtype).mT


def in_batch_candidates(
    num_queries: int, documents: Tensor, groups: Tensor | None = None
) -> Candidates:
    """Return the candidates of a batch: the documents of all its queries, on all ranks.

    Query i owns the documents i·k to i·k + k - 1, of which the first is relevant.

    >>> candidates = in_batch_candidates(2, torch.eye(4), torch.tensor([7, 1, 7, 2]))
    >>> candidates.positives.tolist()
    [0, 2]
    >>> candidates.mask.int().tolist()
    [[0, 0, 1, 0], [1, 0, 0, 0]]

    Args:
        num_queries: B, of this rank.
        documents: vectors (N, d), N = B · k, of this rank.
        groups: int64 (N,), equal for documents that are the same; None masks nothing.

    Raises:
        UserError: If N is no multiple of B.
    """
    count = len(documents)
    if num_queries == 0 or count % num_queries:
        raise UserError(
            f"{count} documents for {num_queries} queries: give each query the same number of "
            "documents, its relevant one first"
        )
    per_query = count // num_queries
    rank = distributed.get_rank() if is_distributed() else 0
    own = torch.arange(num_queries, device=documents.device) * per_query
    positives = own + rank * count
    everywhere = all_gather_with_grad(documents)
    if groups is None:
        return Candidates(everywhere, positives, None)
    all_groups = all_gather_with_grad(groups)
    mask = all_groups.unsqueeze(0) == groups[own].unsqueeze(1)
    return Candidates(everywhere, positives, mask.scatter(1, positives.unsqueeze(1), False))
