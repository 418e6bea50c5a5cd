"""A static encoder: the mean of word vectors, and a network of two layers behind it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor, nn

from tutelage.core.modes import device_of
from tutelage.errors import NotInstalledError, UserError
from tutelage.models.text.digest import weights_digest
from tutelage.models.text.dual_encoder import DualEncoder, Items, Role, check_texts, unit
from tutelage.models.text.source import find_source, source_file
from tutelage.models.text.wordpiece import occurring, trimmed

WORD_VECTORS = "word_embeddings.weight"  # end of the name in a file of weights
MAX_REMEMBERED = 500_000  # texts whose pieces are remembered


class StaticEncoder(DualEncoder):
    """Mean of the word pieces' vectors, then linear, GELU, linear: no attention, no order.

    The vectors start as the word vectors of a transformer. Its tokenizer is cut down to the pieces
    that occur in the texts of the training data (`adapt`), whose other rows would be dead weight
    for the optimizer and on the disk.

    Args:
        source: of tokenizer.json and model.safetensors: a folder, or `package:NAME`.
        hidden: width of the layer in between; None has no layers, and gives the mean itself.
        dim: width of the vectors; None is that of the word vectors.
        normalized: scale to length 1.
        vocabulary: keep the pieces that occur, or all of them.

    Raises:
        UserError: If a file is missing, or holds no word vectors.
    """

    batch_size = 256

    def __init__(
        self,
        source: str,
        hidden: int | None = 512,
        dim: int | None = None,
        normalized: bool = True,
        vocabulary: str = "occurring",
    ) -> None:
        super().__init__()
        if vocabulary not in ("occurring", "all"):
            raise UserError(f"vocabulary is 'occurring' or 'all', got {vocabulary!r}")
        self.source = source
        self.vocabulary = vocabulary
        self._full_tokenizer, vectors = _load(source)
        self._tokenizer = self._full_tokenizer
        self._remembered: dict[str, np.ndarray[Any, Any]] = {}
        width = vectors.shape[1]
        self.dim = width if dim is None else dim
        self.normalized = normalized
        self.pieces: Tensor
        self.register_buffer("pieces", torch.arange(len(vectors)))
        self.embedding = nn.EmbeddingBag.from_pretrained(vectors, freeze=False, mode="mean")
        self.layers = None
        if hidden is not None:
            layers = [nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, self.dim)]
            self.layers = nn.Sequential(*layers)
        elif self.dim != width:
            raise UserError(
                f"the mean of word vectors has width {width}, not {self.dim}; set hidden, or leave "
                "dim out"
            )
        self.register_load_state_dict_pre_hook(_fit_to_state)  # type: ignore[no-untyped-call]

    def embed(self, items: Items, role: Role) -> Tensor:
        """Return the vectors of texts; that of a text without any piece is the layers' of zero."""
        pieces = self._pieces_of(check_texts(items, "StaticEncoder"))
        counts = np.fromiter((len(p) for p in pieces), np.int64, len(pieces))
        offsets = counts.cumsum() - counts
        device = device_of(self)
        none = np.zeros(0, np.int64)  # also of no text at all
        rows = torch.from_numpy(np.concatenate([none, *pieces])).to(device)
        means = self.embedding(rows, torch.from_numpy(offsets).to(device))
        vectors: Tensor = means if self.layers is None else self.layers(means)
        return unit(vectors) if self.normalized else vectors

    def adapt(self, items: Sequence[str]) -> None:
        """Keep the pieces that occur in these texts, and the one for unknown words."""
        if self.vocabulary == "all":
            return
        pieces = occurring(self._full_tokenizer, items)
        if pieces is not None:
            self._use_pieces(torch.tensor(pieces))

    def fingerprint(self) -> dict[str, Any]:
        """Return the digest of its weights, which hold the pieces."""
        return {"weights": weights_digest(self), "source": self.source}

    def sentence_modules(self) -> list[nn.Module]:
        """Return a static embedding, two dense layers, and the scaling to length 1."""
        from sentence_transformers.sentence_transformer.modules import StaticEmbedding

        from tutelage.models.text.ship import dense, normalize

        weights = self.embedding.weight.detach().clone()
        modules: list[nn.Module] = [StaticEmbedding(self._tokenizer, embedding_weights=weights)]
        if self.layers is not None:
            first, activation, last = self.layers
            assert isinstance(first, nn.Linear)
            assert isinstance(last, nn.Linear)
            modules += [dense(first, activation), dense(last)]
        return [*modules, normalize()] if self.normalized else modules

    def _pieces_of(self, texts: Sequence[str]) -> list[np.ndarray[Any, Any]]:
        """Return the pieces of texts as numbers of rows; those seen before are not cut again."""
        known = self._remembered
        new = [text for text in dict.fromkeys(texts) if text not in known]
        if new:
            cut = self._tokenizer.encode_batch(new, add_special_tokens=False)
            found = {
                text: np.array(encoding.ids, dtype=np.int64)
                for text, encoding in zip(new, cut, strict=True)
            }
            if len(known) + len(found) <= MAX_REMEMBERED:
                known.update(found)
            else:
                known = {**{text: known[text] for text in texts if text in known}, **found}
        return [known[text] for text in texts]

    def _use_pieces(self, pieces: Tensor) -> None:
        """Keep these pieces of the full vocabulary, with their vectors where they have any now."""
        vectors = self.embedding.weight.detach()
        full = torch.zeros(self._full_tokenizer.get_vocab_size(), vectors.shape[1])
        full[self.pieces] = vectors.cpu()
        selected = full[pieces].to(vectors)
        self.pieces = pieces.to(self.pieces.device)
        self.embedding = nn.EmbeddingBag.from_pretrained(selected, freeze=False, mode="mean")
        self._tokenizer = trimmed(self._full_tokenizer, pieces.tolist())
        self._remembered = {}


def _fit_to_state(module: nn.Module, state: dict[str, Any], prefix: str, *rest: Any) -> None:
    """Before weights are loaded, keep the pieces that they are for."""
    assert isinstance(module, StaticEncoder)
    pieces = state.get(f"{prefix}pieces")
    if isinstance(pieces, Tensor) and not torch.equal(pieces.cpu(), module.pieces.cpu()):
        module._use_pieces(pieces.cpu())


def _load(source: str) -> tuple[Any, Tensor]:
    """Return the tokenizer and the word vectors (V, d) of a source."""
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise NotInstalledError("StaticEncoder", "tokenizers") from error
    folder = find_source(source)
    tokenizer = Tokenizer.from_file(str(source_file(folder, "tokenizer.json")))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    path = source_file(folder, "model.safetensors")
    with safe_open(str(path), framework="pt") as weights:
        names = [name for name in weights.keys() if name.endswith(WORD_VECTORS)]  # noqa: SIM118
        if not names:
            raise UserError(f"{path} holds no word vectors: no name in it ends in {WORD_VECTORS}")
        vectors = weights.get_tensor(names[0]).float()
    if len(vectors) < tokenizer.get_vocab_size():
        raise UserError(
            f"{path} has {len(vectors)} word vectors for {tokenizer.get_vocab_size()} pieces; give "
            "tokenizer and weights of one model"
        )
    return tokenizer, vectors[: tokenizer.get_vocab_size()].clone()
