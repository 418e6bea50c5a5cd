"""A text encoder whose vectors are stored in a folder."""

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

MAX_FURTHER = 4096  # texts of each role that are in no collection and whose vectors are remembered


class CachedEncoder(DualEncoder):
    """A frozen encoder that encodes each collection once, and then answers from files.

    A text that is in none of its collections is encoded when it is asked for, and remembered.
    Vectors in the folder that are of another encoder (weights, tokenizer, pooling, truncation,
    prompt) or of other texts are refused, see `StoredRows`.

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
        self._further: dict[Role, dict[str, Tensor]] = {"query": {}, "document": {}}
        self._own: dict[str, Any] | None = None

    @torch.no_grad()
    def embed(self, items: Items, role: Role) -> Tensor:
        """Return the stored vectors of texts; those not stored are encoded, without gradient."""
        if isinstance(items, Tensor):
            return self.encoder.embed(items, role)
        places = [self._rows[role].get(text) for text in items]
        digests = {None if place is None else place[0] for place in places}
        if len(digests) == 1 and None not in digests:  # as in training: all from one collection
            rows = torch.tensor([place[1] for place in places if place is not None])
            vectors = self._vectors[role, digests.pop() or ""].index_select(0, rows).float()
        else:
            vectors = self._from_several(items, role, places)
        return vectors.to(_device_of(self))

    def _from_several(
        self, items: Sequence[str], role: Role, places: Sequence[tuple[str, int] | None]
    ) -> Tensor:
        """Return vectors from several collections, and new ones of texts that are in none."""
        vectors = torch.empty(len(items), self.dim)
        missing = [number for number, place in enumerate(places) if place is None]
        if missing:
            texts = [items[number] for number in missing]
            vectors[missing] = self._new(texts, role)
        for number, place in enumerate(places):
            if place is not None:
                vectors[number] = self._vectors[role, place[0]][place[1]].float()
        return vectors

    def _new(self, texts: Sequence[str], role: Role) -> Tensor:
        """Return vectors of texts that are in no collection, each encoded once.

        Before training, all checks and the steps of a plan take the same few texts.
        """
        known = self._further[role]
        new = [text for text in dict.fromkeys(texts) if text not in known]
        if new:
            found = dict(zip(new, self.encoder.encode(new, role).float().cpu(), strict=True))
            if len(known) + len(found) <= MAX_FURTHER:
                known.update(found)
            else:
                known = {**known, **found}
        return torch.stack([known[text] for text in texts])

    def encode_collection(self, collection: Collection, role: Role) -> Tensor:
        """Return the vectors of a collection from its file, which is made if it is not there.

        Raises:
            UserError: If the file is of another encoder or of other texts.
        """
        if not self._opened(collection, role):
            try:
                rows = self._stored(collection, role).make(
                    lambda done: self._compute(collection, role, done), (self.dim,), self.dtype
                )
            except OSError as error:
                raise UserError(
                    f"vectors cannot be stored in {self.folder} ({error}); make room, or give "
                    "another folder"
                ) from error
            self._remember(collection, role, rows)
        return self._vectors[role, collection.digest].float()

    def prepare(self, collections: Sequence[tuple[Collection, Role]]) -> None:
        """Encode what training will draw from, unless it is there."""
        for collection, role in collections:
            self.encode_collection(collection, role)

    def use_stored(self, collections: Sequence[tuple[Collection, Role]]) -> None:
        """Open the files of these collections that are there, and write nothing.

        Raises:
            UserError: If one is of another encoder or of other texts.
        """
        for collection, role in collections:
            self._opened(collection, role)

    def _opened(self, collection: Collection, role: Role) -> bool:
        """Return whether the vectors of a collection are there, and open their file."""
        if (role, collection.digest) in self._vectors:
            return True
        rows = self._stored(collection, role).open()
        if rows is not None:
            self._remember(collection, role, rows)
        return rows is not None

    def _stored(self, collection: Collection, role: Role) -> StoredRows:
        return StoredRows(
            folder=Path(self.folder).expanduser(),
            name=f"{role}-{collection.name}",
            fingerprint={**self.fingerprint(), "dtype": self.dtype},
            digest=collection.digest,
            ids=collection.ids,
        )

    def _remember(self, collection: Collection, role: Role, rows: Tensor) -> None:
        self._vectors[role, collection.digest] = rows
        if not isinstance(collection.items, Tensor):
            for row, text in enumerate(collection.items):
                self._rows[role].setdefault(text, (collection.digest, row))

    def fingerprint(self) -> dict[str, Any]:
        """Return that of the encoder; it is frozen, so its weights are read once."""
        if self._own is None:
            self._own = self.encoder.fingerprint()
        return self._own

    def sentence_modules(self) -> list[nn.Module] | None:
        """Return those of the encoder."""
        return self.encoder.sentence_modules()

    def prompts(self) -> dict[str, str]:
        """Return those of the encoder."""
        return self.encoder.prompts()

    def _compute(
        self, collection: Collection, role: Role, done: int
    ) -> Iterator[tuple[Tensor, Tensor]]:
        yield from self.encoder.encode_in_parts(collection.items, role, collection.name, done)


def _device_of(network: nn.Module) -> torch.device:
    return next(network.parameters()).device
