"""A text encoder whose vectors are kept in a folder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tutelage.cache.stored_rows import Dtype, StoredRows
from tutelage.core.collection import Collection
from tutelage.errors import UserError
from tutelage.models.text import DualEncoder, Role
from tutelage.models.text.dual_encoder import Items


class CachedEncoder(DualEncoder):
    """A frozen encoder that encodes each collection once, and then answers from files.

    A text that is in none of its collections is encoded when it is asked for. Vectors in the folder
    that are of another encoder (weights, tokenizer, pooling, truncation, prompt) or of other texts
    are refused, see `StoredRows`.

    Args:
        encoder: what encodes.
        folder: of the files; made if it is not there.
        dtype: of the stored vectors. float16 takes half the space and rounds by at most 5e-4 of a
            vector's largest entry; `tutelage cache` reports what it does to the metric.
    """

    def __init__(self, encoder: DualEncoder, folder: str, dtype: Dtype = "float32") -> None:
        super().__init__()
        if dtype not in ("float32", "float16"):
            raise UserError(f"dtype is 'float32' or 'float16', got {dtype!r}")
        self.encoder = encoder
        self.folder = folder
        self.dtype = dtype
        self.dim = encoder.dim
        self.normalized = encoder.normalized
        self.batch_size = encoder.batch_size
        self._vectors: dict[tuple[Role, str], Tensor] = {}
        self._rows: dict[Role, dict[str, tuple[str, int]]] = {"query": {}, "document": {}}
        self._own: dict[str, Any] | None = None

    def embed(self, items: Items, role: Role) -> Tensor:
        """Return the stored vectors of texts; those not stored are encoded, without gradient."""
        with torch.no_grad():
            if isinstance(items, Tensor):
                return self.encoder.embed(items, role)
            known = self._rows[role]
            found = [known.get(text) for text in items]
            missing = [number for number, place in enumerate(found) if place is None]
            vectors = torch.empty(len(items), self.dim)
            if missing:
                texts = [items[number] for number in missing]
                vectors[missing] = self.encoder.encode(texts, role).float().cpu()
            by_name: dict[str, list[tuple[int, int]]] = {}
            for number, place in enumerate(found):
                if place is not None:
                    by_name.setdefault(place[0], []).append((number, place[1]))
            for name, pairs in by_name.items():
                numbers, rows = zip(*pairs, strict=True)
                vectors[list(numbers)] = self._vectors[role, name][list(rows)].float()
            return vectors.to(_device_of(self))

    def encode_collection(self, collection: Collection, role: Role) -> Tensor:
        """Return the vectors of a collection from its file, which is made if it is not there.

        Raises:
            UserError: If the file is of another encoder or of other texts.
        """
        key = role, collection.digest
        if key not in self._vectors:
            stored = StoredRows(
                folder=Path(self.folder).expanduser(),
                name=f"{role}-{collection.name}",
                fingerprint={**self.fingerprint(), "dtype": self.dtype},
                digest=collection.digest,
                ids=collection.ids,
            )
            rows = stored.open()
            if rows is None:
                rows = stored.make(
                    lambda done: self._compute(collection, role, done), (self.dim,), self.dtype
                )
            self._vectors[key] = rows
            if not isinstance(collection.items, Tensor):
                for row, text in enumerate(collection.items):
                    self._rows[role].setdefault(text, (collection.digest, row))
        return self._vectors[key].float()

    def prepare(self, collections: Sequence[tuple[Collection, Role]]) -> None:
        """Encode what training will draw from, unless it is there."""
        for collection, role in collections:
            self.encode_collection(collection, role)

    def fingerprint(self) -> dict[str, Any]:
        """Return that of the encoder; it is frozen, so its weights are read once."""
        if self._own is None:
            self._own = self.encoder.fingerprint()
        return self._own

    def sentence_modules(self) -> list[nn.Module] | None:
        """Return those of the encoder."""
        return self.encoder.sentence_modules()

    def _compute(
        self, collection: Collection, role: Role, done: int
    ) -> Iterator[tuple[Tensor, Tensor]]:
        yield from self.encoder.encode_in_parts(collection.items, role, collection.name, done)


def _device_of(network: nn.Module) -> torch.device:
    return next(network.parameters()).device
