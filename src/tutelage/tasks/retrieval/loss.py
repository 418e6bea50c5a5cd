"""The supervised loss of retrieval: a softmax over the documents of the batch."""

from __future__ import annotations

import math

from torch import Tensor
from torch.nn import functional as F

from tutelage.core.in_batch import in_batch_candidates
from tutelage.core.precision import full_precision
from tutelage.errors import UserError


def in_batch_softmax_loss(
    queries: Tensor,
    documents: Tensor,
    *,
    temperature: float = 0.05,
    groups: Tensor | None = None,
) -> Tensor:
    """Return the cross-entropy of each query's document among those of all queries.

        L = -(1/B) Σ_i log softmax_j(⟨q_i, d_j⟩ / τ)[i · k]

    Source: equation 9 of EmbedDistill (arXiv 2301.12005); the loss is that of dense retrieval in
    general. On several ranks the documents of all of them are candidates, with gradient.

    >>> import torch
    >>> round(in_batch_softmax_loss(torch.eye(2), torch.eye(2), temperature=1.0).item(), 4)
    0.3133

    Args:
        queries: vectors (B, d) of any floating dtype.
        documents: vectors (B · k, d), the k documents of query 0 first, and of these its relevant
            one first.
        temperature: τ; 0.02 to 0.05 for vectors of length 1, 1 for raw products.
        groups: int64 (B · k,), equal for documents that are the same: those equal to a query's own
            are no candidates of it. None takes all.

    Returns:
        A scalar, float32 for half-precision vectors and inside autocast.

    Raises:
        UserError: If the numbers or widths do not fit, or the temperature is not positive.
    """
    if not 0 < temperature < math.inf:
        raise UserError(f"the temperature of retrieval must be positive, got {temperature}")
    if queries.ndim != 2 or documents.ndim != 2 or queries.shape[1] != documents.shape[1]:
        raise UserError(
            f"queries {tuple(queries.shape)} and documents {tuple(documents.shape)} are no vectors "
            "of one width; let both towers give (n, d)"
        )
    if not len(queries):
        return queries.sum()
    candidates = in_batch_candidates(len(queries), documents, groups)
    with full_precision(queries.device):
        logits = candidates.scores(queries) / temperature
        if candidates.mask is not None:
            logits = logits.masked_fill(candidates.mask, -math.inf)
        return F.cross_entropy(logits, candidates.positives)
