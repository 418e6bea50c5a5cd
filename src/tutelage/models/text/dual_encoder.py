"""What every encoder of queries and documents has in common."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from tqdm import tqdm

from tutelage.core.collection import Collection
from tutelage.core.modes import device_of, eval_mode
from tutelage.errors import UserError

Role = Literal["query", "document"]
Items = Sequence[str] | Tensor
LONG = 512  # collections of more items than that show a progress bar,
BAR_AFTER_SECONDS = 2.0  # if they take longer than that
LINE_EVERY_SECONDS = 10.0  # where no terminal shows it


class DualEncoder(nn.Module, ABC):
    """A network that gives queries and documents vectors, whose inner product is the score.

    Both may go through one tower (`SentenceEncoder`, `StaticEncoder`) or through two.

    Attributes:
        dim: width of the vectors.
        normalized: whether they have length 1, so that scores are cosines.
        batch_size: items at a time in `encode`.
    """

    dim: int
    normalized: bool
    batch_size: int = 32

    @abstractmethod
    def embed(self, items: Items, role: Role) -> Tensor:
        """Return the vectors (n, dim) of texts, with gradient.

        Args:
            items: texts, or vectors (n, d) for encoders of vectors.
            role: what they are; a prompt or a tower may depend on it.
        """

    def forward(self, queries: Items, documents: Items = ()) -> dict[str, Tensor]:
        """Return the vectors of a batch as `queries` (B, dim), and `documents` (N, dim) if any."""
        output = {"queries": self.embed(queries, "query")}
        if len(documents):
            output["documents"] = self.embed(documents, "document")
        return output

    @torch.no_grad()
    def encode(self, items: Items, role: Role, name: str = "") -> Tensor:
        """Return the vectors (n, dim) of any number of items, in eval mode and without gradient.

        Texts are encoded from the longest to the shortest, since those of similar length pad each
        other least; row i is that of item i all the same.

        Args:
            items: texts or vectors.
            role: what they are.
            name: of the items, for the progress bar.
        """
        vectors = torch.empty(len(items), self.dim, device=device_of(self))
        for rows, values in self.encode_in_parts(items, role, name):
            vectors[rows] = values.to(vectors.dtype)
        return vectors

    @torch.no_grad()
    def encode_in_parts(
        self, items: Items, role: Role, name: str = "", first: int = 0
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Give rows and their vectors, batch after batch, in an order that is always the same.

        Args:
            items: texts or vectors.
            role: what they are.
            name: of the items, for the progress bar.
            first: how many items of that order are done already.
        """
        order = longest_first(items)
        bar = tqdm(
            total=len(order),
            initial=first,
            desc=name or f"{role} vectors",
            unit="text",
            disable=len(order) <= LONG,
            delay=BAR_AFTER_SECONDS,
            mininterval=0.1 if sys.stderr.isatty() else LINE_EVERY_SECONDS,
            leave=False,
        )
        with bar, eval_mode(self):
            for start in range(first, len(order), self.batch_size):
                rows = order[start : start + self.batch_size]
                batch = items[rows] if isinstance(items, Tensor) else [items[r] for r in rows]
                yield rows, self.embed(batch, role)
                bar.update(len(rows))

    def encode_collection(self, collection: Collection, role: Role) -> Tensor:
        """Return the vectors (n, dim) of a collection; an encoder with a cache looks them up."""
        return self.encode(collection.items, role, collection.name)

    def prepare(self, collections: Sequence[tuple[Collection, Role]]) -> None:
        """Get ready for collections that training will draw from; default: nothing to do."""
        return None

    def use_stored(self, collections: Sequence[tuple[Collection, Role]]) -> None:
        """Take what `prepare` has stored earlier, and encode nothing; default: nothing to do."""
        return None

    def fingerprint(self) -> dict[str, Any]:
        """Return what the vectors depend on beside the items, as JSON can hold it.

        Raises:
            UserError: If the encoder cannot tell.
        """
        raise UserError(f"{type(self).__name__} has no fingerprint, so its vectors are not cached")

    def sentence_modules(self) -> list[nn.Module] | None:
        """Return the query tower as modules of sentence-transformers; None if it has no such form.

        Default: it has none.
        """
        return None

    def prompts(self) -> dict[str, str]:
        """Return what is put before texts by role, as `sentence_modules` do not hold it.

        Default: nothing.
        """
        return {}

    def adapt(self, items: Sequence[str]) -> None:
        """Fit the vocabulary to the texts that training has; default: it stays as it is."""
        return None

    def index_card(self) -> dict[str, Any] | None:
        """Return which document index the queries must be used with; None for its own."""
        return None


def longest_first(items: Items) -> Tensor:
    """Return the rows of items, from the longest text to the shortest; vectors as they are.

    >>> longest_first(["b", "ccc", "aa"]).tolist()
    [1, 2, 0]
    """
    if isinstance(items, Tensor):
        return torch.arange(len(items))
    lengths = torch.tensor([len(item) for item in items], dtype=torch.int64)
    return lengths.argsort(descending=True, stable=True)


def check_texts(items: Items, who: str) -> list[str]:
    """Return texts as a list, which tokenizers want.

    Raises:
        UserError: If the items are vectors or anything else.
    """
    if isinstance(items, (Tensor, str)):
        raise UserError(
            f"{who} takes a list of texts, got a {type(items).__name__}; for ready vectors take "
            "tutelage.models.VectorEncoder"
        )
    return list(items)


def unit(vectors: Tensor) -> Tensor:
    """Return vectors of length 1; a vector of zeros stays."""
    return nn.functional.normalize(vectors, dim=-1)
