"""A named list of texts or vectors with ids: a corpus, or the queries of a part of the data."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)  # two are the same if their digests are
class Collection:
    """Items with ids, one a row.

    >>> corpus = Collection("documents", ["d1", "d2"], ["a wing", "a plate"])
    >>> len(corpus), corpus.take([1])
    (2, ['a plate'])

    Attributes:
        name: such as `documents`; files of its vectors are called so.
        ids: text of each row.
        items: texts, or vectors (n, d) for networks that take these.
    """

    name: str
    ids: Sequence[str]
    items: Sequence[str] | Tensor

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, rows: Sequence[int]) -> list[str] | Tensor:
        """Return the items of some rows."""
        if isinstance(self.items, Tensor):
            return self.items[torch.as_tensor(rows, dtype=torch.int64)]
        return [self.items[row] for row in rows]

    @cached_property
    def digest(self) -> str:
        """What changes with an id, an item, or their order."""
        digest = hashlib.sha256()
        for number, identifier in enumerate(self.ids):
            digest.update(identifier.encode(errors="surrogatepass") + b"\0")
            item = self.items[number]
            if isinstance(item, Tensor):
                digest.update(item.contiguous().view(torch.uint8).numpy().tobytes() + b"\0")
            else:
                digest.update(item.encode(errors="surrogatepass") + b"\0")
        return digest.hexdigest()


@dataclass(frozen=True)
class Judgments:
    """Which documents answer which queries, one judgment an entry, by row in their collections.

    Attributes:
        queries: int64 (J,).
        documents: int64 (J,).
        grades: int64 (J,); above 0 is relevant.
    """

    queries: Tensor
    documents: Tensor
    grades: Tensor

    def __len__(self) -> int:
        return len(self.grades)

    @classmethod
    def of(cls, triples: Sequence[tuple[int, int, int]]) -> Judgments:
        """Return judgments of (query row, document row, grade).

        >>> len(Judgments.of([(0, 5, 1), (0, 6, 0)]))
        2
        """
        columns = torch.tensor(triples, dtype=torch.int64).reshape(-1, 3)
        return cls(columns[:, 0].clone(), columns[:, 1].clone(), columns[:, 2].clone())
