"""Encoders of sentence-transformers and of Hugging Face, or some of their layers."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from tutelage.core.modes import device_of
from tutelage.errors import NotInstalledError, UserError
from tutelage.models.text.digest import weights_digest
from tutelage.models.text.dual_encoder import DualEncoder, Items, Role, check_texts
from tutelage.models.text.source import find_source


class SentenceEncoder(DualEncoder):
    """A model of sentence-transformers, one tower for queries and documents.

    A plain encoder of Hugging Face gets mean pooling over its tokens, as sentence-transformers
    does it.

    Args:
        source: a folder, `package:NAME`, or a name on a hub.
        layers: numbers of the transformer layers to keep; None keeps all. A small student is best
            started from some of its teacher's.
        query_prompt: put before each query, such as `query: `.
        document_prompt: put before each document.
        max_length: tokens of a text that are read; None is the model's own limit.

    Raises:
        UserError: If sentence-transformers is missing, or there is no such model or layer.
    """

    def __init__(
        self,
        source: str,
        layers: Sequence[int] | None = None,
        query_prompt: str = "",
        document_prompt: str = "",
        max_length: int | None = None,
    ) -> None:
        super().__init__()
        self.source = source
        self.query_prompt = query_prompt
        self.document_prompt = document_prompt
        self.model = _load(source)
        if layers is not None:
            _keep_layers(self.model, layers)
        if max_length is not None:
            self.model.max_seq_length = max_length
        self.dim = int(self.model.get_embedding_dimension())
        self.normalized = type(list(self.model)[-1]).__name__ == "Normalize"

    def embed(self, items: Items, role: Role) -> Tensor:
        """Return the vectors of texts."""
        prompt = self.query_prompt if role == "query" else self.document_prompt
        texts = [prompt + text for text in check_texts(items, "SentenceEncoder")]
        features = self.model.preprocess(texts)
        device = device_of(self)
        moved = {k: v.to(device) if isinstance(v, Tensor) else v for k, v in features.items()}
        vectors: Tensor = self.model(moved)["sentence_embedding"]
        return vectors

    def fingerprint(self) -> dict[str, Any]:
        """Return weights, tokenizer, pooling, truncation and prompts."""
        modules = [type(module).__name__ for module in self.model]
        pooling = [getattr(module, "pooling_mode", None) for module in self.model]
        tokenizer = self.model.tokenizer
        vocabulary = str(sorted(tokenizer.get_vocab().items())) if tokenizer else ""
        return {
            "weights": weights_digest(self.model),
            "tokenizer": hashlib.sha256(vocabulary.encode()).hexdigest()[:32],
            "modules": modules,
            "pooling": [str(mode) for mode in pooling if mode is not None],
            "max_length": self.model.max_seq_length,
            "query_prompt": self.query_prompt,
            "document_prompt": self.document_prompt,
        }

    def sentence_modules(self) -> list[nn.Module]:
        """Return the modules that it consists of."""
        return list(self.model)

    def prompts(self) -> dict[str, str]:
        """Return the prompts that are not empty."""
        prompts = {"query": self.query_prompt, "document": self.document_prompt}
        return {role: prompt for role, prompt in prompts.items() if prompt}


def _load(source: str) -> Any:
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        raise NotInstalledError("SentenceEncoder", "sentence_transformers") from error
    found = find_source(source)
    try:
        with _without_progress_bar():
            return SentenceTransformer(found, device="cpu")
    except Exception as error:  # a hub, a folder of another kind, a damaged file
        text = " ".join(str(error).split())[:200]
        raise UserError(
            f"sentence-transformers cannot open {source!r} ({text}); give the folder of a model, "
            "or package:NAME"
        ) from error


@contextmanager
def _without_progress_bar() -> Iterator[None]:
    """Load weights in silence: a bar over a second's work hides what a command says."""
    from transformers.utils import logging

    was_enabled = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if was_enabled:
            logging.enable_progress_bar()


def _keep_layers(model: Any, layers: Sequence[int]) -> None:
    """Keep some layers of the transformer, in the given order."""
    transformer = model[0].auto_model
    owner, name = _layers_of(transformer)
    blocks = getattr(owner, name)
    for number in layers:
        if not 0 <= number < len(blocks):
            raise UserError(
                f"layers: there is no layer {number}; the encoder has 0 to {len(blocks) - 1}"
            )
    if not layers:
        raise UserError("layers names none; give numbers such as [0, 5], or leave it out")
    setattr(owner, name, nn.ModuleList(blocks[number] for number in layers))
    transformer.config.num_hidden_layers = len(layers)


def _layers_of(transformer: nn.Module) -> tuple[nn.Module, str]:
    """Return the module that holds the list of layers, and the list's name in it."""
    wanted = getattr(transformer.config, "num_hidden_layers", None)
    for module in transformer.modules():
        for name, child in module.named_children():
            if isinstance(child, nn.ModuleList) and len(child) == wanted:
                return module, name
    raise UserError(
        f"{type(transformer).__name__} has no list of layers, of which some could be kept; leave "
        "layers out"
    )
