"""Encoders of two towers, and of vectors in place of texts."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from tutelage.errors import UserError
from tutelage.models.text.digest import weights_digest
from tutelage.models.text.dual_encoder import DualEncoder, Items, Role, unit


class TwoTowers(DualEncoder):
    """One encoder for queries and another for documents.

    Args:
        query: encodes queries.
        document: encodes documents, into vectors of the same width.

    Raises:
        UserError: If the widths differ.
    """

    def __init__(self, query: DualEncoder, document: DualEncoder) -> None:
        super().__init__()
        if query.dim != document.dim:
            raise UserError(
                f"the query tower gives vectors of width {query.dim}, the document tower of "
                f"{document.dim}; let them agree"
            )
        self.query = query
        self.document = document
        self.dim = query.dim
        self.normalized = query.normalized and document.normalized
        self.batch_size = min(query.batch_size, document.batch_size)

    def embed(self, items: Items, role: Role) -> Tensor:
        """Return the vectors that the tower of this role gives."""
        tower = self.query if role == "query" else self.document
        return tower.embed(items, role)

    def adapt(self, items: Any) -> None:
        """Fit the vocabularies of both towers."""
        self.query.adapt(items)
        self.document.adapt(items)

    def fingerprint(self) -> dict[str, Any]:
        """Return those of both towers."""
        return {"query": self.query.fingerprint(), "document": self.document.fingerprint()}

    def sentence_modules(self) -> list[nn.Module] | None:
        """Return a router to both towers."""
        from sentence_transformers.sentence_transformer.modules import Router

        query = self.query.sentence_modules()
        document = self.document.sentence_modules()
        if query is None or document is None:
            return None
        router: nn.Module = Router.for_query_document(query, document)
        return [router]

    def prompts(self) -> dict[str, str]:
        """Return that of each tower for its own role."""
        towers = {"query": self.query, "document": self.document}
        found = {role: tower.prompts().get(role, "") for role, tower in towers.items()}
        return {role: prompt for role, prompt in found.items() if prompt}


class VectorEncoder(DualEncoder):
    """An encoder of ready vectors in place of texts, such as those of another network.

    >>> import torch
    >>> encoder = VectorEncoder(nn.Linear(8, 4), dim=4)
    >>> sorted(encoder(torch.ones(2, 8), torch.ones(3, 8)))
    ['documents', 'queries']

    Args:
        query: any network of vectors (n, d) → (n, dim).
        document: the same for documents; None is the query's.
        dim: width of what they give.
        normalized: scale to length 1.
    """

    batch_size = 1024

    def __init__(
        self,
        query: nn.Module,
        dim: int,
        document: nn.Module | None = None,
        normalized: bool = True,
    ) -> None:
        super().__init__()
        self.query = query
        self.document = document
        self.dim = dim
        self.normalized = normalized

    def embed(self, items: Items, role: Role) -> Tensor:
        """Return the vectors of vectors.

        Raises:
            UserError: If the items are texts, or the width is not `dim`.
        """
        if not isinstance(items, Tensor):
            raise UserError(
                "VectorEncoder takes vectors (n, d), got texts; take a SentenceEncoder for these"
            )
        network = self.query
        if role == "document" and self.document is not None:
            network = self.document
        vectors: Tensor = network(items)
        if vectors.shape != (len(items), self.dim):
            raise UserError(
                f"the network of VectorEncoder gives {tuple(vectors.shape)} for {len(items)} "
                f"items, but dim is {self.dim}"
            )
        return unit(vectors) if self.normalized else vectors

    def fingerprint(self) -> dict[str, Any]:
        """Return a digest of its weights, and whether it scales."""
        return {"weights": weights_digest(self), "normalized": self.normalized}
