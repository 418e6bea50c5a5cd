"""Dual pooling: a vector of the query and one of the document, from a pair encoded together.

From the abstract of arXiv 2301.12005, which says that a cross-encoder of this kind "facilitates a
distillation-friendly embedding geometry"; the paper's choice of pooling is not known to us. The
vectors depend on the pair: there is no vector of a document for all queries.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from tutelage.core.precision import full_precision, promote
from tutelage.errors import UserError

QUERY = 1
DOCUMENT = 2
Pooling = Literal["mean", "first"]


def dual_pooling(
    tokens: Tensor, segments: Tensor, *, pooling: Pooling = "mean"
) -> tuple[Tensor, Tensor]:
    """Return u(q|d) and v(d|q), whose inner product is the score of a pair.

    >>> tokens = torch.tensor([[[1.0], [3.0], [5.0], [9.0]]])
    >>> query, document = dual_pooling(tokens, torch.tensor([[1, 1, 2, 0]]))
    >>> query.item(), document.item()
    (2.0, 5.0)

    Args:
        tokens: (B, L, d), what a cross-encoder gives for the tokens of B pairs.
        segments: int64 (B, L), 1 for tokens of the query, 2 for those of the document, 0 for
            padding and separators.
        pooling: the mean over the tokens of a segment, or the first of them.

    Returns:
        Vectors of the queries and of the documents, both (B, d); float32 for half precision and
        inside autocast.

    Raises:
        UserError: If the shapes do not fit, or a segment of a pair has no token.
    """
    if pooling not in get_args(Pooling):
        raise UserError(f"pooling is 'mean' or 'first', got {pooling!r}; choose one of them")
    if tokens.ndim != 3 or segments.shape != tokens.shape[:2]:
        raise UserError(
            f"dual pooling needs tokens (B, L, d) and segments (B, L), got {tuple(tokens.shape)} "
            f"and {tuple(segments.shape)}"
        )
    with full_precision(tokens.device):
        tokens = promote(tokens)
        pooled = []
        for name, number in (("query", QUERY), ("document", DOCUMENT)):
            belongs = segments == number
            counts = belongs.sum(1)
            if bool((counts == 0).any()):
                pair = int((counts == 0).nonzero()[0])
                raise UserError(
                    f"the {name} of pair {pair} has no token; give no empty texts, and check that "
                    "truncation leaves both"
                )
            if pooling == "mean":
                weights = belongs.unsqueeze(2).to(tokens.dtype)
                pooled.append((tokens * weights).sum(1) / counts.unsqueeze(1))
            else:
                first = belongs.to(torch.uint8).argmax(1)
                pooled.append(tokens[torch.arange(len(tokens), device=tokens.device), first])
        return pooled[0], pooled[1]
