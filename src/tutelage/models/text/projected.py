"""What a distillation method puts around a student: a projection, and inherited documents."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tutelage.core.collection import Collection
from tutelage.core.teacher import Teacher
from tutelage.errors import UserError
from tutelage.models.text.dual_encoder import DualEncoder, Items, Role, unit


class ProjectedEncoder(DualEncoder):
    """An encoder with a trained linear layer behind it, which belongs to it and is shipped with it.

    Args:
        encoder: gives vectors of width d_s.
        dim: width d_t of the projected vectors.
        normalized: scale them to length 1.
        bias: of the layer.
    """

    def __init__(self, encoder: DualEncoder, dim: int, normalized: bool, bias: bool = True) -> None:
        super().__init__()
        self.encoder = encoder
        self.projection = None
        if encoder.dim != dim:
            self.projection = nn.Linear(encoder.dim, dim, bias=bias)
        self.dim = dim
        self.normalized = normalized
        self.batch_size = encoder.batch_size

    def embed(self, items: Items, role: Role) -> Tensor:
        """Return the projected vectors."""
        vectors = self.encoder.embed(items, role)
        if self.projection is not None:
            vectors = self.projection(vectors)
        return unit(vectors) if self.normalized else vectors

    @torch.no_grad()
    def fit(self, items: Items, targets: Tensor) -> None:
        """Set the projection to the least-squares solution: argmin_W ‖Z_s Wᵀ - Q_t‖_F.

        Args:
            items: queries.
            targets: the teacher's vectors (n, dim) of them.
        """
        if self.projection is None:
            return
        vectors = self.encoder.encode(items, "query").double()
        targets = targets.to(vectors.device).double()
        if self.projection.bias is not None:
            vectors = torch.cat([vectors, torch.ones_like(vectors[:, :1])], 1)
        solution = torch.linalg.lstsq(vectors, targets).solution
        if self.projection.bias is not None:
            self.projection.bias.copy_(solution[-1])
            solution = solution[:-1]
        self.projection.weight.copy_(solution.mT)

    def adapt(self, items: Any) -> None:
        """Fit the vocabulary of the encoder."""
        self.encoder.adapt(items)

    def fingerprint(self) -> dict[str, Any]:
        """Return that of the encoder and the projection's."""
        from tutelage.models.text.digest import weights_digest

        own = {"weights": weights_digest(self), "normalized": self.normalized}
        return {**self.encoder.fingerprint(), **own}

    def sentence_modules(self) -> list[nn.Module] | None:
        """Return those of the encoder, the projection, and the scaling to length 1."""
        from tutelage.models.text.ship import dense, normalize

        modules = self.encoder.sentence_modules()
        if modules is None:
            return None
        if self.projection is not None:
            modules.append(dense(self.projection))
        if self.normalized and not (self.encoder.normalized and self.projection is None):
            modules.append(normalize())
        return modules

    def prompts(self) -> dict[str, str]:
        """Return those of the encoder."""
        return self.encoder.prompts()


class _UsedIndex:
    """The document index that a student and its copies, such as averages, are used with."""

    card: dict[str, Any] | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> _UsedIndex:
        """Return itself: a copy of the student is used with the same index."""
        return self


class InheritedDocuments(DualEncoder):
    """A student's query tower with its teacher's frozen document tower.

    The teacher's tower is no part of this module: it is in no `parameters()` and no `state_dict()`.
    Queries and documents live in the teacher's space, so an index that the teacher built serves the
    student.

    Args:
        query: the query tower, with a projection if its width is another.
        teacher: has one network, a `DualEncoder`.
    """

    def __init__(self, query: DualEncoder, teacher: Teacher) -> None:
        super().__init__()
        self.query = query
        self._teacher = teacher  # a Teacher is no module, and a copy of this one shares it
        self._index = _UsedIndex()
        self.dim = query.dim
        self.normalized = query.normalized
        self.batch_size = query.batch_size

    @property
    def documents(self) -> DualEncoder:
        """The teacher's network."""
        return document_tower(self._teacher)

    def embed(self, items: Items, role: Role) -> Tensor:
        """Return the student's vectors of queries, and the teacher's of documents."""
        if role == "query":
            return self.query.embed(items, role)
        with torch.no_grad():
            return self.documents.embed(items, role)

    def encode_collection(self, collection: Collection, role: Role) -> Tensor:
        """Return the student's vectors of queries, and the teacher's of documents.

        Raises:
            UserError: If the documents' vectors are not those that it was used with before.
        """
        if role == "query":
            return self.query.encode_collection(collection, role)
        vectors = self.documents.encode_collection(collection, role)
        card = {
            "name": collection.name,
            "documents": len(collection),
            "texts": collection.digest,
            "encoder": self.documents.fingerprint(),
        }
        if self._index.card is not None and self._index.card != card:
            raise UserError(
                f"the vectors of {collection.name} are not those that the student was trained "
                "with: the teacher or the texts have changed; train again, or use the former index"
            )
        self._index.card = card
        return vectors

    def index_card(self) -> dict[str, Any] | None:
        """Return the index of the teacher's vectors; None before it was used."""
        return self._index.card

    def sentence_modules(self) -> list[nn.Module] | None:
        """Return those of the query tower."""
        return self.query.sentence_modules()

    def prompts(self) -> dict[str, str]:
        """Return that of queries."""
        return {role: text for role, text in self.query.prompts().items() if role == "query"}


def document_tower(teacher: Teacher) -> DualEncoder:
    """Return the one network of a teacher, which encodes documents.

    Raises:
        UserError: If there is none, or it is no `DualEncoder`.
    """
    models = list(teacher.models().values())
    if len(models) != 1 or not isinstance(models[0], DualEncoder):
        kinds = [type(model).__name__ for model in models] or "no network"
        raise UserError(
            f"inherited documents need one teacher that encodes documents by themselves, got "
            f"{kinds}; give a DualEncoder such as tutelage.models.SentenceEncoder, or set "
            "inherit_documents to false"
        )
    return models[0]
