"""BM25, the lexical baseline that every student stands beside."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tutelage.errors import NotInstalledError


def bm25_ranking(documents: Sequence[str], queries: Sequence[str], k: int) -> Tensor:
    """Return the k best documents of each query by BM25, int64 (Q, k).

    Words are lower-cased, without English stop words and without stemming, with the parameters of
    bm25s (k1 = 1.5, b = 0.75).

    Args:
        documents: texts.
        queries: texts.
        k: how many; all of them if there are fewer.

    Raises:
        UserError: If bm25s is not installed.
    """
    try:
        import bm25s
    except ImportError as error:
        instead = ", or set task.bm25 to false"
        raise NotInstalledError("BM25", "bm25s", instead=instead) from error
    words = bm25s.tokenize(list(documents), stopwords="en", show_progress=False)
    retriever = bm25s.BM25()
    retriever.index(words, show_progress=False)
    asked = bm25s.tokenize(list(queries), stopwords="en", show_progress=False)
    found, _ = retriever.retrieve(asked, k=min(k, len(documents)), show_progress=False)
    return torch.from_numpy(found.astype("int64"))
